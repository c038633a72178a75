"""What a model's tokens cost, by litellm's price list: read as a file, since to import litellm takes seconds."""

import contextlib
import functools
import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_LIST = "model_prices_and_context_window_backup.json"


class Price(NamedTuple):
    """US dollars for one token."""

    input: float
    """Sent, and not from the cache; also what it costs to put it there, where that is more."""
    cache: float
    output: float

    def cost(self, sent: int, cached: int, answered: int) -> float:
        """Return the cost of so many tokens in US dollars.

        Args:
            sent: those from the cache included.
        """
        cached = min(cached, sent)
        return (sent - cached) * self.input + cached * self.cache + answered * self.output


def of(model: str) -> Price | None:
    """Return a model's price, by its name with or without its provider; None where the list does not have it."""
    said = next(
        (_prices()[name] for name in (model, model.partition("/")[2], model.rpartition("/")[2]) if name in _prices()),
        None,
    )
    if said is None:
        return None
    sent = _usd(said.get("input_cost_per_token")) or 0.0
    stored, cached, answered = (
        _usd(said.get(name))
        for name in ("cache_creation_input_token_cost", "cache_read_input_token_cost", "output_cost_per_token")
    )
    return Price(max(sent, stored or 0.0), sent if cached is None else cached, answered or 0.0)


def _usd(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < math.inf else None


@functools.cache
def _prices() -> Mapping[str, Mapping[str, Any]]:
    found = importlib.util.find_spec("litellm")
    for folder in (found.submodule_search_locations or ()) if found else ():
        with contextlib.suppress(OSError, ValueError):
            prices = json.loads(Path(folder, _LIST).read_bytes())
            return {name: each for name, each in prices.items() if "input_cost_per_token" in each}
    return {}
