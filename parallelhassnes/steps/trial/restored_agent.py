"""The agent of a regrade: puts back what another agent has left, and says that it was that agent's.

Harbor takes it by ``agent.import_path``; its arguments come from the table that ``regrade`` writes. It uses no model and costs nothing.
"""

from pathlib import Path
from typing import Any

from harbor.agents.base import BaseAgent
from harbor.environments.base import BaseEnvironment
from harbor.models.agent.context import AgentContext

from parallelhassnes.steps.trial import workspace

IMPORT_PATH = f"{__name__}:RestoredAgent"


class RestoredAgent(BaseAgent):
    """Puts a kept workspace back."""

    def __init__(
        self, *args: Any, attempt: str, seal_sha256: str, as_agent: str = "", as_version: str = "", **kwargs: Any
    ) -> None:
        """See ``BaseAgent`` for the rest.

        Args:
            attempt: folder of the sealed attempt whose workspace it is.
            seal_sha256: what its ledger says of its seal.
            as_agent: whose work it was.
            as_version: of that agent.
        """
        super().__init__(*args, **kwargs)
        self._attempt, self._seal = Path(attempt), seal_sha256
        self._as_agent, self._as_version = as_agent, as_version

    @staticmethod
    def name() -> str:
        return "restored"

    def version(self) -> str | None:
        return self._as_version or None

    def to_agent_info(self) -> Any:
        """As ``BaseAgent``: whose work is judged."""
        info = super().to_agent_info()
        return info.model_copy(
            update={"name": self._as_agent or info.name, "version": self._as_version or info.version}
        )

    async def setup(self, environment: BaseEnvironment) -> None:
        """Set nothing up."""

    async def run(self, instruction: str, environment: BaseEnvironment, context: AgentContext) -> None:  # noqa: ARG002 - Harbor's signature
        """Put the workspace back."""
        await workspace.put_back(environment, self._attempt, self._seal)
        context.n_input_tokens = context.n_cache_tokens = context.n_output_tokens = 0
        context.cost_usd = 0.0
