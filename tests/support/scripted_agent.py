"""A Harbor agent whose runs end as a file says: one word per run, the last one for all that follow.

``ok`` solves the task of ``harness.make_task``; ``zero`` does nothing; ``silent`` says that it used no token;
``rate_limit``, ``overloaded``, ``auth``, ``quota`` fail as agents' programs do, with a message; ``crash`` is any
exception; ``rate_limit:2`` asks to come back in two seconds; ``key`` is ``ok`` with the FAKE_KEY that stands in the script's
file ``good``, and ``auth`` with any other.
"""

import os
from pathlib import Path

from harbor.agents.base import BaseAgent
from harbor.agents.installed import base

ERRORS = {
    "rate_limit": (base.ApiRateLimitError, "429 Too Many Requests"),
    "overloaded": (base.ApiOverloadedError, "529 overloaded"),
    "auth": (base.AgentAuthenticationError, "401: invalid x-api-key"),
    "quota": (base.ApiUsageLimitError, "usage limit reached"),
    "timeout": (base.ApiResponseStalledError, "stalled"),
    "crash": (RuntimeError, "the agent broke"),
}


class ScriptedAgent(BaseAgent):
    """``import_path = "scripted_agent:ScriptedAgent"``, ``kwargs = {"script": FOLDER}``."""

    def __init__(self, *args, script, **kwargs):
        self._script = Path(script)
        super().__init__(*args, **kwargs)

    @staticmethod
    def name():
        return "scripted"

    def version(self):
        return "1"

    async def setup(self, environment):
        return

    async def run(self, instruction, environment, context):
        word, _, wait = self._next().partition(":")
        context.n_input_tokens = context.n_output_tokens = 0 if word == "silent" else 7
        if word == "key":
            good = (self._script / "good").read_text().split()
            word = "ok" if os.environ.get("FAKE_KEY") in good else "auth"
        if word == "ok":
            await environment.exec("touch /app/out")
        if word in ERRORS:
            kind, message = ERRORS[word]
            raise kind(f"{message}{f'; retry-after: {wait}' if wait else ''}")

    def _next(self):
        """The word of this run: runs are numbered by files that only one of them can make."""
        words = (self._script / "words").read_text().split()
        number = 0
        while True:
            try:
                (self._script / f"run{number}").touch(exist_ok=False)
            except FileExistsError:
                number += 1
                continue
            return words[min(number, len(words) - 1)]
