"""What was spent is what the ledgers say, whatever happened between an end's line and the sum."""

import json
import os
import shutil

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stores import context

from parallelhassnes.config import Budget, Budgets
from parallelhassnes.plan import BatchMeta
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.limits import spending
from parallelhassnes.schedule.limits.spending import Spending
from parallelhassnes.steps.usage import NOTHING, total
from parallelhassnes.store import atomic, batches
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import now_text

KEYS, NAMES = ("a", "b"), ("one", "two", "")
BATCHES = 6
SHARED = Budgets(keys={"a": Budget(usd=1)}, experiments={"one": Budget(usd=1)})
MORE = Budgets(keys={"a": Budget(usd=1), "b": Budget(usd=1)}, experiments={"two": Budget(tokens=5)})


class Crash(BaseException):
    """As a kill: nothing of ours catches it."""


def write_batch(ctx: Context, batch_id: str, experiment: str = "") -> None:
    batch_dir = ctx.layout.batch(batch_id)
    batch_dir.mkdir()
    ledger.append(batch_dir, "submitted", jobs=1, steps=1)
    meta = BatchMeta(
        batch_id=batch_id,
        created_at=now_text(),
        table_sha256="0" * 64,
        table_format="parallelhassnes-2",
        job_ids=("j",),
        steps_total=1,
        experiment=experiment,
    )
    atomic.write_json(batch_dir / batches.META, meta.model_dump(mode="json"), durable=False)


def end(ctx: Context, batch_id: str, key: str, cost: float | None) -> None:
    """The line of an attempt's end."""
    facts = {"kind": "trial", "queue_key": key, "cost_usd": cost, "trial": {"tokens": [3, None, 1]}}
    ledger.append(ctx.layout.batch(batch_id), "ended", **facts)


def with_budgets(ctx: Context, budgets: Budgets) -> Context:
    return Context(ctx.layout, ctx.config.model_copy(update={"budgets": budgets}))


def counted(ctx: Context, *, key: str | None = None, experiment: str | None = None) -> tuple[float, int]:
    """Cost and ends, straight from the ledgers."""
    cost, ends = 0.0, 0
    for path in ctx.layout.runs.glob("b*/ledger.jsonl"):
        name = json.loads((path.parent / batches.META).read_text())["experiment"]
        for line in map(json.loads, path.read_text().splitlines()):
            if line["event"] == "ended" and key in (None, line["queue_key"]) and experiment in (None, name):
                cost, ends = cost + line.get("cost_usd", 0), ends + 1
    return cost, ends


def check(ctx: Context) -> None:
    """A pass, and a view, count what the ledgers say; nothing that is kept is spoilt."""
    now = Spending(ctx)
    for key in now.shared.keys:
        spent = now.on_key(key)
        assert (spent.cost_usd or 0, spent.attempts) == counted(ctx, key=key), key
        assert spending.spent_on(ctx.layout, key=key) == spent
    for name in now.shared.experiments:
        spent = total(now.by_experiment(name).values())
        assert (spent.cost_usd or 0, spent.attempts) == counted(ctx, experiment=name), name
        assert spending.spent_on(ctx.layout, experiment=name) == spent
    for name, account in spending.accounts(ctx.layout, ctx.layout.batch_ids()).items():
        lines = map(json.loads, (ctx.layout.batch(name) / ledger.LEDGER).read_text().splitlines())
        assert account.total.attempts == sum(line["event"] == "ended" for line in lines)


def consistent(ctx: Context) -> None:
    """The sums that are kept, if any, count of each batch exactly what its account counts: also after a crash."""
    sums = spending._load(ctx.layout)
    if sums is None:
        return
    kept = {path.stem for path in (ctx.layout.system / spending.FOLDER).iterdir()}
    accounts = [sums.recent.get(name) or spending._read(ctx.layout, name) for name in kept | set(sums.recent)]
    for key, spent in sums.keys.items():
        assert spent == sum((one.by_key.get(key, NOTHING) for one in accounts), NOTHING), key
    for name, by_key in sums.experiments.items():
        own = [one.total for one in accounts if one.experiment == name]
        assert total(by_key.values()) == sum(own, NOTHING), name


