"""A Slurm cluster of three nodes on this machine: a munge of its own, a controller here, each node an emulated host.

Nodes share the machine's network, as the daemons talk to each other. Nothing of it is left when the lab ends.
"""

import contextlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from stores import wait_for

from tests.hosts.host import DYING, Host
from tests.hosts.lab import Lab

NODES = ("n1", "n2", "n3")
CPUS = 8
_FREEZER = Path("/sys/fs/cgroup/freezer")
_CONFIG = """ClusterName=lab
SlurmctldHost={machine}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/{tracking}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=0,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdTimeout=15
SlurmdParameters=config_overrides
KillWait=5
MinJobAge=300
InactiveLimit=0
Waittime=0
MpiDefault=none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
{nodes}
PartitionName=low Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 OverSubscribe=NO LLN=YES
PartitionName=high Nodes=n[1-3] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=off
"""
_CGROUPS = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nConstrainCores=no\nConstrainRAMSpace=no\n"


class Cluster:
    """Up from the beginning; a context manager inside that of its lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.folder = lab.folder / "slurm"
        for name in ("state", "munge", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        """What the tools of Slurm go by."""
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.nodes: dict[str, Host] = {}

    def __enter__(self) -> Self:
        try:
            self._configure()
            self._start_munge()
            self.start_controller("-c")
            for node in NODES:
                self.nodes[node] = self.lab.host(node, own_network=False)
                self.start_node(node)
            self.login = self.lab.host("login", own_network=False)
            wait_for(lambda: self._idle() == len(NODES), f"the nodes; logs are in {self.folder}", 40)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes.values():
            if node.is_up:
                node.close()
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait(20)
        for node in NODES:
            _remove_groups(_FREEZER / f"slurm_{node}")

    def _configure(self) -> None:
        ports = _free_ports(len(NODES) + 1)
        nodes = [
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} Sockets=1 CoresPerSocket={CPUS}"
            " ThreadsPerCore=1 RealMemory=4000 State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        ]
        text = _CONFIG.format(
            machine=platform.node(),
            port=ports[0],
            folder=self.folder,
            nodes="\n".join(nodes),
            tracking="cgroup" if _FREEZER.is_dir() else "linuxproc",
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text(_CGROUPS)

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        place.chmod(0o755)
        key = place / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        options = {"socket": "sock", "key-file": "key", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
        argv = ["munged", "--foreground", "--force", *(f"--{name}={place / file}" for name, file in options.items())]
        self._start("munged", argv)
        wait_for((place / "sock").exists, "munged", 10)

    def _start(self, name: str, argv: list[str]) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin"
        with (self.folder / f"{name}.out").open("a") as out:
            self.daemons[name] = subprocess.Popen(
                [*DYING, *argv],
                env={**os.environ, **self.environment, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def start_controller(self, *options: str) -> None:
        """Start the controller: with what it has written down, unless ``-c`` says to forget it."""
        self._start("slurmctld", ["slurmctld", "-D", *options])

    def kill_controller(self) -> None:
        """Its crash; what it was told in the last seconds it may have forgotten when it is back."""
        self.daemons["slurmctld"].send_signal(signal.SIGKILL)
        self.daemons["slurmctld"].wait(20)

    def resume_nodes(self) -> None:
        """Have nodes that were taken out of use be used again, as an administrator does.

        A controller that is back may believe that a job is pending which had begun within its last seconds. It starts it once more, and takes the node that
        refuses ("Duplicate jobid") out of use, until somebody resumes it.
        """
        if self.tool("sinfo", "--noheader", "-t", "drain", "-o", "%N", check=False):
            self.tool("scontrol", "update", f"nodename={','.join(NODES)}", "state=resume", check=False)

    def start_node(self, node: str) -> None:
        """Start a node's daemon on its host."""
        with (self.folder / f"{node}.out").open("a") as out:
            self.nodes[node].popen("/usr/sbin/slurmd", "-D", "-N", node, env=self.environment, stdout=out, stderr=out)

    def tool(self, *argv: str, check: bool = True, timeout_sec: float = 30) -> str:
        """Run a tool of Slurm; what it printed."""
        done = subprocess.run(
            argv, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=timeout_sec
        )
        assert not check or done.returncode == 0, f"{argv}: exit {done.returncode}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """Jobs that the controller holds for pending or running."""
        return self.tool("squeue", "--noheader", "--format=%i %T %N").splitlines()

    def _idle(self) -> int:
        said = self.tool("sinfo", "--noheader", "-p", "low", "-t", "idle", "-o", "%D", check=False)
        return int(said) if said.isdecimal() else 0


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]


def _remove_groups(top: Path) -> None:
    """Remove control groups that dead nodes have left; the kernel may still be busy with their last processes."""
    end = time.monotonic() + 3
    while top.is_dir() and time.monotonic() < end:
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if top.is_dir():
            time.sleep(0.05)


def is_installed() -> bool:
    path = f"{os.environ['PATH']}:/usr/sbin"
    return all(shutil.which(name, path=path) for name in ("slurmctld", "slurmd", "munged", "sbatch"))
