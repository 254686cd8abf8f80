#!/usr/bin/env bash
# Show that an image ($1) starts as any user, without a network and on a read-only disk, and holds what it should; $2 is
# trainer or launcher.
set -euo pipefail

in_image() { docker run --rm --interactive --network=none --read-only --tmpfs /tmp --user 12345:12345 "$1" "${@:2}"; }

in_image "$1" podium --help >/dev/null
in_image "$1" python -m podium schema >/dev/null
if [ "$2" = launcher ]; then
  in_image "$1" podium launch --help >/dev/null
  in_image "$1" python - <<'PY'
import importlib.util

import podium_pipelines.multihost.task

for name in ("jax", "kfp", "numpy", "torch"):
    assert importlib.util.find_spec(name) is None, f"{name} has no place in a launcher image"
PY
  echo "smoke test passed: $1"
  exit
fi
in_image "$1" python - <<'PY'
import importlib.util

import jax

import podium.stages.evaluate
import podium.stages.export
import podium.stages.ppo
import podium.stages.prepare
import podium.stages.reward
import podium.stages.sample

assert float(jax.jit(lambda x: x + 1)(jax.numpy.float32(1))) == 2
for name in ("kfp", "torch", "pytest"):
    assert importlib.util.find_spec(name) is None, f"{name} has no place in a trainer image"
PY
echo "smoke test passed: $1"
