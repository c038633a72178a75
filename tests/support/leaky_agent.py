"""An agent that writes a secret into everything that it leaves: its trajectory, a picture of it, its log; then it fails."""

import base64
import json
import os
from pathlib import Path

from harbor.agents.base import BaseAgent

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


class LeakyAgent(BaseAgent):
    @staticmethod
    def name():
        return "leaky"

    def version(self):
        return os.environ["LEAKED_KEY"]

    async def setup(self, environment):
        return

    async def run(self, instruction, environment, context):
        secret, logs = os.environ["LEAKED_KEY"], Path(self.logs_dir)
        said = (
            f"the key is {secret}, as JSON {json.dumps(secret)}, as base64 {base64.b64encode(secret.encode()).decode()}"
        )
        (logs / "images").mkdir()
        (logs / "images" / "1.png").write_bytes(PIXEL + secret.encode())
        picture = {"type": "image", "source": {"media_type": "image/png", "path": "images/1.png"}}
        step = {
            "source": "agent",
            "message": said,
            "reasoning_content": said,
            "tool_calls": [{"function_name": said, "arguments": {"command": said, "more": said}}],
            "observation": {"results": [{"content": [{"type": "text", "text": said}, picture]}]},
        }
        (logs / "trajectory.json").write_text(json.dumps({"agent": {"name": said}, "steps": [step]}))
        (logs / "said.txt").write_text(said)
        await environment.exec(f"echo {said!r}")
        raise ConnectionError(said)
