"""A filesystem-first batch harness for evaluating AI agents with Harbor.

The names of ``parallelhassnes.library`` and ``parallelhassnes.frames`` can be taken from here; nothing is loaded before one of them is used.
"""

from parallelhassnes.version import __version__ as __version__

TYPE_CHECKING = False
"""As ``typing`` has it, which is not imported: under ``python -m`` a ``typing.py`` of the current folder would be taken."""

__all__ = [
    "Attempt",
    "Batch",
    "InvalidTable",
    "Store",
    "StoreBusy",
    "UnknownId",
    "UserError",
    "analyze",
    "attempts_df",
    "compare",
    "open_store",
    "results_df",
    "trials_df",
]

if TYPE_CHECKING:
    from typing import Any

    from parallelhassnes.frames import attempts_df, results_df, trials_df
    from parallelhassnes.library import (
        Attempt,
        Batch,
        InvalidTable,
        Store,
        StoreBusy,
        UnknownId,
        UserError,
        analyze,
        compare,
        open_store,
    )


def __getattr__(name: str) -> "Any":
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.endswith("_df"):
        from parallelhassnes import frames

        return getattr(frames, name)
    from parallelhassnes import library

    return getattr(library, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
