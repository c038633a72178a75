"""The first process of a sandbox, and the protocol by which it runs commands.

The keeper is ``bash`` as process 1 of the sandbox: it reaps every orphan, no signal from inside ends it, and it ends,
with everything in the sandbox, when its standard input closes. The host and the keeper share one folder, which the
sandbox sees read-only as ``/run/sandbox``. To run job ``N`` the host

1. makes the named pipes ``N.out``, ``N.err`` and ``N.rc`` and opens them for reading,
2. writes ``N.sh`` (what to run) and ``N.in`` (its input, or a link to ``/dev/null``),
3. writes the line ``N`` to the keeper's standard input.

The keeper runs ``N.sh`` in a child with these as its standard streams; the exit status of the command goes to ``N.rc``
as a decimal number. End of file on ``N.rc`` without a number: the job killed its own process group. Each job has a
process group of its own (``set -m``), so that ``kill 0`` in one does not reach another.
"""

import re
import shlex
from collections.abc import Mapping, Sequence

from parallelhassnes.sandbox.programs import program

INSIDE = "/run/sandbox"
READY = b"ready"
"""The line by which a keeper says that it is."""
MARK = "SANDBOX_JOB"
"""Environment variable that every process of a job inherits: how a whole tree is found that must be killed."""

_LOOP = """cd /run/sandbox || exit
echo ready
exec >/dev/null 2>&1
set -m
while IFS= read -r n; do
  . "./$n.sh" <"$n.in" >"$n.out" 2>"$n.err" 3>"$n.rc" &
done"""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIXED = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})


def keeper_argv() -> tuple[str, ...]:
    """Return the program of a keeper."""
    return (program("bash"), "--norc", "--noprofile", "-c", _LOOP)


def script(command: str, *, cwd: str, env: Mapping[str, str], become: Sequence[str] = ()) -> str:
    """Return the content of ``N.sh``: run ``command`` with bash in ``cwd`` with exactly ``env``.

    ``become``: a command in front of it that changes the user.
    """
    plain, odd = _exports(env)
    argv = [*become, *([program("env"), *odd] if odd else []), program("bash"), "-c", command, "bash"]
    return _job(plain, cwd, shlex.join(argv))


def inner_script(command: str, *, env: Mapping[str, str]) -> str:
    """Return the content of ``N.sh`` for one simple command of ours: without a shell of its own, which takes milliseconds."""
    return _job(_exports(env)[0], "/", f"{{ {command}; }}")


def _exports(env: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the variables as lines of shell, and those with names that no shell can export."""
    plain = [n for n in env if _NAME.fullmatch(n) and n not in _FIXED]
    odd = [f"{name}={value}" for name, value in env.items() if name not in plain]
    return [f"export {name}={shlex.quote(env[name])}" for name in plain], odd


def _job(exports: list[str], cwd: str, command: str) -> str:
    start = [f"cd -- {shlex.quote(cwd)} || {{ echo 126 >&3; exit; }}", "unset OLDPWD PWD SHLVL"]
    # The shell's own word about a killed command is not the command's output.
    quiet = "exec 4>&2 2>/dev/null"
    return "\n".join([*exports, *start, quiet, f"{command} 2>&4 3>&- 4>&-", "echo $? >&3", ""])
