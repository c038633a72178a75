"""Sandboxes for tests: real ones, in each engine that works here."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from parallelhassnes.sandbox.engines import choice

os.environ["HARBOR_TELEMETRY"] = "0"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

IMPORT_PATH = "parallelhassnes.sandbox.environment:SandboxEnvironment"


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.bubblewrap), "unshare"])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of an engine; skipped where it does not work."""
    probe = choice.probe(request.param)
    if probe.engine is None:
        pytest.skip("; ".join(probe.lines))
    return request.param


class Maker:
    """Makes Harbor environments from a Dockerfile and files, without a trial around them."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder = folder
        self.engine = engine
        self.trial_dir = folder / "trials" / "one"
        self.context = folder / "task" / "environment"
        self.context.mkdir(parents=True)

    def environment(self, dockerfile: str | None = "FROM debian\nWORKDIR /app\n", **options):
        from harbor.models.task.config import EnvironmentConfig
        from harbor.models.trial.paths import TrialPaths

        from parallelhassnes.sandbox.environment import SandboxEnvironment

        if dockerfile is not None:
            (self.context / "Dockerfile").write_text(dockerfile)
        paths = TrialPaths(self.trial_dir)
        paths.mkdir()
        mounts = [
            {"type": "bind", "source": str(source), "target": f"/logs/{source.name}"}
            for source in (paths.agent_dir, paths.verifier_dir, paths.artifacts_dir)
        ]
        return SandboxEnvironment(
            environment_dir=self.context,
            environment_name="task",
            session_id="one__env",
            trial_paths=paths,
            task_env_config=EnvironmentConfig(**options.pop("config", {})),
            mounts=mounts,
            engine=self.engine,
            **options,
        )

    @contextlib.asynccontextmanager
    async def running(self, *args, **options) -> AsyncIterator:
        environment = self.environment(*args, **options)
        try:
            await environment.start(force_build=False)
            yield environment
        finally:
            await environment.stop(delete=True)


@pytest.fixture
def maker(tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch) -> Maker:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    return Maker(tmp_path, engine)


@pytest.fixture
def in_sandbox(maker: Maker) -> Callable:
    """Run one command in a fresh sandbox and return Harbor's result."""

    def run(command: str, *args, **options):
        exec_options = options.pop("exec_options", {})

        async def go():
            async with maker.running(*args, **options) as environment:
                return await environment.exec(command, **exec_options)

        return asyncio.run(go())

    return run
