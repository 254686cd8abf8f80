#!/usr/bin/env bash
# Make the virtual environment in $1 with Python 3.11, or say what is missing. PYTHON names another interpreter.
set -euo pipefail

supported='import sys; sys.exit(sys.version_info[:2] != (3, 11))'

for name in ${PYTHON:-python3.11 python3}; do
  if "$name" -c "$supported" 2>/dev/null; then
    found=$name
    break
  fi
done

if [ -z "${found:-}" ]; then
  echo "Podium needs Python 3.11, and ${PYTHON:-neither python3.11 nor python3} is not one." >&2
  echo "Debian, Ubuntu: apt install python3.11 python3.11-venv; elsewhere: make PYTHON=/path/to/python3.11 ..." >&2
  exit 2
fi

if ! "$found" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "$found cannot make virtual environments: its venv module is a package of its own on Debian and Ubuntu." >&2
  echo "Write: apt install python3-venv (or python3.11-venv), then the same make command again." >&2
  exit 2
fi

"$found" -m venv --clear "$1"
