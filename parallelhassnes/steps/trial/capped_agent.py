"""A trial's agent under caps: what it uses is watched while it runs, and at a cap its run is ended as by Harbor's own timeout.

The worker puts ``AgentUnderCaps.run`` in the place of the agent's ``run``, ``resume`` and ``load``. It runs the agent's own
in a task, and looks every quarter of a second. At a cap that task is cancelled, which is what Harbor's timeout does; Harbor gets
``AgentCappedError``, which it takes for an agent that ended badly, and so goes on to collect and to verify. What an agent that came to its end by itself
in the same turn has used beyond a cap is told in the same way, so that it does not depend on the moment of a look.

What an agent has used is taken from the first of these that tells it, the largest counts:

    Harbor's AgentContext          filled in as it goes by agents that work on the host (terminus-2, computer-1)
    trial/agent/trajectory.json    likewise; turns are its steps of the agent
    the session logs               of a program in the environment that keeps some (claude-code, codex): they are fetched through the
                                   environment, and turned into a trajectory by Harbor's own converter

Nothing of it is written. A worker that dies leaves nothing of it.
"""

import asyncio
import base64
import binascii
import contextlib
import importlib
import io
import math
import shlex
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes import file_stamp
from parallelhassnes.file_stamp import FileStamp
from parallelhassnes.steps import caps, safe_read, usage
from parallelhassnes.steps.caps import CapWatch, UsedSoFar
from parallelhassnes.steps.step_types import StepAttempt

if TYPE_CHECKING:
    from harbor.trial.trial import Trial

TRAJECTORY = "trajectory.json"
_SHARE = 20
"""A look that takes long is followed by another only after so many times its duration."""
_LONGEST_GAP_SEC = 15.0
"""But after so long in any case."""
_MOST_BYTES = 64 << 20
"""Of fetched session logs, and of what they unpack to."""
_CALL_SEC = 30
_FETCH = "cd {place} && find . -type f -name '*.jsonl' -print0 | tar --null -T - -czf - 2>/dev/null | head -c {most} | base64 -w0"
_END = r"""parent() { read -r line <$1/stat && line=${line##*) } && set -- $line && echo $2; } 2>/dev/null
doomed=" "
for p in /proc/[0-9]*; do n=${p#/proc/}
  [ "$(parent $p)" = 0 ] && [ $n != 1 ] && [ $n != $$ ] && doomed="$doomed$n "
done
again=1
while [ $again = 1 ]; do again=0
  for p in /proc/[0-9]*; do n=${p#/proc/}
    case "$doomed" in *" $n "*) continue;; esac
    up=$(parent $p); [ -n "$up" ] || continue
    case "$doomed" in *" $up "*) doomed="$doomed$n "; again=1;; esac
  done
done
kill -9 $doomed 2>/dev/null; true"""
"""Ends what ``exec`` has started and what still hangs on it, by a container's own shell: processes without a parent in it but the first and
this shell. A server that the agent has left behind belongs to the first process by then, and stays."""


def arrange(trial: "Trial", attempt: StepAttempt) -> None:
    """Put the trial's agents under the caps of the attempt; they are looked for even where there are none, as there may be some later."""
    watch = CapWatch(attempt)
    meter = _Meter(trial)
    if watch.caps and getattr(trial.agent, "remote_session_logs_dir", None):
        # Harbor's converter wants its prices, which takes seconds to load: while the environment starts, not at the first look.
        threading.Thread(target=importlib.import_module, args=("litellm",), daemon=True).start()
    for agent in filter(None, (trial.agent, getattr(trial, "user_agent", None))):
        for name in ("run", "resume", "load"):
            own = getattr(agent, name, None)
            if own is not None:
                setattr(agent, name, AgentUnderCaps(own, watch, meter, trial).run)


