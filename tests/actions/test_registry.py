"""Each action of an operator has a command, a route, a button where it has one, an undo, and words for its ledger."""

import re
from importlib.resources import files

import pytest
from stores import CHECKOUT, context, job, put, shell, table
from typer.main import get_command

from parallelhassnes.actions.registry import ACTIONS, BY_NAME, LEDGER_WORDS
from parallelhassnes.api.app import create_app
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.cli.app import app
from parallelhassnes.config import ApiConfig
from parallelhassnes.schedule.tick import tick
from parallelhassnes.views.history import operators_words

COMMANDS = get_command(app).commands
PATHS = {
    "batch": "/v1/batches/{batch}/",
    "job": "/v1/batches/{batch}/jobs/{job}/",
    "step": "/v1/batches/{batch}/jobs/{job}/steps/{step}/",
    "key": "/v1/queue/",
    "runner": "/v1/runners/{runner}/",
}
BY_HAND = {
    "limit": "/v1/limits",
    "budget": "/v1/batches/{batch}/budget",
    "budget-key": "/v1/budgets",
    "budget-experiment": "/v1/budgets",
}
every_action = pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)


@pytest.fixture(scope="module")
def routes(tmp_path_factory):
    root = tmp_path_factory.mktemp("document")
    context(root)
    return create_app(ServerState(root, ApiConfig(), "token", ticking=False)).openapi()["paths"]


@every_action
def test_it_has_a_command(action):
    command = COMMANDS[action.command]
    assert command.help.startswith(action.help)
    options = {name: param for param in command.params for name in param.opts}
    assert {"--reason", "--root", "--json"} <= set(options)
    assert options["--reason"].required == action.needs_reason
    for value in action.values:
        assert {value.word, f"--{value.word}", value.name} & set(options), value


@every_action
def test_it_has_a_route_for_each_target(action, routes):
    assert (action.name in BY_HAND) == action.by_hand
    paths = [BY_HAND[action.name]] if action.by_hand else [f"{PATHS[kind]}{action.name}" for kind in action.targets]
    for path in paths:
        ((method, route),) = ((m, r) for m, r in routes[path].items() if m != "get")
        assert method in ("post", "put")
        assert role_of(route) == action.role
        assert action.by_hand or action.help in route["description"]
        reason = [param for param in route.get("parameters", []) if param["name"] == "reason"]
        assert [param["required"] for param in reason] == ([] if action.by_hand else [action.needs_reason])


def role_of(route):
    ((role,),) = route["security"][0].values()
    return role


def test_every_route_of_an_operator_is_made_from_an_action(routes):
    """But for those that do something else (a tick, the cancel of one attempt, which looks first), and other programs'."""
    own = {f"{PATHS[kind]}{a.name}" for a in ACTIONS if not a.by_hand for kind in a.targets} | set(BY_HAND.values())
    found = {
        path
        for path, methods in routes.items()
        for method, route in methods.items()
        if path.startswith("/v1/")
        and method != "get"
        and role_of(route) == "operate"
        and not route["tags"][0].startswith("earlier")
    }
    assert found - own == {"/v1/tick", "/v1/attempts/{attempt}/cancel"}
    assert own <= found


def test_pages_have_the_buttons_that_are_described_and_no_others():
    folder = files("parallelhassnes.api.pages") / "templates"
    text = "".join(path.read_text() for path in folder.iterdir() if path.name.endswith(".html"))
    used = set(re.findall(r'\b(?:act|raise)\("([a-z-]+)", "([a-z]+)"', text))
    assert '"budget-" ~ b.scope, b.scope' in text
    used |= {("budget-key", "key"), ("budget-experiment", "experiment")}
    assert used == {(action.name, kind) for action in ACTIONS for kind in action.buttons}
    assert all(action.buttons for action in ACTIONS)


@every_action
def test_its_undo_is_an_action_about_the_same_and_is_offered_unless_it_needs_a_reason(action):
    undo = BY_NAME[action.undo]
    assert undo.undo == action.name
    assert set(undo.targets) == set(action.targets)
    assert bool(action.undo_label) == (not undo.needs_reason)


def test_the_document_names_the_undo_of_each():
    section = (CHECKOUT / "docs" / "failures.md").read_text().split("## By hand")[1].split("\n## ")[0]
    told = {}
    for row in re.findall(r"^\| `.*", section, re.MULTILINE):
        done, undone = (re.findall(r"`([a-z]+) ", cell) for cell in row.split(" | ")[:2])
        told |= dict(zip(done, undone, strict=True)) | dict(zip(undone, done, strict=True))
    assert told == {a.name: a.undo for a in ACTIONS if a.name == a.command}


MONEY = [{"usd": 5.0, "tokens": None}, {"usd": 9.0, "tokens": None}]
VALUES = {
    "limit": [{"number": 3}, {"number": None}],
    "priority": [{"number": 7}, {"number": 0}],
    "cap": [{"max_tokens": 500}, {"max_tokens": 0}],
    "budget": MONEY,
    "budget-key": MONEY,
    "budget-experiment": MONEY,
}
"""What is given to an action, and to the one that takes it back."""


@pytest.mark.parametrize(
    "first",
    ["cancel", "pause", "close", "drain", "limit", "priority", "approve", "budget", "budget-key", "budget-experiment"],
)
def test_what_it_does_and_its_undo_stand_in_a_ledger_in_words(root, first):
    ctx = context(root)
    batch_id = put(ctx, table(job("j", shell("s", "true", gate="human", queue_key="k")), experiment="e x"))
    tick(ctx)
    if first != "drain":  # so that nothing starts, which could not be taken back
        BY_NAME["drain"].do(ctx, None)
    step = f"{batch_id}/j/s"
    targets = {"batch": batch_id, "step": step, "key": "k", "runner": ctx.config.runner_id, "experiment": "e x"}
    of = BY_NAME[first]
    for place, action in enumerate((of, BY_NAME[of.undo])):
        target = targets["step" if "step" in action.targets else action.targets[0]]
        values = VALUES[first][place] if first in VALUES else {}
        done = action.do(ctx, target, "because", **values)
        assert done.lines()
        (word, *_) = (
            word
            for folder in (ctx.layout.batch(batch_id), ctx.layout.system)
            for word in operators_words(folder, LEDGER_WORDS)
            if word.event in action.ledger
        )
        assert (word.said, word.reason) == (action.ledger[word.event], "because")
        assert target in action.done.format(of=target, n="1 step")
