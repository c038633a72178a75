"""Every word of an operator, described once: what it is called, what it does to what, and how it is taken back.

An ``Action`` is one word. These are made from it:

    the command            cli/operators.py            its arguments, options, help and example
    the HTTP routes        api/routes/operators.py     one for each kind of target
    the page's buttons     ``act`` in macros.html      what a button says before it is pressed, and the form behind it
    what a page says then  api/pages/action_list.py    what was done, and the button that takes it back
    the words of a ledger  views/history.py            who did what, for people

so another word is a function in this folder, and an entry of ``ACTIONS``; where a button of it stands is up to the pages.
The function takes the context, the target as text, a ``reason`` and the action's values by name, works under
``tick.lock``, writes one line into the ledger, and returns an ``ActionResult``. The module of a function is imported when
the action is called, so ``--help`` costs descriptions alone.

Written out (``by_hand``) are the command and the route of what is said by more than a target and values: ``limit`` is typed
``KEY=N`` and sent as a body, as is ``budget``, which has three kinds of targets in one command and is also a look. So is
the cancel of one attempt (``api/routes/attempts.py``), which is refused where the attempt is not the newest. Not here are
``submit``, ``append``, ``rerun`` and ``analyze``: they add work, by tokens that may submit, and each answers in its own way.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from parallelhassnes.actions.attribution import ActionResult
    from parallelhassnes.schedule.context import Context

type Kind = Literal["batch", "job", "step", "key", "runner", "experiment"]
"""What an action can be about."""


class Value(NamedTuple):
    """What an action takes besides its target and a reason."""

    name: str
    """The argument of the function."""
    word: str
    """The option, and the query parameter."""
    shape: Literal["flag", "texts", "number", "amount"]
    """``number`` must be given; an ``amount`` may be, with a fraction."""
    help: str
    metavar: str | None = None
    least: int | None = None
    most: int | None = None


class Button(NamedTuple):
    """A button of a page, which opens what it would do, and the one behind it, which does it. Fields: ``{of}``, the target,
    and what the page counts."""

    does: str
    label: str = ""
    """Empty: the action's name."""
    press: str = ""
    """The second button; empty: as the first."""


class Action(NamedTuple):
    """One word of an operator."""

    name: str
    """The end of the routes' addresses, and of the form's."""
    function: str
    """Module in this folder, and function in it."""
    targets: tuple[Kind, ...]
    """What it can be about; over HTTP each has a route."""
    help: str
    """One line: what it does."""
    example: str
    """What follows the command's name in an example that runs."""
    done: str
    """What a page says that was done. Fields: ``{of}``, the target; ``{n}``, the steps that it was about."""
    undo: str
    """The action that takes it back."""
    undo_label: str = ""
    """The button for that; empty where there is none, as the undo needs a reason."""
    ledger: Mapping[str, str] = {}
    """Event in the ledger → what somebody did, as a verb."""
    buttons: Mapping[Kind, Button] = {}
    values: tuple[Value, ...] = ()
    gather: str = ""
    """The model of the function's module that holds the values, given as one argument of that name in small letters."""
    scope: str = ""
    """Given to the function before the target."""
    needs_reason: bool = False
    danger: bool = False
    """It ends, or keeps from running, what cannot be had back for nothing."""
    nothing: str = ""
    """What a page says where there was nothing to do; empty: the same as ``done``."""
    target_help: str = ""
    by_hand: bool = False
    """The command and the route are written out."""
    role: Literal["operate"] = "operate"

    @property
    def command(self) -> str:
        """The command; there is one for budgets of all kinds."""
        return self.name.partition("-")[0]

    def load(self) -> "Callable[..., ActionResult]":
        """Return the function."""
        module, function = self.function.rsplit(".", 1)
        found: Callable[..., ActionResult] = getattr(import_module(f"parallelhassnes.actions.{module}"), function)
        return found

    def do(self, ctx: "Context", target: str | None, reason: str = "", **values: Any) -> "ActionResult":
        """Do it; values that are not given stay what the function takes for them."""
        function = self.load()
        if self.gather:
            model = getattr(import_module(function.__module__), self.gather)
            values = {self.gather.lower(): model(**{name: value for name, value in values.items() if value})}
        return function(ctx, *filter(None, (self.scope,)), target, reason=reason, **values)

    def button(self, kind: Kind, facts: Mapping[str, object]) -> Button:
        """Return the button for a target of that kind, with the facts in its texts."""
        does, label, press = (text.format(**facts) for text in self.buttons[kind])
        label = label or self.name.capitalize()
        return Button(does, label, press or label)


