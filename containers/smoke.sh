#!/usr/bin/env bash
# Show that an image ($1) starts as any user, without a network and on a read-only disk, and holds what it should; $2 is
# cpu, cuda, tpu or launcher. No accelerator is needed: its plugin has to be there, and JAX computes on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."
source containers/engine.sh
image=$1 kind=$2

case $("$engine" --version) in
  buildah*) # Has no read-only disk.
    container=$("$engine" from --pull-never "$image")
    trap '"$engine" rm "$container" >/dev/null' EXIT
    in_image() { "$engine" run --network none --user 12345:12345 --env JAX_PLATFORMS=cpu "$container" -- "$@"; }
    user=$("$engine" run "$container" -- id -u)
    ;;
  *)
    in_image() {
      "$engine" run --rm --interactive --network=none --read-only --tmpfs /tmp --user 12345:12345 \
        --env JAX_PLATFORMS=cpu "$image" "$@"
    }
    user=$("$engine" run --rm --network=none "$image" id -u)
    ;;
esac

[ "$user" = 1000 ] || { echo "$image runs as user $user; 1000 was expected" >&2; exit 1; }
in_image podium --help >/dev/null
in_image python -m podium schema >/dev/null
if [ "$kind" = launcher ]; then
  in_image podium launch --help >/dev/null
fi
in_image python - "$kind" <containers/smoke.py
echo "smoke test passed: $image"
