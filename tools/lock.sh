#!/bin/sh
# Writes requirements.lock: exact versions and hashes of all packages for Python 3.12 and later on Linux and macOS, and
# no address of the index that they came from. Arguments go to uv: `tools/lock.sh --upgrade` takes newer versions.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$(tools/find-python.sh)" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check -q install uv
echo 'flit-core>=3.11' >"$work/build.in" # builds the checkout itself, without a network
"$work/venv/bin/uv" pip compile pyproject.toml "$work/build.in" --extra dev --extra docs \
    --universal --python-version 3.12 --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock "$@"
