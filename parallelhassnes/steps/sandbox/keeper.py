"""The first process of a sandbox, and the protocol by which it runs commands.

The keeper is ``bash`` as process 1 of the sandbox: it reaps every orphan, no signal from inside ends it, and it ends,
with everything in the sandbox, when its standard input does. The host and the keeper share one folder, which the
sandbox sees read-only as ``/run/sandbox``. To run job ``N`` the host

1. makes the named pipes ``N.out``, ``N.err`` and ``N.rc`` and opens them for reading,
2. writes ``N.sh`` (what to run) and ``N.in`` (its input, or a link to ``/dev/null``),
3. writes the line ``N`` to the keeper's standard input.

The keeper runs ``N.sh`` in a child with these as its standard streams, and that child's exit status goes to ``N.rc``
as a decimal number. End of file on ``N.rc`` without a number: the job killed its own process group. Each job has a
process group of its own (``set -m``), so that ``kill 0`` in one does not reach another.
"""

import re
import shlex
from collections.abc import Mapping

INSIDE = "/run/sandbox"
MARK = "SANDBOX_JOB"
"""Environment variable that every process of a job inherits: how a whole tree is found that must be killed."""

_LOOP = """cd /run/sandbox || exit
echo ready
exec >/dev/null 2>&1
set -m
while IFS= read -r n; do
  { ( exec 3>&-; . "./$n.sh" ); echo $? >&3; } <"$n.in" >"$n.out" 2>"$n.err" 3>"$n.rc" &
done"""
KEEPER = ("bash", "--norc", "--noprofile", "-c", _LOOP)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIXED = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})


def script(command: str, *, cwd: str, env: Mapping[str, str], become: tuple[str, ...]) -> str:
    """The content of ``N.sh``: run ``command`` with bash in ``cwd`` with exactly ``env``.

    ``become``: a command in front of it that changes the user.
    """
    plain = {
        name: value for name, value in env.items() if _NAME.fullmatch(name) and name not in _FIXED
    }
    odd = [f"{name}={value}" for name, value in env.items() if name not in plain]
    lines = [f"export {name}={shlex.quote(value)}" for name, value in plain.items()]
    lines.append(f"cd -- {shlex.quote(cwd)} || exit 126")
    argv = [*become, *(["env", *odd] if odd else []), "bash", "-c", command]
    lines.append("unset OLDPWD PWD SHLVL; exec " + shlex.join(argv))
    return "\n".join(lines) + "\n"
