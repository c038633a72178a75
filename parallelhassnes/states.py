"""The words that say how an attempt, a step or a task stands: in files, over HTTP and on pages."""

from typing import Literal, get_args

_Ended = Literal[
    "succeeded",  # the work was carried out; of a trial, whatever its reward
    "failed",  # it was not; the report's failure says why
    "needs_attention",  # somebody must look at it: no retry would help
    "canceled",  # an operator ended it, or what it depended on can no longer come
    "lost",  # its process died and left no report of its own
]
Scored = Literal["passed", "scored", "no_score"]
"""What a trial with an end has come to; ``scored`` is without passing."""
RetriedStatus = Literal["failed", "needs_attention"]
"""Ends after which a table may ask for another attempt."""

type EndStatus = _Ended
"""How an attempt may have ended; a step, too."""
type AttemptStatus = Literal["queued", "running", _Ended]
type StepState = Literal["blocked", "ready", "running", _Ended]
type CameTo = Literal[Scored, _Ended]
"""What an attempt has come to: of a trial one of ``Scored``, of any other step its status."""
type TaskQuality = Literal["good", "needs_review", "broken", "unknown"]

TERMINAL: tuple[EndStatus, ...] = get_args(_Ended)
STATES: tuple[StepState, ...] = get_args(StepState.__value__)
RETRIED: tuple[RetriedStatus, ...] = get_args(RetriedStatus)
TROUBLE = ("failed", "lost", "needs_attention")
"""Ends that somebody may have to do something about."""
