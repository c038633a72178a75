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

import gc
import signal

gc.set_threshold(50_000, 20, 20)  # what is made while modules are loaded stays; a look for garbage among it finds none

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
