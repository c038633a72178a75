#!/bin/sh
# Makes build/harbor-newest/.venv: all packages of .venv, but for those that tools/harbor-newest.lock has, which are in the
# place of the others. So tests can run with the newest Harbor that is supported, beside the oldest one of .venv.
set -eu
cd "$(dirname "$0")/.."

place=build/harbor-newest
stamp="$PWD $(cat requirements.lock tools/harbor-newest.lock | cksum)"
if [ "$(cat $place/.locked 2>/dev/null)" != "$stamp" ]; then
    echo "installing the newest Harbor that is supported into $place/.venv (half a minute)"
    rm -rf $place
    .venv/bin/python -m venv --without-pip $place/.venv
    for packages in $place/.venv/lib/python*/site-packages; do
        # Its own come first, then those of .venv, and what is named there.
        .venv/bin/python -c 'import sysconfig; print(f"import site; site.addsitedir({sysconfig.get_path('"'purelib'"')!r})")' \
            >"$packages/zz-others.pth"
    done
    .venv/bin/python -m pip --disable-pip-version-check --no-input -qq --python $place/.venv/bin/python install \
        --no-compile --no-deps --ignore-installed --require-hashes --only-binary :all: -r tools/harbor-newest.lock
    echo "$stamp" >$place/.locked
fi
