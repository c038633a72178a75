"""Sandboxes in processes of their own: ``python -m hostile.one_trial`` reads what to do, a line of JSON each, and prints what came of it.

So that they can be another user's than the tests are. Harbor is imported once; each sandbox is a fork, as in the product.
"""

import asyncio
import json
import os
import stat
import sys
import traceback
from pathlib import Path

os.environ["HARBOR_TELEMETRY"] = "0"


def environment(folder: Path, options: dict):
    """Harbor's environment for a trial in ``folder``, with the options of the sandbox."""
    from harbor.models.task.config import EnvironmentConfig, NetworkPolicy
    from harbor.models.trial.paths import TrialPaths

    from parallelhassnes.sandbox.environment import SandboxEnvironment

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
    left = {}
    for place, folders, names in os.walk(trial_dir):
        for path in (Path(place, name) for name in (*folders, *names)):
            info = path.lstat()
            left[str(path.relative_to(trial_dir))] = [stat.filemode(info.st_mode), info.st_uid]
        if place.count("/d/") > 10:  # one that a test has made deep
            folders.clear()
    record = json.loads((trial_dir / "sandbox.json").read_text())
    return {"said": said, "left": left, "uid": os.geteuid(), "record": record, **more}


def serve() -> None:
    """Make a sandbox for each line of standard input, in a fork that prints one line: what came of it, or what it raised."""
    import parallelhassnes.sandbox.environment  # noqa: F401 - for all of them

    for line in sys.stdin:
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        asked = json.loads(line)
        os.environ.clear()
        os.environ.update(asked["env"])
        try:
            done = asyncio.run(run(Path(asked["folder"]), asked["options"], asked["commands"]))
        except BaseException:  # noqa: BLE001 - the test is told
            done = {"raised": traceback.format_exc()}
        print(json.dumps(done), flush=True)
        os._exit(0)


if __name__ == "__main__":
    serve()
