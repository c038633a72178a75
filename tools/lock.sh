#!/bin/sh
# Writes requirements.lock: exact versions and hashes of all packages for Python 3.12 and later on Linux and macOS, and
# no address of the index that they came from. Arguments go to uv: `tools/lock.sh --upgrade` takes newer versions.
#
# And tools/harbor-newest.lock: what is other with the newest Harbor that pyproject.toml takes (see tools/venv-harbor.sh).
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$(tools/find-python.sh)" -m venv "$work/venv"
"$work/venv/bin/python" -m pip --disable-pip-version-check -q install uv
echo 'flit-core>=3.11' >"$work/build.in" # builds the checkout itself, without a network
compile() {
    "$work/venv/bin/uv" pip compile pyproject.toml "$work/build.in" --extra dev --extra docs \
        --universal --python-version 3.12 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --quiet "$@"
}
compile --output-file requirements.lock "$@"
cp requirements.lock "$work/newest.lock" # what it names stays, unless that Harbor takes no such version
compile --output-file "$work/newest.lock" --upgrade-package harbor
# Of a package and the lines of its hashes those that are not in the first lock.
"$work/venv/bin/python" - "$work/newest.lock" >tools/harbor-newest.lock <<'END'
import re, sys
parts = lambda path: re.findall(r"^\S.*(?:\n +.*)*\n", open(path, encoding="utf-8").read(), re.MULTILINE)
known = set(parts("requirements.lock"))
print("".join(part for part in parts(sys.argv[1]) if part not in known), end="")
END