class AgentUnderCaps:
    """One way to run an agent, watched."""

    def __init__(self, own: Callable[..., Awaitable[None]], watch: CapWatch, meter: "_Meter", trial: "Trial") -> None:
        self._own, self._watch, self._meter, self._trial = own, watch, meter, trial

    async def run(self, *args: Any, **kwargs: Any) -> None:
        """As the agent's own.

        Raises:
            AgentCappedError: a cap is reached.
        """
        if self._watch.runs:  # an agent's ``resume`` may be its ``run``
            await self._own(*args, **kwargs)
            return
        if line := self._watch.reached(self._meter.used):
            raise _capped(line)
        self._meter.begin(kwargs.get("context"))
        self._watch.begin()
        task = asyncio.ensure_future(self._own(*args, **kwargs))
        try:
            line = await self._until_it_ends(task)
        finally:
            self._watch.pause()
            if not task.done():
                task.cancel()
                await asyncio.wait([task])
        failed = task.cancelled() or task.exception() is not None
        if line is not None:
            await self._end_programs()
        elif not failed and self._watch.caps:
            await self._meter.look(last=True)
            line = self._watch.reached(self._meter.used)
        self._meter.end()
        if line is not None:  # what its end by force has raised is not why it ended
            raise _capped(line)
        task.result()

    async def _until_it_ends(self, task: "asyncio.Future[None]") -> str | None:
        while True:
            done, _ = await asyncio.wait([task], timeout=caps.LOOK_SEC if self._watch.caps else caps.IDLE_SEC)
            if done:
                return None
            if self._watch.look():
                await self._meter.look(self._watch.left_sec(self._meter.used))
            if (line := self._watch.reached(self._meter.used)) and not task.done():  # a look takes time
                return line

    async def _end_programs(self) -> None:
        """End what the agent's programs are still doing in a container: Harbor's ``exec`` leaves them alone when it is cancelled."""
        from parallelhassnes.sandbox.environment import SandboxEnvironment

        environment = self._trial.agent_environment
        if self._trial.config.environment.import_path is None and not isinstance(environment, SandboxEnvironment):
            with contextlib.suppress(
                Exception
            ):  # each environment fails in its own way, and verification goes on all the same
                await environment.exec(_END, user="root", timeout_sec=_CALL_SEC)


def _capped(line: str) -> Exception:
    """Return the exception by which Harbor, also that before 0.26, goes on to verify."""
    from harbor.agents.installed.base import NonZeroAgentExitCodeError

    error: Exception = type("AgentCappedError", (NonZeroAgentExitCodeError,), {})(line)
    return error


class _Meter:
    """What a trial's agents have used, all runs together."""

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial
        self._context: Any = None
        self._before = self._now = caps.NOTHING
        self._stamp: FileStamp | None = None
        self._sources = (KeptCount(), KeptCount())
        """Of Harbor's trajectory, and of the session logs."""
        self._not_before = 0.0
        self._has_converted = False

    @property
    def used(self) -> UsedSoFar:
        """As far as the last look has seen."""
        return self._before.plus(self._now)

    def begin(self, context: Any) -> None:
        """Another run begins."""
        self._context, self._stamp = context, _stamp(self._file)
        self._sources = (KeptCount(), KeptCount())

    def end(self) -> None:
        """The run is over: what it has used stays counted, whatever the next one says."""
        self._before, self._now = self.used, caps.NOTHING

    async def look(self, left_sec: float = math.inf, *, last: bool = False) -> None:
        """Look now, at what costs little always, at the rest as seldom as it takes long.

        Args:
            left_sec: after which a cap may be reached: the next look is not later than half of it.
        """
        self._now = self._now.most(self._in_context())
        if time.monotonic() < self._not_before and not last:
            return
        began = time.monotonic()
        found = [self._in_trajectory(), None if last else await self._in_sessions()]
        for source, document in zip(self._sources, found, strict=True):
            if document:
                self._now = self._now.most(source.count(document))
        took = time.monotonic() - began
        if (
            any(found) and not self._has_converted
        ):  # the first time loads Harbor's converter and its prices, which takes seconds
            self._has_converted, took = True, 0.0
        self._not_before = time.monotonic() + min(_SHARE * took, _LONGEST_GAP_SEC, max(took, left_sec / 2))

    def _in_context(self) -> UsedSoFar:
        said = self._context
        episodes = safe_read.whole(getattr(self._trial.agent, "_n_episodes", None))
        tokens = [usage.tokens(getattr(said, name, None)) for name in ("n_input_tokens", "n_output_tokens")]
        known = [count for count in tokens if count is not None]
        return UsedSoFar(usage.usd(getattr(said, "cost_usd", None)), sum(known) if known else None, episodes or None)

    @property
    def _file(self) -> Path:
        return Path(self._trial.agent.logs_dir) / TRAJECTORY

    def _in_trajectory(self) -> Mapping[str, Any] | None:
        """Return the trajectory, where it is another than at the last look."""
        stamp = _stamp(self._file)
        if stamp is None or stamp == self._stamp:
            return None
        self._stamp = stamp
        return safe_read.read_object(self._file)

    async def _in_sessions(self) -> Mapping[str, Any] | None:
        agent = self._trial.agent
        place = getattr(agent, "remote_session_logs_dir", None)
        if place is None:
            return None
        with contextlib.suppress(Exception):  # half-written logs, and environments, fail in ways of their own
            command = _FETCH.format(place=shlex.quote(str(place)), most=_MOST_BYTES)
            said = await self._trial.agent_environment.exec(command, timeout_sec=_CALL_SEC)
            if said.stdout:
                return await asyncio.to_thread(_converted, agent, said.stdout.strip())
        return None


