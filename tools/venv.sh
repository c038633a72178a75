#!/bin/sh
# Makes .venv inside the checkout from the locked packages; does nothing where it is up to date.
#
# Two stamps, each written last, say what the packages and the checkout's own entry were installed from, so an
# interrupted or outdated environment is made anew. Nothing outside the checkout changes but pip's own cache.
set -eu
cd "$(dirname "$0")/.."

pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input -qq "$@"; }

locked="$PWD $(cksum <requirements.lock)"
if [ "$(cat .venv/.locked 2>/dev/null)" != "$locked" ]; then
    python=$(tools/find-python.sh)
    echo "installing the locked packages into .venv with $python (one to two minutes)"
    rm -rf .venv
    "$python" -m venv .venv
    pip install --no-compile --require-hashes --only-binary :all: -r requirements.lock
    echo "$locked" >.venv/.locked
fi

project=$(cksum <pyproject.toml)
if [ "$(cat .venv/.project 2>/dev/null)" != "$project" ]; then
    pip install --no-deps --no-build-isolation --no-index -e .
    echo "$project" >.venv/.project
fi
