"""What is between a trial's agent, its verifier and this host, and signs that something else wrote the reward.

The sandbox does most by itself (``sandbox/verification.py``, ``sandbox/network.py``). In every other environment agent and
verifier share one place, as Harbor has it, unless the task gives the verifier an environment of its own; ``/logs/verifier`` is
then at least empty when verification starts, so that no reward which an agent has left is taken for the verifier's.

Signs of tampering are asked of the container itself, by its own shell: before verification, which processes the agent has left. If any, after the
verifier's command has ended: whether a reward file still changes, whether one of these processes holds a file of ``/logs/verifier``
open, and whether the tests are still what was brought. What is seen goes to ``tampering.json`` of the attempt, by rename; none is
written where nothing was seen. A process that writes only while the verifier runs is not told from it.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.safe_read import mapping
from parallelhassnes.steps.trial import task
from parallelhassnes.store import atomic

if TYPE_CHECKING:
    from harbor.environments.base import BaseEnvironment
    from harbor.trial.hooks import TrialHookEvent
    from harbor.trial.trial import Trial


FILE = "tampering.json"
SUSPECTED = "tampering suspected"
_TEST_OUTPUT = "/logs/verifier/test-stdout.txt"
"""Where Harbor sends what the tests print: the command that names it is the verifier's last."""
_TESTS = "/tests"
_CALL_SEC = 30
_LEFT = 'echo "own $$"; for p in /proc/[0-9]*; do read -r line <$p/stat && echo "$line"; done 2>/dev/null; true'
_LOOK = r"""look() { for f in reward.txt reward.json; do
  [ -e /logs/verifier/$f ] && echo "$1 $f $(stat -c '%i %z' /logs/verifier/$f) $(cksum </logs/verifier/$f)"
done; }
look first; sleep 0.3; look second
for p in /proc/[0-9]*; do
  ls -l $p/fd 2>/dev/null | grep -q ' /logs/verifier/' && read -r line <$p/stat && echo "holds $line"
done
cd /tests 2>/dev/null && find . -type f -exec sha256sum {} + | sed 's/^/test /'
true"""


class Witness:
    """Looks at one environment before and after its verifier has run."""

    def __init__(self, environment: "BaseEnvironment", attempt_dir: Path) -> None:
        self._exec, self._upload = environment.exec, environment.upload_dir
        self._path = attempt_dir / FILE
        self._left: set[tuple[str, str]] = set()
        self._tests: dict[str, str] = {}
        self._seen: list[str] = []
        setattr(environment, "exec", self.exec)  # noqa: B010 - methods of this one object
        setattr(environment, "upload_dir", self.upload_dir)  # noqa: B010

    async def begin(self) -> None:
        """Verification is about to start: note what is alive."""
        self._tests.clear()
        own, *lines = (await self._ask(_LEFT)).splitlines() or [""]
        shell = own.removeprefix("own ")
        self._left = {found for line in lines if (found := _process(line))[0] not in ("1", shell)}

    async def upload_dir(self, source_dir: Path | str, target_dir: str) -> None:
        """As the environment's own; remembers the tests."""
        await self._upload(source_dir, target_dir)
        if target_dir.rstrip("/") == _TESTS:
            self._tests |= _hashes(Path(source_dir))

    async def exec(self, command: str, *args: Any, **kwargs: Any) -> Any:
        """As the environment's own; looks around after the verifier's last."""
        done = await self._exec(command, *args, **kwargs)
        if _TEST_OUTPUT in command and self._left:
            self._judge((await self._ask(_LOOK)).splitlines())
        return done

    async def _ask(self, script: str) -> str:
        with contextlib.suppress(RuntimeError, OSError):  # it is gone, and its trial ends by that
            done = await self._exec(script, user="root", timeout_sec=_CALL_SEC)
            return done.stdout or ""
        return ""

    def _judge(self, lines: list[str]) -> None:
        looks: dict[str, set[str]] = {"first": set(), "second": set()}
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind in looks:
                looks[kind].add(rest)
            elif kind == "holds" and (process := _process(rest)) in self._left:
                self._seen.append(f"process {process[0]}, which the agent left, has a file of /logs/verifier open")
            elif kind == "test":
                sha, _, name = rest.partition("  ./")
                if self._tests.get(name, sha) != sha:
                    self._seen.append(f"/tests/{name} is not what was brought")
        self._seen += [
            f"{line.split(' ')[0]} was written after the verifier had ended"
            for line in sorted(looks["second"] - looks["first"])
        ]
        if self._seen:
            with contextlib.suppress(OSError):
                atomic.write_json(self._path, {"seen": self._seen[:100]}, durable=False)


