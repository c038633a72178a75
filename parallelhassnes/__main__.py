"""``python -m parallelhassnes``: the same program as ``parallelhassnes``.

Until its modules are loaded, Ctrl-C ends it as a signal does, instead of with the traceback of some import.
"""

import signal

_asked = signal.getsignal(signal.SIGINT)
if _asked is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from parallelhassnes.cli import app  # noqa: E402 - see above


def main() -> None:
    """Run the program, with Ctrl-C as it was."""
    signal.signal(signal.SIGINT, _asked)
    app.main()


if __name__ == "__main__":
    main()
