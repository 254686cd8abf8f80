#!/usr/bin/env bash
# Resolve every lock again with the uv in $1. Locks hold versions and hashes, and no host: any mirror can serve them.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
  "$1" pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
    --no-header --no-annotate --no-emit-index-url "${@:2}"
}

# A find-links folder would pin local wheels and write their paths.
unset UV_FIND_LINKS

compile "$1" requirements/installer.in -o requirements/installer.lock
compile "$1" --no-deps requirements/demo.in -o requirements/demo.lock
# What lists an image's packages, while it is built.
compile "$1" requirements/sbom.in -o requirements/sbom.lock
compile "$1" --extra train --extra cloud --extra kfp --extra launcher --extra vertex --extra dev pyproject.toml -o requirements/dev.lock
for accelerator in cpu cuda tpu; do
  extra=(--extra "$accelerator")
  [ "$accelerator" = cpu ] && extra=()
  # One version of everything: what the tests ran with is what the image holds.
  compile "$1" --constraint requirements/dev.lock --extra train --extra cloud "${extra[@]}" \
    pyproject.toml -o "requirements/trainer-$accelerator.lock"
done
compile "$1" --constraint requirements/dev.lock --extra launcher --extra cloud pyproject.toml \
  -o requirements/launcher.lock
# What the TPU image holds, for the tests that compile for a TPU.
compile "$1" --no-deps --constraint requirements/trainer-tpu.lock requirements/libtpu.in -o requirements/libtpu.lock
