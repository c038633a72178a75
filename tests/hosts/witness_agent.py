"""The agent of the lab's trials: it says to the witness when and where it ran, works for a while in its sandbox, and solves the task."""

import os
import platform
import time
from pathlib import Path
from typing import Any, override

from harbor.agents.base import BaseAgent
from harbor.environments.base import BaseEnvironment
from harbor.models.agent.context import AgentContext


class WitnessAgent(BaseAgent):
    def __init__(self, *args: Any, witness: str, seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.witness, self.seconds = Path(witness), seconds

    @staticmethod
    @override
    def name() -> str:
        return "witness"

    @override
    def version(self) -> str:
        return "1"

    @override
    async def setup(self, environment: BaseEnvironment) -> None:
        pass

    @override
    async def run(self, instruction: str, environment: BaseEnvironment, context: AgentContext) -> None:
        self._say("S")
        try:
            await environment.exec(f"sleep {self.seconds:g}; echo hi > /app/out")
        finally:
            self._say("E")

    def _say(self, what: str) -> None:
        given = os.environ
        step = "/".join(given[f"PARALLELHASSNES_{name}_ID"] for name in ("BATCH", "JOB", "STEP"))
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        line = f"{now:.2f} {what} {step} {given['PARALLELHASSNES_RUN_ID']} {platform.node()} {os.getpid()} {self.model_name}\n"
        with self.witness.open("a") as stream:
            stream.write(line)
