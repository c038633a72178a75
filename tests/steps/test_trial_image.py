"""One image per distinct task environment: built once, kept while it is needed, gone afterwards."""

import asyncio
import os
import subprocess
import time
from pathlib import Path

import pytest
from harness import make_attempt, make_task, run, trial_spec
from stores import attempt_dirs, context, idle, put, read, states, table, wait_for

from parallelhassnes.actions import cancel_retry
from parallelhassnes.refs import Found
from parallelhassnes.schedule.tick import tick
from parallelhassnes.steps.trial import image
from parallelhassnes.store import locks

DOCKER = {"type": "docker"}
BUILT_ONCE = "FROM debian:bookworm-slim\nRUN cat /proc/sys/kernel/random/uuid > /built\nWORKDIR /app\n"
TELL = "cp /built /logs/agent/built && touch /app/out"


def docker(*arguments):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=60)
    return done.stdout.split()


def images_of(runs: Path) -> list[str]:
    return docker("image", "ls", "--quiet", image.repository(runs))


def sweep_of(*tasks: Path, n_trials: int, **more) -> bytes:
    agents = [{"name": "oracle", "n_trials": n_trials}]
    sweep = {"path": [str(task) for task in tasks], "agents": agents, "environment": "docker"}
    return table(sweep=sweep, **more)


def test_the_hash_is_of_names_modes_links_and_content(tmp_path):
    def made(name: str, *, text="a", mode=0o644, file="f", link="f") -> str:
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / file).write_text(text)
        (folder / "sub" / file).chmod(mode)
        (folder / "link").symlink_to(link)
        return image.content_hash(folder)

    same = made("a")
    assert made("b") == same
    others = [made("c", text="b"), made("d", mode=0o755), made("e", file="g"), made("f", link="g")]
    assert len({same, *others}) == 5


@pytest.mark.parametrize(
    ("files", "toml"),
    [
        ({"environment/docker-compose.yaml": "services: {}\n"}, ""),
        ({}, '[environment]\ndocker_image = "debian:bookworm-slim"\n'),
    ],
)
def test_a_task_that_says_more_than_a_dockerfile_keeps_its_own_image(tmp_path, files, toml):
    task = make_task(tmp_path, toml=toml, **files)
    assert image.shareable({"task": {"path": str(task)}}) is None
    plain = make_task(tmp_path / "plain", **{"environment/Dockerfile": BUILT_ONCE})
    assert image.shareable({"task": {"path": str(plain)}}) == plain / "environment"


def test_who_comes_second_waits_for_the_builder_and_not_for_ever(tmp_path):
    path = tmp_path / "x.lock"
    first = locks.claim(path)

    async def wait_and_let_go():
        waiting = asyncio.create_task(image._claim(path, time.monotonic() + 30))
        await asyncio.sleep(0)
        assert not waiting.done()
        os.close(first)
        return await waiting

    second = asyncio.run(wait_and_let_go())
    assert second is not None
    assert asyncio.run(image._claim(path, time.monotonic())) is None
    os.close(second)


@pytest.mark.docker
def test_trials_of_two_tasks_with_one_environment_build_once_and_leave_nothing(tmp_path):
    files = {"environment/Dockerfile": BUILT_ONCE}
    one = make_task(tmp_path / "one", solution=TELL, **files)
    two = make_task(tmp_path / "two", solution=TELL, **files)
    root = tmp_path / "store"
    root.mkdir()
    ctx = context(root)
    batch = put(ctx, sweep_of(one, n_trials=2))
    other = put(ctx, sweep_of(two, n_trials=1))
    tick(ctx)
    wait_for(lambda: images_of(ctx.layout.runs), "the image", 60)
    wait_for(lambda: idle(ctx), "the trials", 120)
    trials = [p for b in (batch, other) for p in attempt_dirs(ctx, b) if (p / "trial").is_dir()]
    assert len(trials) == 3
    assert {read(p / "state.json")["status"] for p in trials} == {"succeeded"}
    told = {(p / "trial" / "agent" / "built").read_text() for p in trials}
    assert len(told) == 1, "each trial started from the same image"
    assert sum((p / image.LOG).exists() for p in trials) == 1
    wait_for(lambda: not images_of(ctx.layout.runs), "the image to go")
    wait_for(lambda: not list(image.records(ctx.layout.runs)), "its record to go")


@pytest.mark.docker
def test_an_image_stays_while_a_trial_may_still_start_and_goes_with_a_cancel(tmp_path):
    task = make_task(tmp_path, solution=TELL, **{"environment/Dockerfile": BUILT_ONCE})
    root = tmp_path / "store"
    root.mkdir()
    ctx = context(root, "concurrency = 1\n")
    batch = put(ctx, sweep_of(task, n_trials=3))
    tick(ctx)

    def one_is_through():
        return ["succeeded"] in states(ctx, batch).values()

    wait_for(one_is_through, "the first trial", 90)
    assert images_of(ctx.layout.runs)
    tick(ctx)
    assert images_of(ctx.layout.runs), "two more trials need it"
    cancel_retry.cancel(ctx, Found(batch_id=batch))
    wait_for(lambda: idle(ctx), "the cancel", 60)

    def is_gone():
        tick(ctx)  # while somebody else is at it, a tick leaves it to him
        return not images_of(ctx.layout.runs)

    wait_for(is_gone, "the image to go")


@pytest.mark.docker
def test_an_image_that_does_not_build_fails_in_harbors_words(tmp_path):
    broken = "FROM debian:bookworm-slim\nRUN echo so it goes >&2; exit 9\n"
    task = make_task(tmp_path, **{"environment/Dockerfile": broken})
    attempt = make_attempt(tmp_path, "trial", trial_spec(task, "oracle", DOCKER))
    _, outcome, _ = run(attempt, 120)
    assert outcome.status == "failed"
    assert "Docker compose command failed" in outcome.failure.evidence
    assert "so it goes" in (attempt.dir / image.LOG).read_text()
    assert images_of(tmp_path) == []
    image.remove_unneeded(tmp_path, lambda *_: True)
    assert list(image.records(tmp_path)) == []
