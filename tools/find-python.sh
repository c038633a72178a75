#!/bin/sh
# Prints the path of a Python >= 3.12, or one line on stderr that says how to get one.
#
# Every candidate is tried by running it: a name on PATH may be a pyenv or asdf shim that only fails. PYTHON=… is
# tried first. Python 3.14 and later come last, because the locked packages may not have builds for them yet.
set -u

usable() { # prints the interpreter's own path if it is new enough and can make environments
    "$1" -I -c '
import sys
if sys.version_info < (3, 12):
    sys.exit(1)
import ensurepip, ssl, venv
print(sys.executable)' 2>/dev/null
}

if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" && exit 0
    echo "PYTHON=$PYTHON is no working Python >= 3.12 with the modules venv, ensurepip and ssl; set PYTHON to one that is" >&2
    exit 1
fi

home=${HOME:-/nonexistent}
for version in 3.12 3.13 3; do
    case $version in 3) name=python3 any='3.*' ;; *) name=python$version any="$version*" ;; esac
    # $any is left open to the shell: it is a pattern.
    for candidate in "$name" \
        "${PYENV_ROOT:-$home/.pyenv}"/versions/$any/bin/python3 \
        "${UV_PYTHON_INSTALL_DIR:-$home/.local/share/uv/python}"/cpython-$any/bin/python3 \
        "${ASDF_DATA_DIR:-$home/.asdf}"/installs/python/$any/bin/python3 \
        "$home"/.local/bin/"$name" \
        /usr/local/bin/"$name" /opt/homebrew/bin/"$name" /usr/bin/"$name" \
        /opt/python*/bin/"$name" /opt/python/$any/bin/python3 \
        "/Library/Frameworks/Python.framework/Versions/$version/bin/python3" \
        "${CONDA_PREFIX:-$home/miniconda3}"/bin/"$name" "$home"/miniforge3/bin/"$name" /opt/conda/bin/"$name"; do
        case $candidate in
        */*) [ -x "$candidate" ] || continue ;;
        *) command -v "$candidate" >/dev/null 2>&1 || continue ;;
        esac
        usable "$candidate" && exit 0
    done
done

echo "Python >= 3.12 is needed and none was found: install one (uv python install 3.12, pyenv install 3.12, apt-get install python3 python3-venv on Debian 13, brew install python@3.12), or set PYTHON to it" >&2
exit 1
