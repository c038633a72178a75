"""What a sandbox shows and hides, with hostile commands inside."""

import asyncio
import os
import subprocess
from pathlib import Path

import pytest


def test_writes_stay_private(in_sandbox, tmp_path):
    result = in_sandbox(
        "for d in / /app /tests /solution /logs/agent /logs/verifier /logs/artifacts /tmp /var/tmp /run /dev/shm $HOME;"
        " do echo x >$d/probe && test -s $d/probe || echo cannot $d; done"
    )
    assert (result.stdout, result.stderr, result.return_code) == (None, None, 0)
    assert (tmp_path / "trials/one/agent/probe").read_text() == "x\n"
    for place in ("/probe", "/app/probe", "/tmp/probe", "/root/probe", "/run/probe", "/dev/shm/probe"):
        assert not os.path.exists(place)


@pytest.mark.parametrize("place", ["/usr/bin", "/etc/ssl/certs", "/var/lib/dpkg", "/usr", "/sys/devices/system/cpu"])
def test_the_host_is_read_only(in_sandbox, place):
    result = in_sandbox(
        f"touch {place}/probe-of-a-test; echo x >>/etc/passwd; cat /proc/sys/kernel/printk >/proc/sys/kernel/printk"
    )
    assert result.return_code == 1
    made, added, set_to = result.stderr.splitlines()
    assert "Read-only file system" in made
    assert "Read-only file system" in set_to
    assert "Permission denied" in added or "Read-only file system" in added
    assert not Path(place, "probe-of-a-test").exists()


def test_read_only_cannot_be_undone(in_sandbox):
    result = in_sandbox(
        "mount -o remount,rw,bind /usr && echo A; umount /etc/shadow && echo B; unshare -Ur mount -o remount,rw,bind /usr"
        " && echo C; unshare -Ur umount -l /usr && echo D; mknod /tmp/disk b 254 0 && echo E; true"
    )
    assert result.stdout is None


def test_no_way_out_of_the_root(in_sandbox):
    """The classic escape from chroot(2) ends at the sandbox's own root."""
    escape = (
        "import os; os.mkdir('/tmp/c'); f = os.open('/', os.O_RDONLY); os.chroot('/tmp/c'); os.fchdir(f);"
        " [os.chdir('..') for _ in range(50)]; os.chroot('.'); print(sorted(os.listdir('/')))"
    )
    result = in_sandbox(f'/usr/bin/python3 -c "{escape}"')
    assert result.return_code == 0, result.stderr
    assert "solution" in result.stdout
    assert "srv" not in result.stdout


