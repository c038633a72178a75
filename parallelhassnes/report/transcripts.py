"""The transcripts of a bundle: of each chosen trial what its agent was told, did and saw, and what its tests said, as one page.

Only sealed attempts are read, whose files have been looked through for secrets. Every text is bounded, and is escaped by
the template. Pictures stand in the page itself, each and all of them bounded.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from parallelhassnes.attempt_data import pictures
from parallelhassnes.attempt_data.pictures import Picture
from parallelhassnes.attempt_data.trajectory import Turn, read_trajectory
from parallelhassnes.harmless import colourless
from parallelhassnes.results.collect import TrialRow
from parallelhassnes.steps.trial_data.trial_files import TrialFiles
from parallelhassnes.store import attempts, batches, members
from parallelhassnes.store.layout import Layout
from parallelhassnes.views.outcome import outcome as of_step

type Which = Literal["failed", "all", "sample"]
WHICH: tuple[Which, ...] = ("failed", "all", "sample")

MOST_TRANSCRIPTS = 2_000
SAMPLE = 5
"""Of an agent's trials that passed, and of those that did not, in a sample."""
MOST_TURNS = 1_000
MOST_LOG_BYTES = 64 << 10
"""Of the end of one log."""
MOST_LOGS = 20
MOST_PICTURE_BYTES = 50_000_000
"""Of all pictures of a bundle."""


class PictureRoom:
    """How many bytes of pictures a bundle still takes."""

    def __init__(self, left: int = MOST_PICTURE_BYTES) -> None:
        self.left = left

    def take(self, folder: Path, picture: Picture) -> str:
        """Return a picture as an address that holds it; empty where there is no room for it."""
        if picture.size > self.left:
            return ""
        self.left -= picture.size
        return pictures.data_uri(folder, picture)


class TranscriptLog(NamedTuple):
    """A log of a trial."""

    name: str
    text: str
    is_cut: bool
    """Only its end is here."""


class TranscriptPicture(NamedTuple):
    """A picture of a turn."""

    name: str
    address: str
    """It holds the picture; empty where the bundle has no room for it."""


class TranscriptTurns(NamedTuple):
    """What an agent did in one step of a trial."""

    name: str
    agent: str
    turns: list[Turn]
    pictures: dict[int, list[TranscriptPicture]]
    """Number of a turn → its pictures, where it has some."""
    left_out: int


class TrialTranscript(NamedTuple):
    """One trial."""

    number: int
    row: TrialRow
    outcome: str
    said: str
    """What its report says in a line."""
    trajectories: list[TranscriptTurns]
    logs: list[TranscriptLog]

    @property
    def file(self) -> str:
        """Where its page is, relative to the report."""
        return file_of(self.number)

    @property
    def who(self) -> str:
        return who(self.row)


def file_of(number: int) -> str:
    """Return where the page of a transcript is, relative to the report."""
    return f"trials/{number}.html"


def who(row: TrialRow) -> str:
    return " · ".join(filter(None, (row.agent, row.facts.model)))


def outcome(row: TrialRow) -> str:
    """Return what the trial came to, in the words of all views."""
    found = row.facts
    said = {"result": found.result, "reward": found.reward, "passed": found.passed}
    return of_step("trial", "failed", said, found.failure_class).text


def chosen(layout: Layout, rows: Sequence[TrialRow], which: Which) -> list[TrialRow]:
    """Return the trials whose transcripts are wanted and can be given: those that ended and are sealed.

    Args:
        which: ``failed``: all that did not pass; ``sample``: of each agent a few that passed and a few that did not, spread over
            its tasks.
    """
    there = [row for row in rows if row.attempt and attempts.is_sealed(layout.root / row.attempt)]
    if which == "failed":
        there = [row for row in there if not row.facts.passed]
    elif which == "sample":
        groups: dict[tuple[str, bool], list[TrialRow]] = {}
        for row in there:
            groups.setdefault((who(row), bool(row.facts.passed)), []).append(row)
        kept = {id(row) for own in groups.values() for row in _spread(own)}
        there = [row for row in there if id(row) in kept]
    return there[:MOST_TRANSCRIPTS]


def _spread(rows: Sequence[TrialRow]) -> list[TrialRow]:
    count = min(SAMPLE, len(rows))
    return [rows[place * len(rows) // count] for place in range(count)]


def read(layout: Layout, number: int, row: TrialRow, room: PictureRoom | None = None) -> TrialTranscript:
    """Read one; what is missing or cannot be read is left out.

    Args:
        room: of the bundle; left out: one of its own.
    """
    found = [TrialTranscript(number, row, outcome(row), "", [], [])]
    with members.apart(layout.job(row.batch_id, row.job_id)):
        step = batches.read_job(layout.job(row.batch_id, row.job_id)).step(row.facts.step_id)
        found.append(of_files(number, row, TrialFiles(layout.root / (row.attempt or ""), step), room))
    return found[-1]


def of_files(number: int, row: TrialRow, trial: TrialFiles, room: PictureRoom | None = None) -> TrialTranscript:
    """Read one from the files of its attempt."""
    room = room or PictureRoom()
    turns = [turns for name in trial.trajectories if (turns := _turns(trial, name, room)) is not None]
    names = [*trial.verifier_outputs, "trial/exception.txt"]
    if not turns:
        names += [name for name in trial.names if _is_agents_log(name)]
    logs = [log for name in names[:MOST_LOGS] if (log := _log(trial, name)) is not None]
    said = colourless(str(trial.report.get("summary") or ""))
    return TrialTranscript(number, row, outcome(row), said, turns, logs)


def _is_agents_log(name: str) -> bool:
    return name.startswith("trial/") and "/agent/" in name and name.endswith((".txt", ".log"))


def _turns(trial: TrialFiles, name: str, room: PictureRoom) -> TranscriptTurns | None:
    path = trial.path(name)
    found = read_trajectory(path, per_page=MOST_TURNS) if path else None
    if path is None or found is None:
        return None
    step = name.split("/")[2] if name.startswith("trial/steps/") else ""
    drawn = {
        turn.number: [TranscriptPicture(each.name, room.take(path.parent, each)) for each in turn.pictures]
        for turn in found.turns
        if turn.pictures
    }
    turns = [_shown(turn) for turn in found.turns]
    return TranscriptTurns(step, found.agent, turns, drawn, max(0, found.total - MOST_TURNS))


def _shown(turn: Turn) -> Turn:
    return turn._replace(
        source=colourless(turn.source),
        message=colourless(turn.message),
        reasoning=colourless(turn.reasoning),
        calls=[call._replace(name=colourless(call.name), arguments=colourless(call.arguments)) for call in turn.calls],
        results=[colourless(result) for result in turn.results],
    )


def _log(trial: TrialFiles, name: str) -> TranscriptLog | None:
    text = trial.text(name, MOST_LOG_BYTES, end=True)
    if not text:
        return None
    return TranscriptLog(name.removeprefix("trial/"), colourless(text), is_cut=len(text.encode()) >= MOST_LOG_BYTES)
