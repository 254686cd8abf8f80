# shellcheck shell=bash
# Sourced: sets engine to what builds and runs images, CONTAINER_ENGINE or the first found of docker, podman and buildah.
for engine in ${CONTAINER_ENGINE:-docker podman buildah}; do
  command -v "$engine" >/dev/null && break
  engine=
done
if [ -z "$engine" ]; then
  echo "no container engine: install docker, podman or buildah, or name what you have in CONTAINER_ENGINE" >&2
  exit 2
fi
