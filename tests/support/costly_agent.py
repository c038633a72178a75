"""An agent that says what it has cost, and solves its task or not, as its arguments have it."""

from harbor.agents.base import BaseAgent


class CostlyAgent(BaseAgent):
    def __init__(self, *args, cost_usd=1.0, tokens=100, solves=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.cost_usd, self.tokens, self.solves = cost_usd, tokens, solves

    @staticmethod
    def name():
        return "costly"

    def version(self):
        return "1"

    async def setup(self, environment):
        return

    async def run(self, instruction, environment, context):
        context.cost_usd = self.cost_usd
        context.n_input_tokens, context.n_output_tokens = self.tokens - 1, 1
        if self.solves:
            await environment.exec("echo hi > /app/out")