def _converted(agent: Any, text: str) -> Mapping[str, Any] | None:
    """Return the trajectory that Harbor's converter makes of an agent's session logs, in base64 of a tar; None where it makes none."""
    with tempfile.TemporaryDirectory(prefix="caps-") as folder:
        try:
            data = base64.b64decode(text)
        except binascii.Error:
            return None
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            archive.extractall(Path(folder, "sessions"), members=_bounded(archive), filter="data")
        found = agent.convert_trajectory(Path(folder))
        return None if found is None else safe_read.mapping(found.to_json_dict())


def _bounded(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    left = _MOST_BYTES
    for member in archive:
        left -= member.size
        if left < 0:
            return
        if member.isfile():
            yield member


class KeptCount:
    """What one run's trajectories tell, look after look: what the logs behind them have lost stays counted."""

    def __init__(self) -> None:
        self._lost, self._last = caps.NOTHING, caps.NOTHING
        self._first = self._newest = ""
        self._is_told = False

    def count(self, trajectory: Mapping[str, Any]) -> UsedSoFar:
        """Return what was used by all that this and earlier trajectories tell."""
        now = used_in(trajectory)
        times = sorted(_at(step) for step in _steps(trajectory) if _at(step))
        first = times[0] if times else ""
        if self._last.turns and (first > self._first or (now.turns or 0) < self._last.turns):
            known = used_in({"steps": [step for step in _steps(trajectory) if _at(step) <= self._newest]})
            self._lose(max(self._last.turns - (known.turns or 0), 0) / self._last.turns)
        self._first, self._newest, self._last = first, max([self._newest, *times]), now
        return self._lost.plus(now)

    def _lose(self, share: float) -> None:
        """Keep so much of what was counted at the last look."""
        cost, tokens, turns = self._last
        part = UsedSoFar(cost and cost * share, tokens and int(tokens * share), turns and round(turns * share))
        self._lost = self._lost.plus(part)
        if not self._is_told:
            line = "the agent's logs were shortened or removed; what was counted by them stays counted"
            print(line, file=sys.stderr, flush=True)
        self._is_told = True


def _at(step: Mapping[str, Any]) -> str:
    """Return the time of a step as the trajectory has it: within one they sort as texts."""
    return safe_read.text(step.get("timestamp"), 40) or ""


def _steps(trajectory: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [safe_read.mapping(step) for step in safe_read.sequence(trajectory.get("steps"))]


def used_in(trajectory: Mapping[str, Any]) -> UsedSoFar:
    """Tell what a trajectory (ATIF) says that was used."""
    turns = [s for s in _steps(trajectory) if s.get("source") == "agent" and not s.get("is_copied_context")]
    whole = safe_read.mapping(trajectory.get("final_metrics"))
    parts = [safe_read.mapping(step.get("metrics")) for step in turns]
    counts = [
        usage.tokens(whole.get(f"total_{name}_tokens"))
        or sum(filter(None, (usage.tokens(part.get(f"{name}_tokens")) for part in parts)))
        for name in ("prompt", "completion")
    ]
    cost = usage.usd(whole.get("total_cost_usd")) or sum(filter(None, (usage.usd(p.get("cost_usd")) for p in parts)))
    return UsedSoFar(cost or None, sum(counts) or None, len(turns) or None)


def _stamp(path: Path) -> FileStamp | None:
    try:
        return file_stamp.of(path.lstat())  # an agent's own file, which may be a link
    except OSError:
        return None
