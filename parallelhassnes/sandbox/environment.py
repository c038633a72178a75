"""The environment ``sandbox``: a Harbor environment made of Linux namespaces, without Docker.

Harbor takes it by ``environment.import_path = "parallelhassnes.sandbox.environment:SandboxEnvironment"``. Keyword
arguments (``environment.kwargs``):

``engine``       ``auto`` (default), ``bubblewrap`` or ``unshare``
``unsupported``  ``error`` (default), or ``skip``: leave out what of a Dockerfile cannot be done, and record it
``hide``         further folders of the host that must not be seen
``show``         further folders of the host that can be read
``network``      ``private`` (default: one of its own, see ``network.py``), ``host`` or ``none``
``verification`` ``isolated`` (default), ``clean`` or ``shared``: see ``verification.py``
``host_ports``   ports of the host's loopback that the private network's loopback is to have

What it does not isolate is in ``NOT_ISOLATED``, in each trial's ``sandbox.json`` and in docs/environments.md.
"""

import asyncio
import os
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, override

from harbor.environments.base import BaseEnvironment, ExecResult, SandboxBuildFailedError
from harbor.environments.capabilities import EnvironmentCapabilities, EnvironmentResourceCapabilities
from harbor.environments.definition import require_agent_environment_definition
from pydantic import BaseModel, ConfigDict

from parallelhassnes import walk
from parallelhassnes.sandbox import limits, owners, transfer
from parallelhassnes.sandbox import verification as ways
from parallelhassnes.sandbox.box import Box, SandboxError
from parallelhassnes.sandbox.build import TESTS, VERIFIER_LOGS, Bind, Built, Task, build
from parallelhassnes.sandbox.engines import choice, kernel, seccomp
from parallelhassnes.sandbox.image import dockerfile
from parallelhassnes.sandbox.image.copying import CopyError
from parallelhassnes.sandbox.network import MODES, NEEDS_NETWORK, NO_PASTA, Mode, has_pasta
from parallelhassnes.sandbox.programs import READ_ONLY_BIN

NOT_ISOLATED = (
    "the kernel is the host's",
    "the host's programs, libraries and a part of /etc can be read",
    "the image that FROM names is not used",
    "disk space is not limited; storage_mb has no effect",
    "the clock and the kernel's random numbers are the host's",
)
NO_FILTER = "no system call is refused: there is no filter for this architecture"
HOST_NETWORK = "the network is the host's, its loopback and abstract sockets included"


class Skipped(BaseModel):
    """An instruction that was left out because ``unsupported: skip`` was given, or a ``USER`` whom the host does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    line: int
    """Line of the Dockerfile; 0 where it is not about a line."""
    instruction: str


class SandboxRecord(BaseModel):
    """The content of ``sandbox.json`` in the trial's folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    engine: str
    """``bubblewrap`` or ``unshare``."""
    user_namespace: bool
    """Whether root inside is another user outside; always so since ``host_uid`` is written."""
    host_uid: int | None = None
    """The host's user who is root inside: who started the harness or, if that was root, a number that belongs to nobody."""
    landlock: bool = False
    """Whether the agent's processes are kept from those beside them by the kernel's Landlock, too."""
    base_image: str
    """What the Dockerfile's FROM names; not used."""
    network: Literal["private", "host", "none"]
    """``private``: a network of its own, from which the host cannot be reached."""
    network_joined: bool = False
    """Whether a process inside asked for a socket, so that a private network was joined to the world."""
    network_note: str | None = None
    """Why there is none although the task allows one."""
    verification: Literal["isolated", "clean", "shared"] | None = None
    """How the verifier was kept from the agent; None for a sandbox in which no agent runs."""
    host_ports: tuple[int, ...] = ()
    """Ports of the host's loopback that can be reached all the same."""
    removed: dict[str, str] = {}
    """What was taken from the verifier's folder after it had ended, name → ``link``, ``pipe``, ``socket`` or ``device``."""
    skipped: tuple[Skipped, ...]
    not_isolated: tuple[str, ...]
    limits: dict[str, str]
    """``cpus``, ``memory_mb``, ``processes``, ``storage_mb`` → how much and by what, or that it is not enforced."""

    def write(self, path: Path) -> None:
        """Write as one line, whole or not at all."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(self.model_dump_json() + "\n", encoding="utf-8")
        temporary.replace(path)


_TEST_OUTPUT = f"{VERIFIER_LOGS}/test-stdout.txt"
"""Where Harbor sends what the tests print: the command that names it is the verifier's last."""
_EMPTY = f"find {VERIFIER_LOGS} -mindepth 1 -delete"


