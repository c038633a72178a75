"""What an attempt came to that left nothing of its own: stopped from outside, or broken by a mistake of ours."""

from parallelhassnes.steps.step_types import Failure, Outcome, WorkerEnd


def stopped(end: WorkerEnd) -> Outcome | None:
    """Canceled or lost; None where the worker ended by itself or at its deadline."""
    match end.reason:
        case "canceled":
            return Outcome("canceled", "Canceled.", Failure("canceled", "canceled"))
        case "lost":
            return Outcome("lost", "Lost.", Failure("lost", "its supervisor died"))
        case _:
            return None


def broken(line: str, said: str = "") -> Outcome:
    """Failed in a way that only we can mend.

    Args:
        said: the summary, where it is not just the line.
    """
    return Outcome("failed", said or f"{line}.", Failure("internal", line))
