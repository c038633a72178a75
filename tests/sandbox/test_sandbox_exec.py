"""Commands in a sandbox: output, timeouts, cancellation, background processes, users, limits."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest

from parallelhassnes.sandbox import limits, streams

ROOT = os.geteuid() == 0


def processes(word: str) -> list[int]:
    """Live processes of the host whose command line holds a word."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if word.encode() in line and int(name) != os.getpid():
                found.append(int(name))
    return found


def own_seconds() -> str:
    """Seconds to sleep that no other command line of this machine names."""
    return f"1000.{uuid.uuid4().int}"


def groups() -> set[Path]:
    """The control groups of this process's sandboxes."""
    name = f"parallelhassnes-*-{os.getpid()}-*"
    return {path for parent in limits.parents().values() for path in parent.glob(name)}


def wait_until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_output_status_and_directory(in_sandbox):
    result = in_sandbox("pwd; echo err >&2; [[ $0 == bash ]] && exit 7")
    assert (result.stdout, result.stderr, result.return_code) == ("/app\n", "err\n", 7)


def test_a_signal_becomes_a_status_and_input_is_empty(in_sandbox):
    result = in_sandbox("cat; kill -9 $$")
    assert (result.stdout, result.stderr, result.return_code) == (None, None, 137)


def test_killing_its_own_group_ends_only_the_command(maker):
    async def go():
        async with maker.running() as environment:
            first = await environment.exec("kill -9 0")
            return first, await environment.exec("echo on")

    first, second = asyncio.run(go())
    assert first.return_code == 137
    assert second.stdout == "on\n"


def test_a_missing_directory_is_an_error_of_the_command(in_sandbox):
    result = in_sandbox("true", exec_options={"cwd": "/no/such place"})
    assert result.return_code == 126
    assert "/no/such place" in result.stderr


def test_values_arrive_as_they_are(in_sandbox):
    env = {"QUOTES": "a'b\"c $HOME `x`\n\\", "odd.name": "1", "UNICODE": "ä", "EMPTY": ""}
    command = "printf '%s|' \"$QUOTES\" \"$UNICODE\" \"${EMPTY-unset}\" 'it''s'; env | grep odd"
    result = in_sandbox(command, exec_options={"env": env})
    assert result.stdout == f"{env['QUOTES']}|ä||its|odd.name=1\n"


def test_many_commands_at_once(maker):
    async def go():
        async with maker.running() as environment:
            results = await asyncio.gather(*(environment.exec(f"echo {n}; sleep 0.1; exit {n}") for n in range(20)))
            return [(result.stdout, result.return_code) for result in results]

    assert asyncio.run(go()) == [(f"{n}\n", n) for n in range(20)]


def test_200_megabytes_are_read_and_bounded(in_sandbox):
    result = in_sandbox("echo first; head -c 200000000 /dev/zero | tr '\\0' x; echo; echo last; echo err >&2")
    assert result.stdout.startswith("first\nxxx")
    assert result.stdout.endswith("xxx\nlast\n")
    assert "bytes left out" in result.stdout
    assert len(result.stdout) < 3 * streams.KEPT
    assert result.stderr == "err\n"


def test_lines_are_streamed_while_the_command_runs(maker):
    heard = []

    async def go():
        async with maker.running() as environment:

            async def callback(text, stream):
                heard.append((text, stream))
                if text == "one\n":
                    await environment.exec("touch /tmp/go")

            with environment.scoped_output_callback(callback):
                script = "echo one; until [ -e /tmp/go ]; do sleep 0.01; done; printf 'two\\nrest'; echo e >&2"
                return await environment.exec(script, timeout_sec=60)

    result = asyncio.run(go())
    assert result.stdout == "one\ntwo\nrest"
    assert sorted(text for text, _ in heard) == ["e\n", "one\n", "rest", "two\n"]


def test_a_background_process_does_not_hold_the_command_and_lives_on(maker):
    async def go():
        async with maker.running() as environment:
            first = await environment.exec(
                "echo started; (while sleep 0.05; do echo tick; echo tick >>/tmp/ticks; done) &", timeout_sec=60
            )
            for _ in range(2):  # it goes on, also from one command to the next
                more = "rm -f /tmp/ticks; until [ -s /tmp/ticks ]; do sleep 0.01; done"
                assert (await environment.exec(more, timeout_sec=60)).return_code == 0
            return first

    assert asyncio.run(go()).stdout.startswith("started\n")


