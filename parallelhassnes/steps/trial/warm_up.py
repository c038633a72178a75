"""Run the code of a trial before the fork, so that its workers share what the interpreter writes into code that it runs.

CPython counts in an instruction how often that was run, and replaces it by a quicker one the second time. Classes and names get a number
when they are first looked up. Each worker would copy the pages of all that. So two trials of nothing are run here, by Harbor and with the
worker's own code around it, in a folder that goes again. Their sandbox has everything but processes: what a shell would answer is answered
here. No thread and no process is started, and no event loop is left, so this process may fork as before.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, override

from harbor.environments.base import ExecResult
from harbor.environments.capabilities import EnvironmentResourceCapabilities

from parallelhassnes.plan import StepSpec
from parallelhassnes.sandbox.box import Box
from parallelhassnes.sandbox.build import Built, lay_out
from parallelhassnes.sandbox.environment import SandboxEnvironment
from parallelhassnes.sandbox.image import dockerfile
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.steps.trial import trial_paths, trial_worker

_TASK = {
    "task.toml": 'version = "1.0"\n[agent]\ntimeout_sec = 60\n[verifier]\ntimeout_sec = 60\n[environment]\ncpus = 1\n',
    "instruction.md": "Do nothing.\n",
    "environment/Dockerfile": "FROM debian\nWORKDIR /app\n",
    "solution/solve.sh": "#!/bin/sh\n",
    "tests/test.sh": "#!/bin/sh\n",
}
_TIMES = 2


@cache
def run_once() -> None:
    """Run the trials, unless this process has. What goes wrong goes wrong nowhere else: workers then copy more of what they share."""
    if _is_in_a_loop():  # a caller's, in which no other can run
        return
    with contextlib.suppress(Exception, SystemExit, asyncio.CancelledError):
        run()


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def run() -> None:
    """Run the trials. Whatever exception comes of that leaves nothing behind either."""
    kept = tempfile.tempdir
    try:
        with tempfile.TemporaryDirectory(prefix="parallelhassnes-warm-") as made:
            folder = Path(made).resolve()
            for name, text in _TASK.items():
                path = folder / "task" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            for number in range(_TIMES):
                _run_one(_attempt(folder, str(number)))
    finally:
        tempfile.tempdir = kept


def _run_one(attempt: StepAttempt) -> None:
    progress = trial_worker.PhaseNote(trial_paths.phase_file(attempt))
    progress.enter("create")
    with asyncio.Runner(loop_factory=_PlainLoop) as runner:
        runner.run(trial_worker.run(attempt, progress))


def _attempt(folder: Path, number: str) -> StepAttempt:
    job = folder / "runs/batch/job"
    directory = job / "steps/step/attempts" / number
    environment = {"import_path": f"{NoSandbox.__module__}:{NoSandbox.__name__}", "kwargs": {"verification": "shared"}}
    config = {"task": {"path": str(folder / "task")}, "agent": {"name": "oracle"}, "environment": environment}
    spec = {"task_name": "nothing", "config": config}
    step = StepSpec(step_id="step", kind="trial", queue_key="none", spec=spec)
    attempt = StepAttempt(directory, job, "batch", "job", number, 1, step)
    trial_paths.tmp_dir(attempt).mkdir(parents=True)
    return attempt


class _PlainLoop(asyncio.SelectorEventLoop):
    """Has no threads, and leaves the signals of this process alone."""

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(_AtOnce())

    @override
    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:  # type: ignore[override]
        return

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: the usual one waits in a thread."""


class _AtOnce(ThreadPoolExecutor):
    """Does at once, and in the caller's thread, what it is given."""

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it by the result
            done.set_exception(error)
        return done


class NoSandbox(SandboxEnvironment):
    """A sandbox without its processes: every command ends well, and has printed nothing."""

    @classmethod
    @override
    def resource_capabilities(cls) -> EnvironmentResourceCapabilities:
        return EnvironmentResourceCapabilities.model_validate({"cpu_limit": True, "memory_limit": True})

    @override
    async def start(self, force_build: bool) -> None:
        self._image = dockerfile.read(self.environment_dir)
        scratch, layout = self._made()
        shared = scratch / "shared"
        self._built = Built(
            Box(cast("Any", _Shell(shared)), shared, None),
            cast("Any", SimpleNamespace(name="none")),
            cast("Any", SimpleNamespace(owner=None, close=lambda: None)),
            cast("Any", SimpleNamespace(note=None, is_joined=False, stop=_nothing)),
            scratch,
            layout.path,
            frozenset(mount.target for mount in layout.mounts),
        )
        self._write_record()
        await self._upload_environment_dir_after_start()

    def _made(self) -> tuple[Path, Any]:
        self._scratch = scratch = self.trial_paths.trial_dir.parent / "sandbox"
        scratch.mkdir()
        return scratch, lay_out(self._task(), scratch, None)

    @override
    async def exec(self, command: str, *args: Any, **kwargs: Any) -> ExecResult:
        self.trial_paths.reward_text_path.write_text("1\n", encoding="utf-8")  # without it Harbor ends by an exception
        return await super().exec(command, *args, **kwargs)


async def _nothing() -> None:
    return


class _Shell:
    """Answers as a keeper does whose jobs end at once."""

    is_let_go = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def tell(self, name: str) -> None:
        for kind, text in (("out", b""), ("err", b""), ("rc", b"0\n")):
            pipe = os.open(self._folder / f"{name}.{kind}", os.O_WRONLY | os.O_NONBLOCK)
            os.write(pipe, text)
            os.close(pipe)

    def let_go(self) -> None:
        self.ended.set_result(0)

    def kill(self) -> None:
        return