class SandboxEnvironment(BaseEnvironment):
    """One sandbox per trial, from ``start`` to ``stop``."""

    def __init__(
        self,
        *args: Any,
        engine: str = "auto",
        unsupported: Literal["error", "skip"] = "error",
        hide: Sequence[str] = (),
        show: Sequence[str] = (),
        network: Mode = "private",
        verification: ways.Way | None = None,
        host_ports: Sequence[int] = (),
        auto_mounting: bool = True,
        **kwargs: Any,
    ) -> None:
        """See the module for the arguments; the others are Harbor's. Raises ValueError for a bad one.

        Args:
            auto_mounting: whether Harbor is to rely on the mounts of ``/logs``, which it asks since 0.25; they are there anyway.
        """
        if engine not in {"auto", *choice.ENGINES}:
            raise ValueError(f"engine: {engine!r} is not one of auto, {', '.join(choice.ENGINES)}")
        if unsupported not in {"error", "skip"}:
            raise ValueError(f"unsupported: {unsupported!r} is not one of error, skip")
        if network not in MODES:
            raise ValueError(f"network: {network!r} is not one of {', '.join(MODES)}")
        if verification not in {None, *ways.WAYS}:
            raise ValueError(f"verification: {verification!r} is not one of {', '.join(ways.WAYS)}")
        self._asked_verification = verification
        self._verifier: Box | None = None
        self._engine = engine
        self._asked_network = network
        self.host_ports = [int(port) for port in host_ports]
        self._skip = unsupported == "skip"
        self._hide = tuple(hide)
        self._show = tuple(show)
        self._built: Built | None = None
        self._scratch: Path | None = None
        self._group = limits.ControlGroup()
        self._image = dockerfile.Image()
        self._told: set[str] = set()
        self._removed: dict[str, str] = {}
        super().__init__(*args, auto_mounting=auto_mounting, **kwargs)

    @staticmethod
    @override
    def type() -> str:
        return "sandbox"

    @property
    @override
    def capabilities(self) -> EnvironmentCapabilities:
        return EnvironmentCapabilities(disable_internet=True, mounted=True)

    @classmethod
    @override
    def resource_capabilities(cls) -> EnvironmentResourceCapabilities:
        can = limits.parents()
        # Parts of a CPU are known since Harbor 0.26; an earlier one ignores the word.
        said = {"cpu_limit": "cpu" in can, "memory_limit": "memory" in can, "fractional_cpus": True}
        return EnvironmentResourceCapabilities.model_validate(said)

    @classmethod
    @override
    def preflight(cls, kwargs: dict[str, Any] | None = None, **_more: Any) -> None:
        """Raise SystemExit where the sandbox cannot work; ``kwargs`` (since Harbor 0.26) are looked at by ``__init__``."""
        probe = choice.probe()
        if probe.engine is None:
            raise SystemExit("The sandbox environment does not work here: " + "; ".join(probe.lines))

    @override
    def _validate_definition(self) -> None:
        require_agent_environment_definition(self.environment_dir, docker_image=self.task_env_config.docker_image)

    @override
    async def start(self, force_build: bool) -> None:
        """Make the sandbox. Raises SandboxBuildFailedError for the task, SandboxError for the host."""
        self._image = dockerfile.read(self.environment_dir)
        problems = self._image.unsupported
        if problems and not self._skip:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise SandboxBuildFailedError(
                f"{problems[0].line_of(self.environment_dir.name)}{more}; {dockerfile.WAY_OUT}"
            )
        self._group = limits.make(self._effective_cpus, self._effective_memory_mb)
        self._scratch = _new_folder()
        try:
            self._built = await build(self._task(), self._scratch, engine=self._engine)
            self._group.add(self._built.box.processes())
        except CopyError as error:
            raise SandboxBuildFailedError(str(error)) from error
        self._write_record()
        for name, how in self._record(self._built).limits.items():
            if "not enforced" in how:
                self.logger.warning("sandbox: %s is %s", name, how)
        await self._upload_environment_dir_after_start()

    def _task(self) -> Task:
        binds: list[Bind] = []
        for mount in self._mounts:
            if mount["type"] == "bind":
                Path(mount["source"]).mkdir(parents=True, exist_ok=True)
                read_only = bool(mount.get("read_only"))
                source = Path(mount["source"]).resolve()
                of_trial = source.is_relative_to(self.trial_paths.trial_dir.resolve())
                binds.append(Bind(str(source), mount["target"], read_only, of_trial))
            else:
                self._say_once(f"a mount of type {mount['type']} is an empty folder: {mount['target']}")
                self._image.volumes.append(mount["target"])
        task_dir = self.environment_dir.resolve().parent
        trials_dir = self.trial_paths.trial_dir.resolve().parent
        return Task(
            context=self.environment_dir.resolve(),
            image=self._image,
            workdir=self._workdir,
            binds=binds,
            hide=(str(task_dir), str(trials_dir), *self._hide),
            show=self._show,
            network=self._network,
            host_ports=self.host_ports,
            covered=self.verification != "shared",
        )

    @property
    def verification(self) -> ways.Way:
        """How the verifier is kept from the agent: what was asked for, else what the task says, else ``isolated``."""
        if not self._is_agents:
            return "shared"  # nobody to keep apart
        return self._asked_verification or _of_task(self.environment_dir) or "isolated"

    def share_verification(self) -> None:
        """Have agent and verifier share one place, whatever was asked for; before ``start``."""
        self._asked_verification = "shared"

    @property
    def _is_agents(self) -> bool:
        """A verifier with an environment of its own has another name."""
        return self.session_id.endswith("__env")

    @property
    def _network(self) -> Mode:
        """What the sandbox gets: no more than the task allows, and no more than there is."""
        if self._network_disabled or (self._asked_network == "private" and not has_pasta()):
            return "none"
        return self._asked_network

    @property
    def _lacks_pasta(self) -> bool:
        """The task allows a network, and there is none for want of a program."""
        return self._network == "none" != self._asked_network and not self._network_disabled

    def no_network_for(self, agent: str) -> str | None:
        """Tell why an agent that runs inside and calls its model from there cannot reach it; None where it can reach it."""
        if self._lacks_pasta:
            return f"agent {agent}: {NEEDS_NETWORK}"
        return None

    @property
    def _workdir(self) -> str:
        return self.task_env_config.workdir or self._image.workdir

    @property
    def _record_name(self) -> str:
        """A verifier with an environment of its own shares the trial's folder with the agent's."""
        return "sandbox.json" if self._is_agents else "sandbox-verifier.json"

    def _write_record(self) -> None:
        if self._built is not None:
            self._record(self._built).write(self.trial_paths.trial_dir / self._record_name)

    def _record(self, built: Built) -> SandboxRecord:
        wanted = {"cpus": self._effective_cpus, "memory_mb": self._effective_memory_mb}
        said = {name: f"{value}, not enforced" for name, value in wanted.items() if value is not None}
        said |= self._group.enforced
        if self._effective_storage_mb is not None:
            said["storage_mb"] = f"{self._effective_storage_mb}, not enforced"
        network: tuple[str, ...] = (HOST_NETWORK,) if self._network == "host" else ()
        filtered = () if seccomp.machine_is_known() else (NO_FILTER,)
        return SandboxRecord(
            engine=built.engine.name,
            user_namespace=True,
            host_uid=os.geteuid() if built.spaces.owner is None else built.spaces.owner,
            landlock=kernel.can_keep_in(),
            base_image=self._image.base,
            network="none" if built.network.note else self._network,
            network_joined=built.network.is_joined and built.network.note is None,
            network_note=NO_PASTA if self._lacks_pasta else built.network.note,
            verification=self.verification if self._is_agents else None,
            host_ports=tuple(self.host_ports) if self._network == "private" else (),
            removed=self._removed,
            skipped=tuple(self._skipped()),
            not_isolated=(*NOT_ISOLATED, *filtered, *network),
            limits=said,
        )

    def _skipped(self) -> Iterator[Skipped]:
        for problem in self._image.unsupported:
            yield Skipped(line=problem.line, instruction=problem.instruction)
        if owners.find(self._image.user) is None:
            yield Skipped(line=self._image.user_line, instruction=f"USER {self._image.user}")

    def death(self) -> str | None:
        """Tell how the sandbox ended although nobody stopped it, in a line; None while it lives."""
        if self._built is None:
            return None
        return self._built.network.trouble or self._built.box.death()

    @override
    async def stop(self, delete: bool) -> None:
        """End everything in the sandbox; its files are kept only if ``delete`` is false."""
        if self._built is not None:
            await self._end_verification()
            await self._built.stop()
            if self._built.network.is_joined:
                self._write_record()
            await asyncio.to_thread(self._take_back)
            self._built = None
        self._group.remove()
        if self._scratch is not None and delete:
            await asyncio.to_thread(walk.remove_tree, self._scratch)
            self._scratch = None

    def _take_back(self) -> None:
        """Own what the trial has written, without the rights that it has given to its programs."""
        for folder in self._shared:
            if folder.resolve().is_relative_to(self.trial_paths.trial_dir.resolve()):
                owners.give(folder, os.geteuid(), os.getegid())

    @override
    async def exec(
        self,
        command: str,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        timeout_sec: int | None = None,
        user: str | int | None = None,
    ) -> ExecResult:
        """Run a command with bash. Its whole process tree is killed on timeout and on cancellation.

        Processes that it leaves in the background live on until ``stop``; what they print after the command has ended
        is dropped. Raises RuntimeError "Command timed out after … seconds".
        """
        built = self._running()
        account = await self._account(user)
        callback = self._output_callback()

        async def listener(text: str) -> None:
            if callback is not None:
                await callback(text, "stdout")

        try:
            done = await (self._verifier or built.box).run(
                command,
                cwd=cwd or self._workdir,
                env={**self._environment(account.home), **(self._merge_env(env) or {})},
                become=self._become(account),
                timeout_sec=timeout_sec or None,
                listener=listener if callback is not None else None,
            )
        except TimeoutError as error:
            raise RuntimeError(f"Command timed out after {timeout_sec} seconds") from error
        finally:
            if _TEST_OUTPUT in command:
                await self._end_verification()
        return ExecResult(stdout=done.stdout.text(), stderr=done.stderr.text(), return_code=done.code)

    def _become(self, account: owners.Account) -> tuple[str, ...]:
        if self._verifier is None or not account.become:
            return account.become
        program, *more = account.become
        return (program, *ways.BECOME, *more)

    async def _begin_verification(self) -> None:
        """Harbor brings the tests: make a place for the verifier that holds nothing of the agent's."""
        built = self._running()
        if self._verifier is not None:
            return
        if self.verification == "shared":
            await built.box.run(_EMPTY, cwd="/", env=self._ends()[1])
            return
        if self.verification == "clean":
            await asyncio.to_thread(ways.kill_agents, built)
        ways.clear(self.trial_paths.verifier_dir)
        tests = built.scratch / "tests"
        ways.clear(tests)
        await asyncio.to_thread(transfer.place, built.root / "tests", tests, "/", built.spaces.owner)
        self._verifier = await ways.start(built)

    async def _end_verification(self) -> None:
        """End the verifier, and leave nothing in its folder that leads Harbor elsewhere."""
        verifier, self._verifier = self._verifier, None
        if verifier is not None:
            await ways.stop(verifier)
        if self.trial_paths.verifier_dir.is_dir() and (gone := ways.sweep(self.trial_paths.verifier_dir)):
            self._say_once(f"removed from the verifier's folder, being no plain files: {', '.join([*gone][:20])}")
            # The reward files first, of any number of names.
            first = sorted(gone, key=lambda name: (not name.startswith("reward."), name))[:20]
            self._removed = {name[:200]: gone[name] for name in first}
            self._write_record()

    def _running(self) -> Built:
        if self._built is None:
            raise SandboxError("the sandbox is not running")
        return self._built

    def _environment(self, home: str) -> dict[str, str]:
        """Tell what a command sees before Harbor's own variables: nothing of the host's environment."""
        env = {"PATH": dockerfile.PATH, "HOME": home, **self._image.env}
        return env | {"PATH": ":".join([env["PATH"], *self._running().path])}

    async def _account(self, user: str | int | None) -> owners.Account:
        """Return the user that a command runs as; root where the sandbox has no other user."""
        wanted = self._resolve_user(user)
        account = owners.find(self._image.user if wanted is None else wanted)
        if account is None:
            self._say_once(f"there is no user {wanted or self._image.user!r} here; root is used instead")
            return owners.ROOT
        if account.uid and self._running().spaces.owner is None:
            self._say_once(f"user {account.name or account.uid}: only root exists in a user namespace")
            return owners.ROOT
        return account

    def _say_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.logger.warning("sandbox: %s", text)

    @override
    async def upload_file(self, source_path: Path | str, target_path: str) -> None:
        await transfer.upload_file(*self._ends(), Path(source_path), target_path)

    @override
    async def upload_dir(self, source_dir: Path | str, target_dir: str) -> None:
        if target_dir.rstrip("/") == TESTS and self._is_agents:
            await self._begin_verification()
            if self._verifier is not None:
                tests, owner = self._running().scratch / "tests", self._running().spaces.owner
                await asyncio.to_thread(transfer.place, Path(source_dir), tests, "/", owner)
                return
        await transfer.upload_dir(*self._ends(), Path(source_dir), target_dir)

    @override
    async def download_file(self, source_path: str, target_path: Path | str) -> None:
        if self._is_there(source_path, target_path):
            return
        await transfer.download_file(*self._ends(), source_path, Path(target_path), self._shared)

    @override
    async def download_dir(self, source_dir: str, target_dir: Path | str) -> None:
        if self._is_there(source_dir, target_dir):
            return
        await transfer.download_dir(*self._ends(), source_dir, Path(target_dir), self._shared)

    def _is_there(self, source: str, target: Path | str) -> bool:
        """Tell whether a path inside is that very path of this host by a mount, so that there is nothing to bring."""
        places = [(PurePosixPath(m["target"]), Path(m["source"])) for m in self._mounts if m["type"] == "bind"]
        within = [(inside, host) for inside, host in places if PurePosixPath(source).is_relative_to(inside)]
        if not within:
            return False
        inside, host = max(within, key=lambda pair: len(pair[0].parts))
        return (host / PurePosixPath(source).relative_to(inside)).resolve() == Path(target).resolve()

    @property
    def _shared(self) -> list[Path]:
        """The folders of this host that are mounted to be written to, as Harbor names them."""
        return [
            Path(mount["source"]) for mount in self._mounts if mount["type"] == "bind" and not mount.get("read_only")
        ]

    def _ends(self) -> tuple[Built, dict[str, str]]:
        built = self._running()
        if self._verifier is not None:
            built = built._replace(box=self._verifier)
        return built, {"PATH": READ_ONLY_BIN, "HOME": owners.ROOT.home}


def _of_task(environment_dir: Path) -> ways.Way | None:
    """Return ``verification`` under ``[metadata]`` of the task's ``task.toml``."""
    try:
        said = tomllib.loads((environment_dir.parent / "task.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    metadata = said.get("metadata")
    found = metadata.get("verification") if isinstance(metadata, dict) else None
    return next((way for way in ways.WAYS if way == found), None)


def _new_folder() -> Path:
    """Return an empty folder under TMPDIR as it is now: a forked worker has its own, and ``tempfile`` remembers the parent's."""
    return Path(tempfile.mkdtemp(prefix="sandbox-", dir=os.environ.get("TMPDIR") or None)).resolve()