@pytest.mark.parametrize(
    "how",
    [
        "sleep {n}",
        "setsid sleep {n} & sleep {n}",
        "(setsid sh -c 'sleep {n}; :' &) ; sleep {n}",
        "trap '' TERM INT HUP; sleep {n}; sleep {n}",
        "sleep {n} | sleep {n}",
    ],
)
def test_a_timeout_kills_the_whole_tree(maker, how):
    number = own_seconds()

    async def go():
        async with maker.running() as environment:
            with pytest.raises(RuntimeError, match=r"^Command timed out after 1 seconds$"):
                await environment.exec(how.format(n=number), timeout_sec=1)
            assert not processes(number)
            return await environment.exec("echo alive")

    assert asyncio.run(go()).stdout == "alive\n"


def test_cancellation_kills_the_command_and_nothing_else(maker):
    number = own_seconds()

    async def go():
        async with maker.running() as environment:
            await environment.exec("sleep 777.7 >/dev/null 2>&1 &")
            task = asyncio.create_task(environment.exec(f"setsid sleep {number} & sleep {number}"))
            await asyncio.to_thread(wait_until, lambda: len(processes(number)) >= 2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not processes(number)
            return await environment.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c '[s]leep 777.7'")

    assert asyncio.run(go()).return_code == 0


def test_a_command_that_is_canceled_while_it_begins_does_not_run_on(maker):
    number = own_seconds()

    async def go():
        async with maker.running() as environment:
            for milliseconds in range(20):
                task = asyncio.create_task(environment.exec(f"sleep {number}"))
                await asyncio.sleep(milliseconds / 1000)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not processes(number)
            await environment.exec("true")  # by now, what was to come would be there
            assert not processes(number)

    asyncio.run(go())


def test_stop_leaves_nothing(maker, tmp_path):
    number = own_seconds()
    before = groups()

    async def go():
        async with maker.running() as environment:
            await environment.exec(f"(env -i setsid sleep {number} &) ; mkdir -m 0 /tmp/locked; ln -s / /tmp/host")
            await asyncio.to_thread(wait_until, lambda: processes(f"sleep\0{number}"))
        assert not processes(number)
        await environment.stop(delete=True)
        with pytest.raises(RuntimeError, match="not running"):
            await environment.exec("true")

    asyncio.run(go())
    assert os.listdir(tmp_path / "tmp") == []
    assert groups() <= before


def test_kill_9_of_the_harness_ends_everything(maker, engine):
    """A real process, a real kill -9; also with a child of the harness that holds all its descriptors."""
    number = own_seconds()
    (maker.context / "Dockerfile").write_text("FROM x\n")
    program = f"""
        import asyncio, os, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        import conftest
        async def go():
            maker = conftest.Maker.__new__(conftest.Maker)
            maker.folder, maker.engine = Path({str(maker.folder)!r}), {engine!r}
            maker.trial_dir, maker.context = maker.folder / "trials/one", maker.folder / "task/environment"
            async with maker.running() as environment:
                await environment.exec("(env -i setsid sleep {number} &)")
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(60)
                    os._exit(0)
                print("up", flush=True)
                await environment.exec("exec 8<>/proc/1/fd/0; sleep {number}")
        asyncio.run(go())
    """
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(maker.folder / "tmp")}
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        env=environ,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert child.stdout.readline() == b"up\n"
        wait_until(lambda: len(processes(f"sleep\0{number}")) == 2)
        child.kill()
        wait_until(lambda: not processes(f"sleep\0{number}"))
        wait_until(lambda: not processes(str(maker.folder / "tmp")))
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        for pid in processes(f"sleep {number}"):  # the forked child
            os.kill(pid, signal.SIGKILL)


