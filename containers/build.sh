#!/usr/bin/env bash
# Build the trainer image for one accelerator ($1: cpu, cuda or tpu), or the launcher image ($1: launcher), smoke-test
# it, and write what is in it and what it was built from into build/images.
#
# BASE replaces the base image that the Dockerfile names, CONTAINER_ENGINE chooses between docker (with buildx), podman
# and buildah, IMAGE_REPOSITORY stands before the image's name, CLEAN=1 takes nothing from earlier builds,
# DOCKER_BUILD_ARGS are passed on, such as --network=host. The build sees the package index of UV_DEFAULT_INDEX or
# PIP_INDEX_URL and the certificates of SSL_CERT_FILE or PIP_CERT as secrets: the image does not hold them.
# PODIUM_PYTHON is a Python that has hatchling.
set -euo pipefail
cd "$(dirname "$0")/.."
source containers/engine.sh

kind=${1:-cpu}
python=${PODIUM_PYTHON:-.venv/bin/python}
case $kind in
  cpu) name=trainer lock=trainer-cpu suffix= ;;
  cuda | tpu) name=trainer lock=trainer-$kind suffix=-$kind ;;
  launcher) name=launcher lock=launcher suffix= ;;
  *) echo "no image for '$kind': write cpu, cuda, tpu or launcher" >&2; exit 2 ;;
esac

rm -rf build/wheel
"$python" -m hatchling build -t wheel -d build/wheel
version=$("$python" -c 'from podium.version import __version__; print(__version__)')
revision=$(git describe --always --dirty --abbrev=40 --exclude='*' 2>/dev/null || echo unknown)
image=${IMAGE_REPOSITORY:-podium}/$name
base=${BASE:-$(sed -n 's/^ARG BASE=//p' containers/trainer/Dockerfile)}
# Fixed, not the commit's time: a layer whose files did not change stays the same layer, which no node pulls again.
# It is the time that the wheel's files bear.
epoch=1580601600

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
inputs=(
  --build-arg "BASE=$base" --build-arg "LOCK=$lock"
  --build-arg "TITLE=podium-$name" --build-arg "VERSION=$version$suffix" --build-arg "REVISION=$revision"
)
if [ -n "${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-}}" ]; then
  printf %s "${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}" >"$work/index"
  inputs+=(--secret "id=index,src=$work/index")
fi
if [ -n "${SSL_CERT_FILE:-${PIP_CERT:-}}" ]; then
  inputs+=(--secret "id=ca,src=${SSL_CERT_FILE:-$PIP_CERT}")
fi
# Asked for what it can do, not for its name: podman may be called docker.
if "$engine" build --help | grep -q -- --timestamp; then
  # The identity label would hold the version of buildah.
  inputs+=(--timestamp "$epoch" --identity-label=false --layers)
  stored=()
else
  # Attestations would hold the time of the build.
  inputs+=(--build-arg "SOURCE_DATE_EPOCH=$epoch" --provenance=false --sbom=false)
  stored=(--output "type=docker,rewrite-timestamp=true")
fi

# shellcheck disable=SC2086 # several arguments on purpose
build() { "$engine" build ${DOCKER_BUILD_ARGS:-} -f containers/trainer/Dockerfile "${inputs[@]}" "$@" .; }

build ${CLEAN:+--no-cache} "${stored[@]}" --target image -t "$image:$version$suffix" --iidfile "$work/id"
id=$(<"$work/id")
id=${id#sha256:}
# KFP's cache goes by the name of the image: one that says which build it is, beside the one that moves.
exact=$image:$version-${id:0:12}
"$engine" tag "$image:$version$suffix" "$exact"

containers/smoke.sh "$exact" "$kind"

mkdir -p build/images
record=build/images/${exact//[\/:]/-}
build --target sbom --output "type=local,dest=$work/sbom"
mv "$work/sbom/sbom.json" "$record.cdx.json"
"$python" containers/provenance.py --image "$exact" --image-id "$id" --revision "$revision" --lock "$lock" \
  --base "$base" --base-id "$("$engine" images --quiet --no-trunc "$base")" --engine "$("$engine" --version)" \
  --epoch "$epoch" >"$record.intoto.json"
echo "built $exact, also tagged $version$suffix; $record.cdx.json is what it holds, $record.intoto.json what it is made of"
