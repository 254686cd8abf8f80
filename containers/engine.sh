# shellcheck shell=bash
# Sourced: sets engine to what builds and runs images: CONTAINER_ENGINE, or the first of docker, podman and buildah that
# answers. A docker without its daemon does not.
for engine in ${CONTAINER_ENGINE:-docker podman buildah}; do
  "$engine" info >/dev/null 2>&1 && break
  engine=
done
if [ -z "$engine" ]; then
  echo "no container engine answers: start or install docker, podman or buildah, or name yours in CONTAINER_ENGINE" >&2
  exit 2
fi
