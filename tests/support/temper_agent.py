"""An agent with a temper: ``TEMPER=raise`` fails every other time, ``hang`` for good from the third time on."""

import asyncio
import os
from pathlib import Path
from typing import override

from harbor.agents.base import BaseAgent


class TemperAgent(BaseAgent):
    @staticmethod
    @override
    def name():
        return "temper"

    @override
    def version(self):
        return "1"

    @override
    async def setup(self, environment):
        pass

    @override
    async def run(self, instruction, environment, context):
        before = len(os.listdir(os.environ["TEMPER_DIR"]))
        os.close(os.open(f"{os.environ['TEMPER_DIR']}/{before}", os.O_CREAT))
        mode = os.environ["TEMPER"]
        if mode == "raise" and before % 2 == 0:
            raise ConnectionError("the provider hung up")
        if mode == "hang" and before >= 2:
            (Path(self.logs_dir) / "said.txt").write_text("thinking")
            await asyncio.sleep(600)
        context.n_input_tokens, context.n_output_tokens, context.cost_usd = 100, 10, 0.02
        await environment.exec("mkdir -p /app && echo hi > /app/out")
