"""``python -m parallelhassnes``: the same program as ``parallelhassnes``.

What lies in the current folder (``calendar.py``) is not taken for a module of the library's, unless that is where this
package is, too. Until its modules are loaded, Ctrl-C ends it as a signal does, instead of with the traceback of some import.
"""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    _place = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is not ours yet
    if sys.path and sys.path[0] not in (_place, *sys.path[1:]):
        del sys.path[0]

import atexit
import gc
import signal

gc.set_threshold(200_000, 20, 20)  # what is made while modules are loaded stays; a look for garbage among it finds none

_asked = signal.getsignal(signal.SIGINT)
if _asked is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run the program, with Ctrl-C as it was."""
    if sys.argv[1:2] == ["tick"] and _tick_at_rest(sys.argv[2:]):
        return
    from parallelhassnes.cli import app

    signal.signal(signal.SIGINT, _asked)
    try:
        app.main()
    except SystemExit as end:
        _leave(end.code)
        raise


def _leave(code: object) -> None:
    """End at once, after what was to be done at the end: to take apart all that was loaded is an eighth of a short command.

    Returns where a thread goes on, which the interpreter is to wait for.
    """
    import threading

    if not isinstance(code, int) or threading.active_count() > 1:
        return
    atexit._run_exitfuncs()  # noqa: SLF001 - as the interpreter's own end does
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # the program has told that nothing can be written, or has closed it
            continue
    os._exit(code)


def _tick_at_rest(arguments: list[str]) -> bool:
    """Do a tick of a store in which nothing is to be done, as cron asks for it; False where this is not such a one."""
    quiet, root = False, ""
    while arguments:
        match arguments:
            case ["--quiet" | "-q", *arguments]:
                quiet = True
            case ["--root", root, *arguments] if root:
                pass
            case _:
                return False
    try:
        for stream in range(3):
            os.fstat(stream)
        place = root or os.getcwd()  # noqa: PTH109 - as above
        if os.getpid() == 1 or not os.path.exists(f"{place}/runs/_system/at_rest.json"):  # noqa: PTH110
            return False
        from pathlib import Path

        from parallelhassnes.schedule import at_rest
        from parallelhassnes.store.layout import find_root

        if not at_rest.tick(Path(root).absolute() if root else find_root(Path.cwd()), quiet=quiet):
            return False
        if not quiet:
            os.write(1, b"0 tables accepted, 0 attempts started, 0 running\n")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
