"""One sandbox in a process of its own: ``python -m hostile.one_trial`` reads what to do as JSON, and prints what came of it.

So that it can be run as another user than the tests are.
"""

import asyncio
import json
import os
import stat
import sys
from pathlib import Path

os.environ["HARBOR_TELEMETRY"] = "0"


def environment(folder: Path, options: dict):
    """Harbor's environment for a trial in ``folder``, with the options of the sandbox."""
    from harbor.models.task.config import EnvironmentConfig, NetworkPolicy
    from harbor.models.trial.paths import TrialPaths

    from parallelhassnes.steps.sandbox.environment import SandboxEnvironment

    context = folder / "task/environment"
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text(options.pop("dockerfile", "FROM debian\nWORKDIR /app\n"))
    (context / "data.txt").write_text("data\n")
    paths = TrialPaths(folder / "trials/one")
    paths.mkdir()
    if policy := options.pop("network_policy", None):
        options["network_policy"] = NetworkPolicy(network_mode=policy)
    return SandboxEnvironment(
        environment_dir=context,
        environment_name="task",
        session_id="one__env",
        trial_paths=paths,
        task_env_config=EnvironmentConfig(),
        mounts=[
            {"type": "bind", "source": str(source), "target": f"/logs/{source.name}"}
            for source in (paths.agent_dir, paths.verifier_dir, paths.artifacts_dir)
        ],
        **options,
    )


async def verify(made, tests: str, folder: Path, wait: float) -> dict:
    """What Harbor's verifier does: bring the tests, run them as it does, read the reward."""
    (folder / "task/tests").mkdir()
    (folder / "task/tests/test.sh").write_text(tests)
    await made.upload_dir(folder / "task/tests", "/tests")
    await made.exec("chmod +x /tests/test.sh", user="root")
    await made.exec(
        "(/tests/test.sh) > /logs/verifier/test-stdout.txt 2>&1",
        env={"THE_VERIFIERS_SECRET": "THE_VERIFIERS_SECRET"},
        timeout_sec=60,
    )
    await asyncio.sleep(wait)  # what was left running has its chance
    place = made.trial_paths.verifier_dir
    seen = await made.exec("cat /tmp/seen")
    return {
        "reward": (place / "reward.txt").read_text(),
        "stdout": (place / "test-stdout.txt").read_text(),
        "verifier": sorted(path.name for path in place.iterdir()),
        "seen": seen.stdout or "",
    }


async def run(folder: Path, options: dict, commands: list[str]) -> dict:
    tests, wait, toml = (options.pop(n, d) for n, d in (("tests", None), ("wait", 0), ("toml", "")))
    made = environment(folder, options)
    (folder / "task/task.toml").write_text(toml)
    trial_dir = made.trial_paths.trial_dir
    said, more = [], {}
    try:
        await made.start(force_build=False)
        for command in commands:
            done = await made.exec(command, timeout_sec=60)
            said.append({"code": done.return_code, "out": done.stdout, "err": done.stderr})
        if tests is not None:
            more = await verify(made, tests, folder, wait)
    finally:
        await made.stop(delete=True)
    left = {
        str(path.relative_to(trial_dir)): [stat.filemode(path.lstat().st_mode), path.lstat().st_uid]
        for path in sorted(trial_dir.rglob("*"))
    }
    record = json.loads((trial_dir / "sandbox.json").read_text())
    return {"said": said, "left": left, "uid": os.geteuid(), "record": record, **more}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    os.environ["TMPDIR"] = asked["tmp"]
    print(json.dumps(asyncio.run(run(Path(asked["folder"]), asked["options"], asked["commands"]))))