_ANY: tuple[Kind, ...] = ("batch", "job", "step")
_GATED = "A step; or a job or batch, for all its steps that wait for a person."
_MONEY = "It may spend so much in all, from the next start on. What runs goes on."


def _budget(name: str, function: str, kind: Kind, example: str, scope: str = "", **buttons: str) -> Action:
    return Action(
        name,
        f"limits.budget.{function}",
        (kind,),
        "Show what a batch (or queue key, or experiment) has spent, or raise what it may.",
        example,
        done="{of} has a new budget",
        undo=name,
        undo_label="Undo: the earlier budget",
        ledger={"budget": "changed the budget of"},
        buttons={kind: Button(_MONEY, label, "Set the budget") for kind, label in buttons.items()},  # type: ignore[misc]
        scope=scope,
        by_hand=True,
    )


ACTIONS: tuple[Action, ...] = (
    Action(
        "cancel",
        "cancel_retry.cancel",
        _ANY,
        "Stop what runs and start nothing else; partial results are kept.",
        "latest",
        done="{of} is canceled: {n} told to end",
        undo="retry",
        undo_label="Undo: run again what was canceled",
        ledger={"canceled": "canceled"},
        buttons={
            "batch": Button(
                "{running} running attempts are told to end, {waiting} waiting steps do not start.{more}",
                press="Cancel the batch",
            ),
            "step": Button("This attempt is told to end; its partial results are kept.", press="Cancel the attempt"),
        },
        values=(Value("ended", "ended", "flag", "Steps that have ended, too: they do not run again by themselves."),),
        danger=True,
        nothing="{of} is over: there was nothing to cancel",
    ),
    Action(
        "retry",
        "cancel_retry.retry",
        _ANY,
        "Let ended steps run again, each as a new attempt; the earlier ones stay.",
        "latest --failed",
        done="{n} of {of} to run again",
        undo="cancel",
        undo_label="Undo: cancel these again",
        ledger={"retry": "retried"},
        buttons={
            "batch": Button(
                "Ended steps run again as new attempts; the earlier ones stay. {trouble} of {total} steps did not succeed."
            ),
            "step": Button("The step runs again as a new attempt; this one stays as it is."),
        },
        values=(
            Value("failed", "failed", "flag", "Of a batch or job: only the steps that did not succeed."),
            Value("classes", "class", "texts", "Only steps that failed so, as rate_limit; repeatable.", "CLASS"),
            Value("unscored", "unscored", "flag", "Only trials without a score."),
            Value("lost", "lost", "flag", "Only steps whose processes died."),
        ),
        gather="Only",
    ),
    Action(
        "pause",
        "pause_resume.pause",
        ("batch", "key"),
        "Start nothing of a batch, or on a queue key, until it is resumed; what runs goes on.",
        'latest --reason "the proxy is down"',
        done="{of} is paused: what runs goes on, nothing starts",
        undo="resume",
        undo_label="Resume",
        ledger={"paused": "paused", "key_paused": "paused the key"},
        buttons={
            "batch": Button("What runs goes on; nothing starts until it is resumed."),
            "key": Button("What runs on {of} goes on; nothing starts on it until it is resumed."),
        },
    ),
    Action(
        "resume",
        "pause_resume.resume",
        ("batch", "key"),
        "Let a paused batch or queue key go on, also a key that its provider's refusals paused.",
        "latest",
        done="{of} goes on",
        undo="pause",
        undo_label="Pause again",
        ledger={"resumed": "resumed", "key_resumed": "resumed the key", "bound": "gave its variables to"},
        buttons={"batch": Button("What waits may start again."), "key": Button("What waits on {of} may start again.")},
    ),
    Action(
        "close",
        "pause_resume.close",
        ("batch",),
        "Start nothing more of a batch; what runs ends, what waits stays undone.",
        'latest --reason "enough seen"',
        done="{of} is closed: what runs ends, nothing more starts",
        undo="reopen",
        undo_label="Reopen",
        ledger={"closed": "closed"},
        buttons={"batch": Button("What runs goes on to its end; nothing more starts, unless it is reopened.")},
    ),
    Action(
        "reopen",
        "pause_resume.reopen",
        ("batch",),
        "Let a closed batch go on.",
        "latest",
        done="{of} is open again",
        undo="close",
        undo_label="Close again",
        ledger={"reopened": "reopened"},
        buttons={"batch": Button("What waits may start again.")},
    ),
    Action(
        "approve",
        "approve.approve",
        _ANY,
        "Let steps start that wait for a person (gate: human).",
        'latest --reason "read it"',
        done="{n} approved of {of}",
        undo="reject",
        ledger={"approved": "approved"},
        buttons={
            "batch": Button("All {n} steps may start.", "Approve all", "Approve all {n}"),
            "step": Button("{step} may start."),
        },
        target_help=_GATED,
    ),
    Action(
        "reject",
        "approve.reject",
        _ANY,
        "Have steps that wait for a person never start, nor what needs them; approve takes it back.",
        'latest --reason "not this week"',
        done="{n} rejected of {of}: neither they nor what needs them will run",
        undo="approve",
        undo_label="Undo: approve instead",
        ledger={"rejected": "rejected"},
        buttons={
            "batch": Button(
                "None of these {n} steps will start, nor what needs them. Approving takes it back.",
                "Reject all",
                "Reject all {n}",
            ),
            "step": Button("{step} will not start, nor what needs it. Approving takes it back."),
        },
        needs_reason=True,
        danger=True,
        target_help=_GATED,
    ),
    Action(
        "priority",
        "pause_resume.priority",
        ("batch",),
        "Change the priority of a batch while it runs.",
        "latest 10",
        done="{of} has a new priority",
        undo="priority",
        undo_label="Undo: the earlier priority",
        ledger={"priority": "set the priority of"},
        buttons={"batch": Button("Higher starts first; 0 is the usual one.")},
        values=(Value("number", "priority", "number", "-1000 to 1000; higher starts first.", "N", -1000, 1000),),
    ),
    Action(
        "limit",
        "pause_resume.limit",
        ("key",),
        "Set the live attempts of a queue key while things run, in the place of the configured limit.",
        "agent:oracle=2",
        done="{of} has a new limit",
        undo="limit",
        undo_label="Undo: the earlier limit",
        ledger={"key_limit": "set the limit of"},
        buttons={
            "key": Button(
                "Live attempts on this key at most, over all batches, instead of the configured limit. Empty: as configured."
            )
        },
        by_hand=True,
    ),
    Action(
        "cap",
        "limits.capping.cap",
        _ANY,
        "Change what the agent of each attempt may use, while it runs; without options: show it.",
        "latest --max-wall-sec 600",
        done="the agents of {of} have other caps",
        undo="cap",
        undo_label="Undo: the earlier caps",
        ledger={"caps": "set the caps of"},
        buttons={
            "batch": Button(
                "An agent that has used so much is ended, and its work is verified all the same. Empty: as it is; 0: no cap.",
                "Caps",
                "Set the caps",
            )
        },
        values=(
            Value("max_cost_usd", "max-cost-usd", "amount", "US dollars; 0 for no cap.", "USD"),
            Value("max_tokens", "max-tokens", "amount", "Input and output tokens together; 0 for no cap.", "N"),
            Value("max_turns", "max-turns", "amount", "Answers of its model; 0 for no cap.", "N"),
            Value("max_wall_sec", "max-wall-sec", "amount", "Seconds that it works; 0 for no cap.", "SEC"),
        ),
    ),
    _budget("budget", "change", "batch", "latest --raise 30", batch=""),
    _budget("budget-key", "change_shared", "key", "--key agent:oracle --raise 30", "key", key="Budget"),
    _budget(
        "budget-experiment",
        "change_shared",
        "experiment",
        "--experiment nightly --raise 30",
        "experiment",
        experiment="Budget",
        batch="Budget of {of}",
    ),
    Action(
        "drain",
        "pause_resume.drain",
        ("runner",),
        "Have a host start no new attempts, of any batch; what runs there goes on to its end.",
        '--reason "reboot at noon"',
        done="{of} starts nothing more",
        undo="undrain",
        undo_label="Undo: start attempts again",
        ledger={"drained": "drained the runner"},
        buttons={"runner": Button("What runs on {of} ends; it starts nothing more.")},
    ),
    Action(
        "undrain",
        "pause_resume.undrain",
        ("runner",),
        "Let a drained host start attempts again.",
        "",
        done="{of} starts attempts again",
        undo="drain",
        undo_label="Drain again",
        ledger={"undrained": "opened the runner"},
        buttons={"runner": Button("{of} starts attempts again.")},
    ),
)
BY_NAME: Mapping[str, Action] = {action.name: action for action in ACTIONS}
LEDGER_WORDS: Mapping[str, str] = {"submitted": "submitted"} | {
    event: verb for action in ACTIONS for event, verb in action.ledger.items()
}
"""Event → what somebody did, of a batch's ledger and of the store's."""


def parameter(name: str, annotation: Any, default: Any = Parameter.empty) -> Parameter:
    """Return one parameter of a function that is made from an action."""
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