def test_home_folders_and_credentials_are_hidden(in_sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    result = in_sandbox(
        f"ls -A /root /home; cat /etc/shadow /etc/gshadow; ls {tmp_path} /mnt /srv /run/docker.sock; true"
    )
    assert result.stdout in (None, "/home:\n\n/root:\n")
    assert str(tmp_path) in result.stderr


def test_the_task_and_other_trials_are_hidden_in_a_folder_that_is_shown(maker, tmp_path):
    async def go():
        async with maker.running(show=[str(tmp_path)]) as environment:
            return await environment.exec(f"ls -R {tmp_path}/task {tmp_path}/trials; ls {tmp_path}")

    (tmp_path / "task/solution").mkdir()
    (tmp_path / "trials/neighbour").mkdir(parents=True)
    result = asyncio.run(go())
    assert "solution" not in result.stdout
    assert "neighbour" not in result.stdout
    assert result.stdout == "tmp\n"
    assert result.stderr.count("No such file or directory") == 2


def test_nothing_of_the_hosts_environment_leaks(in_sandbox, monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_THE_HOST", "s")
    result = in_sandbox(
        "env | cut -d= -f1 | sort | tr '\\n' ' '", "FROM x\nENV DOCKER=1\n", persistent_env={"TRIAL": "2"}
    )
    assert result.stdout.split() == ["DOCKER", "HOME", "PATH", "PWD", "SANDBOX_JOB", "SHLVL", "TRIAL", "_"]


def test_processes_of_the_host_cannot_be_seen_or_killed(in_sandbox):
    victim = subprocess.Popen(["sleep", "60"])
    try:
        result = in_sandbox(f"ls -d /proc/[0-9]* | wc -l; kill -9 {victim.pid}; kill -9 -1; echo unreachable")
        assert victim.poll() is None
        assert result.return_code == 137
    finally:
        victim.kill()
        victim.wait()


def test_killing_everything_inside_does_not_end_the_sandbox(maker):
    async def go():
        async with maker.running() as environment:
            await environment.exec("kill -9 -1")
            await environment.exec("kill -9 1; kill -TERM 1; kill -HUP 1")
            return await environment.exec("echo alive")

    assert asyncio.run(go()).stdout == "alive\n"


def test_orphans_are_reaped(maker):
    async def go():
        async with maker.running() as environment:
            await environment.exec("for i in 1 2 3 4 5; do (setsid sh -c 'sleep 0.01' &) ; done")
            script = (
                "for i in $(seq 500); do grep -l '^State:.Z' /proc/[0-9]*/status || exit 0; sleep 0.01; done; exit 1"
            )
            return await environment.exec(script)

    assert asyncio.run(go()).return_code == 0


def test_namespaces_are_its_own(in_sandbox):
    names = "pid ipc uts mnt"
    result = in_sandbox(f"for n in {names}; do readlink /proc/self/ns/$n; done; hostname")
    *inside, hostname = result.stdout.split()
    assert not set(inside) & {str(Path(f"/proc/self/ns/{name}").readlink()) for name in names.split()}
    assert hostname == "sandbox"


def test_without_network_there_is_only_a_working_loopback(maker):
    from harbor.models.task.config import NetworkMode, NetworkPolicy

    script = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 5);"
        " print([name for _, name in socket.if_nameindex() if name not in ('tunl0', 'sit0', 'ip6tnl0', 'gre0',"
        " 'gretap0', 'erspan0', 'ip_vti0', 'ip6_vti0', 'ip6gre0')])"
    )

    async def go():
        policy = NetworkPolicy(network_mode=NetworkMode.NO_NETWORK)
        async with maker.running(network_policy=policy) as environment:
            return await environment.exec(f'/usr/bin/python3 -c "{script}"')

    result = asyncio.run(go())
    assert result.stdout == "['lo']\n", result.stderr
    assert '"network":"none"' in (maker.trial_dir / "sandbox.json").read_text()


@pytest.mark.parametrize(
    "workdir",
    [
        "/root/project",
        "/workspace/a b",
        "/home/user/x",
        "/",
        "/opt/x/y",
        "/usr/src/app",
        "/etc/mine",
        "/lib/x",
        "/var/run/x",
        "/var/lib/x",
        "/new/place",
    ],
)
def test_any_workdir(in_sandbox, workdir):
    result = in_sandbox(
        "pwd -P; touch made && ls -A made; cat /etc/hostname >/dev/null; ls /usr/bin/env",
        f"FROM x\nWORKDIR {workdir}\n",
    )
    assert result.return_code == 0, result.stderr
    real = {"/lib/x": os.path.realpath("/lib") + "/x", "/var/run/x": "/run/x"}.get(workdir, workdir)
    assert result.stdout.splitlines() == [real, "made", "/usr/bin/env"]
    assert workdir == "/" or not os.path.exists(workdir)  # also where this user may not look


def test_what_arrives_on_the_host_follows_no_link_of_a_shared_folder(maker, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "dear").write_text("dear\n")
    shared = tmp_path / "trials/one/artifacts"

    async def go():
        async with maker.running() as env:
            planted = await env.exec(
                f"mkdir -p d/in && echo x >d/in/dear && echo y >f && cd /logs/artifacts && mkdir deep real"
                f" && ln -s {theirs} folder && ln -s {theirs}/dear file && ln -s {theirs} deep/in && ln -s {theirs} real/in"
            )
            assert planted.return_code == 0, planted.stderr
            for target in ("folder", "folder/new", "deep/in/new", "real"):
                with pytest.raises(RuntimeError, match="in the way"):
                    await env.download_dir("/app/d", shared / target)
            for target in ("folder/dear", "deep/in/dear"):
                with pytest.raises(RuntimeError, match="in the way"):
                    await env.download_file("/app/f", shared / target)
            await env.download_file("/app/f", shared / "file")
            await env.download_dir("/app/d", shared / "new")

    asyncio.run(go())
    assert [path.name for path in theirs.iterdir()] == ["dear"]
    assert (theirs / "dear").read_text() == "dear\n"
    assert (shared / "file").read_text() == "y\n"
    assert not (shared / "file").is_symlink()
    assert (shared / "new/in/dear").read_text() == "x\n"