class Crashing:
    """Every change of the derived files may be the last; the so-many-th is."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __enter__(self) -> None:
        self._before = os.rename, os.unlink
        os.rename, os.unlink = map(self._counting, self._before)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        os.rename, os.unlink = self._before
        return kind is Crash

    def _counting(self, do):
        def done(*given, **more):
            self.left -= 1
            if self.left < 0:
                raise Crash
            return do(*given, **more)

        return done


def settle(ctx: Context, batch_id: str, key: str, cost: float | None, crash: int | None) -> None:
    """As a pass settles: the line, the sum; after a crash in between, the redo, whose ticket is still there."""
    end(ctx, batch_id, key, cost)
    if crash is not None:
        with Crashing(crash):
            Spending(ctx).settled(batch_id)
        consistent(ctx)
    Spending(ctx).settled(batch_id)


def damage(ctx: Context, how: str, batch_id: str) -> None:
    system = ctx.layout.system
    account = system / spending.FOLDER / f"{batch_id}.json"
    match how:
        case "no sums":
            (system / spending.FILE).unlink(missing_ok=True)
        case "no accounts":
            shutil.rmtree(system / spending.FOLDER, ignore_errors=True)
        case "spoilt sums":
            (system / spending.FILE).write_text('{"schema_version": 3, "keys"')
        case "sums of the version before":
            (system / spending.FILE).write_text('{"schema_version": 2, "batches": {}}')
        case "no account" if account.exists():
            account.unlink()
            end(ctx, batch_id, "a", 0.5)
            Spending(ctx).settled(batch_id)
        case "spoilt account" if account.exists():
            account.write_text("[1, 2")
            end(ctx, batch_id, "a", 0.5)
            Spending(ctx).settled(batch_id)
        case "new process":
            spending._counted_here.clear()
        case "other's line":  # of a process of an earlier version: no settle of ours, until a process begins
            end(ctx, batch_id, "a", 0.25)
            spending._counted_here.clear()
        case "own":  # looked at for the batch's own budget, when no other is set
            Spending(with_budgets(ctx, Budgets())).account(batch_id)
        case "another ledger":
            (ctx.layout.batch(batch_id) / ledger.LEDGER).unlink()
            for _ in range(len(batch_id)):
                end(ctx, batch_id, "b", 2.0)
            spending._counted_here.clear()


END = ("end", 0, "a", 1.0, None)
ends = st.tuples(
    st.just("end"),
    st.integers(0, BATCHES - 1),
    st.sampled_from(KEYS),
    st.sampled_from((None, 0.25, 1.0)),
    st.none() | st.integers(0, 8),
)
budgets = st.tuples(st.just("budgets"), st.sampled_from((Budgets(), SHARED, MORE)))
looks = st.just(("look",))
damages = st.tuples(
    st.sampled_from(
        (
            "no sums",
            "no accounts",
            "spoilt sums",
            "sums of the version before",
            "no account",
            "spoilt account",
            "new process",
            "other's line",
            "own",
            "another ledger",
        )
    ),
    st.integers(0, BATCHES - 1),
)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    story=st.lists(st.one_of(ends, ends, ends, looks, budgets, damages), min_size=5, max_size=40),
    recent=st.sampled_from((0, 1, 3)),
)
@example(story=[END, ("budgets", Budgets()), END], recent=1)
@example(story=[END, ("other's line", 1), ("end", 0, "a", 1.0, 1)], recent=1)
@example(story=[END, ("other's line", 1), ("end", 0, "a", 1.0, 2)], recent=1)
@example(story=[END, ("end", 1, "a", 1.0, None), ("end", 2, "a", 1.0, 2)], recent=1)
@example(story=[END, ("other's line", 0), ("own", 0)], recent=1)
@example(story=[END, ("no account", 0)], recent=0)
def test_the_sums_are_what_the_ledgers_say_whatever_comes_between(tmp_path_factory, story, recent):
    root = tmp_path_factory.mktemp("root")
    ctx = with_budgets(context(root, "durable = false\n"), SHARED)
    for number in range(BATCHES):
        write_batch(ctx, f"b{number}", NAMES[number % len(NAMES)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spending, "RECENT", recent)
        for act, *given_ in story:
            if act == "end":
                number, key, cost, crash = given_
                settle(ctx, f"b{number}", key, cost, crash)
            elif act == "budgets":
                ctx = with_budgets(ctx, given_[0])
            elif act == "look":
                check(ctx)
            else:
                damage(ctx, act, f"b{given_[0]}")
            if act not in ("no account", "no accounts", "spoilt account"):
                consistent(ctx)
        check(ctx)
        check(with_budgets(ctx, SHARED))
    shutil.rmtree(root)


def test_a_batch_that_cannot_be_read_counts_once_it_can(root):
    ctx = with_budgets(context(root), SHARED)
    for name in ("b0", "b1"):
        write_batch(ctx, name, "one")
        end(ctx, name, "a", 1.0)
    file = ctx.layout.batch("b0") / ledger.LEDGER
    text = file.read_bytes()
    file.unlink()
    file.mkdir()
    assert Spending(ctx).on_key("a").cost_usd == 1.0
    file.rmdir()
    file.write_bytes(text)
    assert Spending(ctx).on_key("a").cost_usd == 2.0
    assert Spending(ctx).on_key("a").cost_usd == 2.0
    check(ctx)


def test_deleting_a_batch_gives_no_money_back(root):
    ctx = with_budgets(context(root), SHARED)
    write_batch(ctx, "b0", "one")
    settle(ctx, "b0", "a", 1.0, None)
    spending._counted_here.clear()
    assert Spending(ctx).on_key("a").cost_usd == 1.0
    shutil.rmtree(ctx.layout.batch("b0"))
    spending._counted_here.clear()
    assert Spending(ctx).on_key("a").cost_usd == 1.0
    assert spending.spent_on(ctx.layout, key="a").cost_usd == 1.0


@pytest.mark.parametrize("count", [100, 1000])
def test_an_end_reads_the_ledger_of_its_batch_and_no_other(root, count, monkeypatch):
    ctx = with_budgets(context(root, "durable = false\n"), SHARED)
    for number in range(count):
        write_batch(ctx, f"b{number:04}", "one")
    Spending(ctx).on_key("a")
    looked: list[str] = []
    size = ledger.size
    monkeypatch.setattr(ledger, "size", lambda folder: (looked.append(folder.name), size(folder))[1])
    monkeypatch.setattr(os, "listdir", lambda folder=".": pytest.fail(f"{folder} is listed"))
    for number in range(40):
        settle(ctx, f"b{number:04}", "a", 1.0, None)
        assert Spending(ctx).on_key("a").attempts == number + 1
    assert looked == [f"b{number:04}" for number in range(40)]
    assert (ctx.layout.system / spending.FILE).stat().st_size < 4096
    monkeypatch.undo()
    assert len(os.listdir(ctx.layout.system / spending.FOLDER)) >= 40 - spending.RECENT
    check(ctx)
