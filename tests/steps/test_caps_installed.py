"""Caps of the agents that Harbor installs into a trial's environment: the real programs, in a container and in the sandbox."""

import json
import shutil
from pathlib import Path

import pytest
from harness import make_task
from models import provider, serving
from models import run as shell
from stores import context, program

from parallelhassnes.store.layout import Layout

pytestmark = [pytest.mark.harbor, pytest.mark.timeout(200)]
PROGRAMS = {
    "codex": "@openai/codex/node_modules/@openai/codex-linux-*/vendor/*/bin/codex",
    "claude": "@anthropic-ai/claude-code/bin/claude.exe",
}
"""Below npm's folder: the programs themselves, without npm's wrappers, which want Node."""
AGENTS = {"codex": ("codex", "openai/gpt-5.2"), "claude": ("claude-code", "anthropic/claude-sonnet-4-5")}
TURNS = 120
"""So many the scripted model would go on for, each a command of half a second."""


def binary(name):
    modules = Path(shutil.which(name)).resolve()
    while modules.name != "node_modules" or modules.parent.name not in ("lib", "share"):
        modules = modules.parent
    (found,) = modules.glob(PROGRAMS[name])
    return found


def surroundings(root, place, name):
    """The environment of a trial that has the program and the way to this host's loopback."""
    if place == "sandbox":  # the host's programs are there
        return {"type": "sandbox", "kwargs": {"network": "host"}}
    overlay = root / "network.yaml"
    overlay.write_text("services:\n  main:\n    network_mode: host\n")
    mount = {"type": "bind", "source": str(binary(name)), "target": f"/usr/local/bin/{name}", "read_only": True}
    return {"type": "docker", "mounts": [mount], "extra_docker_compose": [str(overlay)]}


def capped(root, place, name, **caps):
    """Run a trial under caps; its report, and how often the model was asked."""
    context(root)
    agent, model_name = AGENTS[name]
    again = shell("mkdir -p /app && echo more >> /app/out; sleep 0.5", tokens=[900, 100])
    with serving(root / "model", *[again] * TURNS) as model:
        keys = {key: value for key, value in provider(model.url).items() if key.startswith(("OPENAI", "ANTHROPIC"))}
        own = {
            "path": [str(make_task(root, toml="[environment]\nallow_internet = true\n"))],
            "agents": [{"name": agent, "model_name": model_name}],
            "environment": surroundings(root, place, name),
            "harbor": {"agent_timeout_multiplier": 4.0},
            **caps,
        }
        (root / "table.json").write_text(json.dumps({"spec_version": "2.0", "secrets": list(keys), "sweep": own}))
        words = ("run", "-c", str(root / "table.json"), "-q", "--fail-on", "never")
        program(root, *words, env=keys, timeout_sec=180)
        asked = [each for each in model.requests() if each["path"].endswith(("/responses", "/messages"))]
    batch = Layout(root).batch(Layout(root).batch_ids()[-1])
    (report,) = (json.loads(path.read_text()) for path in batch.glob("*/steps/*.1/attempts/*/final.json"))
    return report, len(asked)


@pytest.mark.parametrize(
    ("place", "name", "caps"),
    [
        pytest.param("docker", "codex", {"max_turns": 4}, marks=[pytest.mark.docker, pytest.mark.codex]),
        pytest.param("docker", "claude", {"max_cost_usd": 0.02}, marks=[pytest.mark.docker, pytest.mark.claude]),
        pytest.param("sandbox", "claude", {"max_tokens": 5000}, marks=[pytest.mark.namespaces, pytest.mark.claude]),
        pytest.param("sandbox", "codex", {"max_wall_sec": 8}, marks=[pytest.mark.namespaces, pytest.mark.codex]),
    ],
    ids=lambda each: each if isinstance(each, str) else next(iter(each)),
)
def test_a_program_in_its_environment_is_ended_at_its_cap_and_scored(tmp_path, place, name, caps):
    report, asked = capped(tmp_path, place, name, **caps)
    ((cap, most),) = caps.items()
    exception = report["trial"]["exception"]
    assert exception, report["summary"]
    assert (exception["type"], exception["class"]) == ("AgentCappedError", "capped"), exception
    assert exception["message"].startswith(f"{cap} {most:g} is reached"), exception
    assert (report["status"], report["trial"]["reward"]) == ("succeeded", 1.0), report
    assert asked < TURNS
