"""Agents that go on until they are ended: one that counts what it uses as it goes, one that never says anything."""

import asyncio

from harbor.agents.base import BaseAgent


class CountingAgent(BaseAgent):
    """Makes /app/out at once; each turn uses so many tokens and USD, and Harbor's context says so."""

    def __init__(self, *args, tokens=100, cost_usd=0.5, turns=1000, says=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.tokens, self.cost_usd, self.turns, self.says = tokens, cost_usd, turns, says
        self._n_episodes = 0

    @staticmethod
    def name():
        return "counting"

    def version(self):
        return "1"

    async def setup(self, environment):
        return

    async def run(self, instruction, environment, context):
        await environment.exec("touch /app/out")
        for turn in range(1, self.turns + 1):
            if self.says:
                self._n_episodes = turn
                context.n_input_tokens, context.n_output_tokens = turn * self.tokens, 0
                context.cost_usd = turn * self.cost_usd
            await asyncio.sleep(0.05)
