#!/bin/sh
# Makes .venv inside the checkout from the locked packages; does nothing where it is up to date.
#
# .venv/.stamp is written last and says what the environment was made from, so an interrupted or outdated one is made
# anew. Installing changes nothing outside the checkout but pip's own cache.
set -eu
cd "$(dirname "$0")/.."

wanted="$PWD $(cat requirements.lock pyproject.toml tools/venv.sh | cksum)"
if [ "$(cat .venv/.stamp 2>/dev/null)" = "$wanted" ]; then exit 0; fi

python=$(tools/find-python.sh)
echo "installing the locked packages into .venv with $python (about a minute)"
rm -rf .venv
"$python" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input -qq "$@"; }
pip install --require-hashes --only-binary :all: -r requirements.lock
pip install --no-deps --no-build-isolation --no-index -e .
echo "$wanted" >.venv/.stamp