def test_nothing_stays_around_a_keeper_but_what_an_engine_needs(maker):
    """A copy of this process, which waited there, would keep all that this process has changed since."""

    async def go():
        before = own()
        async with maker.running() as environment:
            await environment.exec("true")
            (keeper,) = environment._built.box.processes()
            return [name_of(pid) for pid in own() - before], keeper in own()

    def name_of(pid: int) -> str:
        return Path(os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])).name

    def own() -> set[int]:
        tasks = [task / "children" for task in Path("/proc/self/task").iterdir()]
        return {int(pid) for children in tasks for pid in children.read_text().split()}

    around, is_ours = asyncio.run(go())
    assert is_ours is (maker.engine == "unshare")
    assert around == ["bash" if is_ours else "bwrap"]


@pytest.mark.skipif(not ROOT, reason="needs root: other users exist only for root")
def test_users(maker):
    async def go():
        async with maker.running("FROM x\nUSER daemon\n") as environment:
            who = "echo $(id -u):$(id -g):$HOME"
            said = [
                (await environment.exec(who, user=user)).stdout
                for user in (None, "root", 1234, "nobody", "5:6", "no-such")
            ]
            with environment.with_default_user("bin"):
                said.append((await environment.exec(who)).stdout)
            refused = await environment.exec("echo x >/solution/x || kill -0 1", user="nobody")
            return said, refused

    said, refused = asyncio.run(go())
    assert [line.split(":")[0] for line in said] == ["1", "0", "1234", "65534", "5", "0", "2"]
    assert said[1] == "0:0:/root\n"
    assert said[4].startswith("5:6:")
    assert refused.return_code != 0


def test_memory_and_processes_are_limited(maker):
    if not {"memory", "pids", "cpu"} <= set(limits.parents()):
        pytest.skip("no control group may be written here")

    async def go():
        async with maker.running(config={"cpus": 1, "memory_mb": 64}) as environment:
            eat = await environment.exec("/usr/bin/python3 -c 'x = bytearray(400 * 2**20); print(len(x))'")
            alive = await environment.exec("echo alive")
            return eat, alive

    eat, alive = asyncio.run(go())
    assert eat.return_code == 137
    assert alive.stdout == "alive\n"
    assert '"cpus":"1, by control group"' in (maker.trial_dir / "sandbox.json").read_text()


def test_a_fork_bomb_stays_inside(maker, monkeypatch):
    if "pids" not in limits.parents():
        pytest.skip("no control group may be written here")
    monkeypatch.setattr(limits, "PROCESSES", 60)

    async def go():
        async with maker.running() as environment:
            with pytest.raises(RuntimeError, match="timed out"):
                await environment.exec("f() { f | f & }; f 2>/dev/null; sleep 60", timeout_sec=1)
            return await environment.exec("echo alive")

    assert asyncio.run(go()).stdout == "alive\n"


def test_groups_of_dead_makers_go_and_those_of_another_table_of_processes_stay(monkeypatch):
    """Containers of one kernel share the tree of groups, and a group is empty until its first process is in it."""
    parent = limits.parents().get("pids")
    if parent is None:
        pytest.skip("no control group may be written here")
    dead = subprocess.Popen(["true"])
    dead.wait()
    own = os.stat("/proc/self/ns/pid").st_ino
    gone, foreign = (parent / f"parallelhassnes-{number}-{dead.pid}-{uuid.uuid4().int}" for number in (own, own + 1))
    try:
        gone.mkdir()
        foreign.mkdir()
        limits.make(None, None).remove()
        assert not gone.exists()
        assert foreign.exists()
        monkeypatch.setattr(limits, "_FOREIGN_SEC", -1.0)
        limits.make(None, None).remove()
        assert not foreign.exists()
    finally:
        for folder in (gone, foreign):
            if folder.exists():
                folder.rmdir()


def test_limits_that_cannot_be_had_are_recorded(maker, monkeypatch):
    monkeypatch.setattr(limits, "parents", dict)

    async def go():
        async with maker.running(config={"cpus": 2, "memory_mb": 64, "storage_mb": 5}) as environment:
            return type(environment).resource_capabilities()

    assert asyncio.run(go()).memory_limit is False
    record = (maker.trial_dir / "sandbox.json").read_text()
    assert '"limits":{"cpus":"2, not enforced","memory_mb":"64, not enforced","storage_mb":"5, not enforced"}' in record
