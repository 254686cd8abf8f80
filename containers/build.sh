#!/usr/bin/env bash
# Build the trainer image for one accelerator ($1: cpu, cuda or tpu), or the launcher image ($1: launcher), and
# smoke-test it.
# PODIUM_PYTHON is a Python that has hatchling; DOCKER_BUILD_ARGS are passed on, such as --network=host.
set -euo pipefail
cd "$(dirname "$0")/.."

accelerator=${1:-cpu}
python=${PODIUM_PYTHON:-.venv/bin/python}
case $accelerator in
  cpu) name=trainer lock=trainer-cpu suffix= ;;
  cuda | tpu) name=trainer lock=trainer-$accelerator suffix=-$accelerator ;;
  launcher) name=launcher lock=launcher suffix= ;;
  *) echo "no image for '$accelerator': write cpu, cuda, tpu or launcher" >&2; exit 2 ;;
esac

rm -rf build/wheel
"$python" -m hatchling build -t wheel -d build/wheel
version=$("$python" -c 'from podium.version import __version__; print(__version__)')
image=podium/$name:$version$suffix

# shellcheck disable=SC2086 # several arguments on purpose
docker build ${DOCKER_BUILD_ARGS:-} --build-arg "LOCK=$lock" -f containers/trainer/Dockerfile -t "$image" .
containers/smoke.sh "$image" "$name"
echo "built $image"