def read(attempt_dir: Path) -> str | None:
    """Tell what is suspected, in a line; None where nothing was seen."""
    found: Mapping[str, Any] = safe_read.read_object(attempt_dir / FILE, 65_536) or {}
    seen = found.get("seen")
    lines = [line for line in seen if isinstance(line, str)] if isinstance(seen, list) else []
    if not lines:
        return None
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{SUSPECTED}: {safe_read.text(lines[0], 300)}{more}"


def _process(stat: str) -> tuple[str, str]:
    """Number and start of a process, from its line in ``/proc``; a name in it may hold anything."""
    before, _, after = stat.rpartition(")")
    fields = after.split()
    return before.split(" ")[0], fields[19] if len(fields) > 19 else ""


def _hashes(folder: Path) -> dict[str, str]:
    """Name below the folder → SHA-256, of the task's own files."""
    found: dict[str, str] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    sha = hashlib.file_digest(file, "sha256").hexdigest()
                found[path.relative_to(folder).as_posix()] = sha
    return found


SEPARATE = "separate environment"
SHARED = "verifier shared with agent"


def arrange(trial: "Trial", attempt_dir: Path) -> None:
    """Before a trial runs. Raises SandboxBuildFailedError where its agent needs a network and will have none."""
    from harbor.environments.base import SandboxBuildFailedError

    from parallelhassnes.sandbox.environment import SandboxEnvironment
    from parallelhassnes.sandbox.network import local_ports

    environment = trial.agent_environment
    if not isinstance(environment, SandboxEnvironment):
        _watch_verification(trial, attempt_dir)
        return
    if trial.config.verifier.import_path:  # whatever it does, it may not begin by bringing tests
        environment.share_verification()
    if _runs_inside(trial.agent):
        agent = trial.config.agent
        if why := environment.no_network_for(agent.name or agent.import_path or "?"):
            raise SandboxBuildFailedError(why)
        environment.host_ports += local_ports(_values([agent.env, agent.kwargs]))


def kept_apart(config: dict[str, Any], sandbox: Mapping[str, Any] | None, suspected: str | None) -> str:
    """Tell how the verifier was kept from the agent, for the report, with what is ``suspected``."""
    if sandbox is not None and isinstance(said := sandbox.get("verification"), str):
        return said
    verifier = mapping(task.task_toml(config).get("verifier"))
    apart = verifier.get("environment_mode") == "separate" or verifier.get("environment")
    said = SEPARATE if apart else SHARED
    return f"{said}; {suspected}" if suspected else said


def _runs_inside(agent: object) -> bool:
    """Tell whether an agent is a program of the environment; by name, because importing Harbor's class takes as long as a trial."""
    return any(base.__name__ == "BaseInstalledAgent" for base in type(agent).__mro__)


def _values(given: object) -> Iterator[object]:
    if isinstance(given, list | tuple):
        for value in given:
            yield from _values(value)
    elif isinstance(given, dict):
        yield from _values(list(mapping(given).values()))
    else:
        yield given


def _watch_verification(trial: "Trial", attempt_dir: Path) -> None:
    from harbor.models.task.config import TaskOS
    from harbor.models.trial.paths import EnvironmentPaths
    from harbor.trial.hooks import TrialEvent

    environment = trial.agent_environment
    # Of an environment whose code is not Harbor's nobody knows what it makes of files and whose processes it shows.
    is_known = trial.config.environment.import_path is None and environment.os is TaskOS.LINUX
    witness = Witness(environment, attempt_dir) if is_known else None

    async def begin(_event: "TrialHookEvent") -> None:
        # Not seen is not there: a container that is gone has no verification either.
        with contextlib.suppress(RuntimeError):
            folder = EnvironmentPaths.for_os(environment.os).verifier_dir
            await environment.empty_dirs([folder])
        if witness is not None:
            await witness.begin()

    trial.add_hook(TrialEvent.VERIFICATION_START, begin)
