"""A simulated user of Harbor's speaks with an agent: a real trial in the sandbox, on a scripted model. ``make conversation`` runs it.

Harbor's bridge wants Node 20 and fetches it where the host has an older one, as Debian 12 has. So it is not among what every machine runs.
"""

import json

import pytest
from harness import make_task
from models import provider, say, serving
from models import run as shell
from stores import SUPPORT, context, program

from parallelhassnes.store.layout import Layout

pytestmark = [pytest.mark.harbor, pytest.mark.namespaces]


def asked(model):
    return [each["body"] for each in model.requests() if each["path"].endswith("/messages")]


NPM = """#!/bin/sh
# What is installed is not installed again, so that no registry is asked.
[ "$1 $2" = "install -g" ] && [ -d "$(/usr/bin/npm root -g)/${3%@*}" ] && exit 0
exec /usr/bin/npm "$@"
"""


@pytest.mark.claude
@pytest.mark.acpx
@pytest.mark.timeout(400)
def test_a_simulated_user_speaks_with_an_agent_over_several_turns(tmp_path):
    """The user is a model's, the real Claude Code; its words go over Harbor's own bridge."""
    context(tmp_path)
    made = make_task(tmp_path, toml="[environment]\nallow_internet = true\n")
    (made / "environment" / "npm").write_text(NPM)
    (made / "environment" / "npm").chmod(0o755)
    dockerfile = made / "environment" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "COPY npm /usr/local/bin/npm\n")
    (tmp_path / "who.md").write_text("You are Gertrude and in a hurry.\n")
    (tmp_path / "how.md").write_text("Speak with the agent by acpx prompt.\n")
    (tmp_path / "acpx.json").write_text('{"timeout": 60}')
    turns = [shell('acpx prompt "Make the file."'), shell('acpx prompt "The file /app/out."'), say("thank you")]
    with serving(tmp_path / "model", *turns) as model:
        keys = provider(model.url)
        user = {
            "name": "claude-code",
            "model_name": "anthropic/claude-sonnet-4-5",
            "user_persona_path": "who.md",
            "bridge": {"kind": "acp", "prompt_path": "how.md", "kwargs": {"acpx_config_path": "acpx.json"}},
        }
        own = {
            "path": [str(made)],
            "agents": [{"import_path": "conversing_agent:ConversingAgent"}],
            "environment": {"type": "sandbox", "kwargs": {"network": "host"}},
            "harbor": {"agent_timeout_multiplier": 4.0, "user_agent": user},
        }
        (tmp_path / "table.json").write_text(json.dumps({"spec_version": "2.0", "secrets": list(keys), "sweep": own}))
        line = ["run", "-c", str(tmp_path / "table.json"), "-q", "--fail-on", "never"]
        program(tmp_path, *line, env=SUPPORT | keys, timeout_sec=280)
        said = json.dumps(asked(model))
    (place,) = Layout(tmp_path).batch(Layout(tmp_path).batch_ids()[-1]).glob("*/steps/*.1/attempts/*/final.json")
    report = json.loads(place.read_text())
    assert (report["status"], report["trial"]["reward"]) == ("succeeded", 1.0), report
    trial_dir = place.parent / "trial"
    assert (trial_dir / "agent" / "heard.txt").read_text() == "Make the file.\nThe file /app/out.\n"
    for words in ("Gertrude", "Speak with the agent by acpx prompt.", "Make /app/out.", "Which file?", "Made it."):
        assert words in said, words
    (talk,) = trial_dir.rglob("bridge-trajectory.json")
    assert "Which file?" in talk.read_text()
