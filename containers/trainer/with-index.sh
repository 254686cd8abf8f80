#!/bin/sh
# Run a command with the package index and the certificates that the build was given as secrets, if any.
set -eu
if [ -s /run/secrets/index ]; then
  PIP_INDEX_URL=$(cat /run/secrets/index)
  export PIP_INDEX_URL UV_DEFAULT_INDEX="$PIP_INDEX_URL"
fi
if [ -s /run/secrets/ca ]; then
  export PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca
fi
exec "$@"
