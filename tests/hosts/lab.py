"""A lab: a folder with a store, hosts that see it at one path, a witness; all gone at the end, whatever a test did."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import stores
from harness import make_task

from parallelhassnes.schedule.context import Context
from tests.hosts import file_systems
from tests.hosts.host import Host
from tests.hosts.witness import Witness

CONFIG = "durable = false\nconcurrency = 8\n"
NEXT_VERSION = "2.0.1+next"


class Lab:
    """Hosts over one store. Use it as a context manager."""

    def __init__(self, file_system: str = "same", toml: str = CONFIG) -> None:
        """Make the store.

        Args:
            file_system: what the hosts' roots lie on, by its name in ``file_systems``.
            toml: of the configuration, besides fast beats.
        """
        self.kind = file_systems.BY_NAME[file_system]
        self.folder = Path(tempfile.mkdtemp(prefix="lab-"))
        self.folder.chmod(0o755)
        self.disk = self.folder / "disk"
        """The store as this machine sees it."""
        self.root = self.folder / "srv"
        """The store as the hosts see it."""
        self.disk.mkdir()
        self.root.mkdir()
        self.witness = Witness(self.folder)
        self.hosts: dict[str, Host] = {}
        self.ctx: Context = stores.context(self.disk, toml)
        shutil.rmtree(self.disk / "runners")  # the machine has made the store, and is none of the hosts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        keep = os.environ.get("HOSTS_KEEP") if kind else None
        for host in self.hosts.values():
            host.close()
        if keep:
            subprocess.run(["cp", "-a", str(self.folder), keep], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def host(self, name: str, *, own_network: bool = True, file_system: str | None = None) -> Host:
        """Boot a host that sees the store, through the lab's file system or one of its own."""
        host = Host(name, self.folder / "hosts" / name, own_network=own_network)
        self.hosts[name] = host
        kind = self.kind if file_system is None else file_systems.BY_NAME[file_system]
        host.mount(kind, self.disk, self.root)
        return host

    def three(self) -> tuple[Host, Host, Host]:
        return self.host("h1"), self.host("h2"), self.host("h3")

    # --- faults, which the witness is told

    def power_cut(self, host: Host) -> None:
        host.power_cut()
        self.witness.befell("cut", host.name)

    def freeze(self, host: Host) -> None:
        host.freeze()
        self.witness.befell("frozen", host.name)

    def thaw(self, host: Host) -> None:
        self.witness.befell("thawed", host.name)
        host.thaw()

    # --- the program on hosts

    def join(self, *hosts: Host) -> None:
        """Have hosts find out what the root does for them all, as an operator would: the same command on each."""
        probing = [
            self.start(host, "doctor", "--hosts", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for host in hosts
        ]
        for host, process in zip(hosts, probing, strict=True):
            said, _ = process.communicate(timeout=90)
            assert process.returncode == 0, f"doctor --hosts on {host.name}: exit {process.returncode}\n{said}"

    def start(self, host: Host, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        """Start ``parallelhassnes`` on a host and leave it running."""
        argv = [sys.executable, "-m", "parallelhassnes", *arguments, "--root", str(self.root)]
        return host.popen(*argv, **more)

    def runner(self, host: Host, *options: str) -> "subprocess.Popen[str]":
        """Start a runner that a test looks at from outside; what it says goes to a file beside the host."""
        with (host.place / "runner.log").open("a") as log:
            return self.start(host, "runner", *options, stdout=log, stderr=log)

    def said(self, host: Host) -> str:
        path = host.place / "runner.log"
        return path.read_text() if path.exists() else ""

    def submit(self, host: Host, steps: int, seconds: float, *, key: str | None = None, **more: Any) -> str:
        """Submit a batch of command steps on a host, a job each; the batch id."""
        name = {"queue_key": key} if key else {}
        jobs = [
            stores.job(f"j{n}", stores.command("s", *self.witness.command(seconds, key or "-"), **name, **more))
            for n in range(steps)
        ]
        table = self.folder / "table.json"
        table.write_bytes(stores.table(*jobs))
        return host.ours("submit", "--again", str(table), root=self.root).stdout.strip()

    def submit_trials(self, host: Host, count: int, seconds: float, model: str) -> str:
        """Submit a sweep of one task on a host: so many sandbox trials, whose agent runs so long inside, and a verdict on them; the batch id."""
        task = make_task(self.folder) if not (self.folder / "hello").exists() else self.folder / "hello"
        agent = {
            "import_path": "tests.hosts.witness_agent:WitnessAgent",
            "model_name": model,
            "n_trials": count,
            "kwargs": {"witness": str(self.witness.path), "seconds": seconds},
        }
        table = self.folder / "sweep.json"
        table.write_bytes(stores.table(sweep={"path": str(task), "agents": [agent], "environment": "sandbox"}))
        return host.ours("submit", "--again", str(table), root=self.root).stdout.strip()

    def next_version(self) -> Path:
        """Make a copy of the package that calls itself the next version; the folder to find it in."""
        folder = self.folder / "next"
        if not folder.exists():
            shutil.copytree(stores.CHECKOUT / "parallelhassnes", folder / "parallelhassnes")
            (folder / "parallelhassnes" / "version.py").write_text(f'__version__ = "{NEXT_VERSION}"\n')
        return folder
