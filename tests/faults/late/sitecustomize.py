"""Has the supervisor wait before it reads what the worker left, so that a test can kill it just then."""

import os
import time
from pathlib import Path

if "HOLD" in os.environ:
    from parallelhassnes.execute import supervisor

    def _wait(*_: object) -> None:
        end = time.monotonic() + 60
        while not Path(os.environ["HOLD"]).exists() and time.monotonic() < end:
            time.sleep(0.01)

    supervisor.finish = _wait
