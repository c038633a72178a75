"""Steps and attempts as text: made and taken apart.

    key      <job_id>/<step_id>                             a step of a batch, in plans, ledgers and projections
    place    <job_id>/steps/<step_id>/attempts/<attempt>    an attempt's folder below its batch's
    path     runs/<batch_id>/<place>                        the same below the root, as views print it

What a user types is ``refs``' affair, and paths of the store are ``store.layout``'s.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

STEPS, ATTEMPTS = "steps", "attempts"


class StepKey(NamedTuple):
    """A step of a batch."""

    job_id: str
    step_id: str

    def __str__(self) -> str:
        return f"{self.job_id}/{self.step_id}"

    @property
    def place(self) -> str:
        """Where its folder is below the batch's."""
        return f"{self.job_id}/{STEPS}/{self.step_id}"

    def attempt(self, name: str) -> str:
        """Return the place of one of its attempts."""
        return f"{self.place}/{ATTEMPTS}/{name}"


class Place(NamedTuple):
    """An attempt of a batch."""

    job_id: str
    step_id: str
    attempt: str

    @property
    def key(self) -> StepKey:
        return StepKey(self.job_id, self.step_id)

    def __str__(self) -> str:
        return self.key.attempt(self.attempt)


def step_key(text: str) -> StepKey:
    """Take a step's key apart; of a job's id alone the step is empty."""
    job_id, _, step_id = text.partition("/")
    return StepKey(job_id, step_id)


def place(text: str) -> Place:
    """Take an attempt's place apart.

    Raises:
        ValueError: it is none.
    """
    parts = text.split("/")
    if len(parts) != 5 or (parts[1], parts[3]) != (STEPS, ATTEMPTS):
        raise ValueError(f"{text}: is no attempt of a batch")
    return Place(parts[0], parts[2], parts[4])


def named(path: str) -> str:
    """Return ``batch/job/step/attempt`` of an attempt's path below the root.

    Raises:
        ValueError: it is none.
    """
    _, batch_id, rest = path.split("/", 2)
    return "/".join((batch_id, *place(rest)))


def of_line(line: Mapping[str, Any]) -> Place:
    """Return which attempt a line of a ledger is about.

    Raises:
        KeyError: it is about none.
    """
    return Place(str(line["job_id"]), str(line["step_id"]), str(line["attempt"]))
