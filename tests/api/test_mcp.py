"""``parallelhassnes mcp`` as a coding agent uses it: by the real client of the protocol, over standard input and output."""

import json
import sys
from contextlib import asynccontextmanager

import anyio
import pytest
from harness import make_task
from mcp import ClientSession, StdioServerParameters, stdio_client
from stores import SUPPORT, context, environment, idle, job, program, put, read, shell, table, wait_for

from parallelhassnes.actions.registry import ACTIONS
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store.evidence import ledger

READ = {"list_batches", "batch_status", "explain", "show", "results", "errors", "logs"}


@asynccontextmanager
async def client(root, *arguments):
    command = ["-m", "parallelhassnes", "mcp", "--root", str(root), *arguments]
    started = StdioServerParameters(command=sys.executable, args=command, env=environment(SUPPORT))
    async with stdio_client(started) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
        await session.initialize()
        yield session


async def names(session):
    listed = (await session.list_tools()).model_dump(by_alias=True)["tools"]
    return {tool["name"]: tool for tool in listed}


async def call(session, name, **arguments):
    """What a tool answers; its text where it refuses."""
    done = (await session.call_tool(name, arguments)).model_dump(by_alias=True)
    text = "".join(part["text"] for part in done["content"])
    return text if done["isError"] else json.loads(text)


def test_a_client_that_may_read_looks_and_changes_nothing(root):
    ctx = context(root)
    batch = put(ctx, table(job("j", shell("s", "echo heard; exit 3")), job("k", shell("t", "true", gate="human"))))
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch")
    before = {path: path.read_bytes() for path in ctx.layout.batch(batch).rglob("*.json*")}

    async def look():
        async with client(root) as session:
            tools = await names(session)
            assert set(tools) == READ
            assert all(tool["annotations"]["readOnlyHint"] for tool in tools.values())
            (line,) = (await call(session, "list_batches"))["batches"]
            assert (line["batch_id"], line["state"]) == (batch, "blocked")
            assert (await call(session, "list_batches", experiment="none"))["batches"] == []
            assert (await call(session, "batch_status"))["counts"]["failed"] == 1
            explained = await call(session, "explain", target=f"{batch}/k/t")
            assert "approve or reject" in explained["steps"][0]["why"][0]
            assert "heard" in (await call(session, "logs", target=f"{batch}/j/s"))["logs"]["stdout.log"]
            assert (await call(session, "show", target=f"{batch}/j"))["id"].endswith("/j")
            assert (await call(session, "results"))["groups"] == []
            assert (await call(session, "errors"))["groups"]
            assert "has no batch nonsense" in await call(session, "show", target="nonsense")
            for name in ("submit", "cancel"):
                assert "nknown tool" in await call(session, name, table={}, target=batch)

    anyio.run(look)
    after = {path: path.read_bytes() for path in ctx.layout.batch(batch).rglob("*.json*")}
    assert {path: after[path] for path in before} == before


def test_a_submission_needs_a_budget_and_is_dry_until_it_is_meant(root):
    ctx = context(root)
    task = make_task(root)
    agent = {"import_path": "costly_agent:CostlyAgent", "n_trials": 3, "queue_key": "costly"}
    environment_of = {"import_path": "temp_environment:TempEnvironment"}
    sent = {"spec_version": "2.0", "sweep": {"path": str(task), "agents": [agent], "environment": environment_of}}

    async def work():
        async with client(root, "--allow", "submit", "--budget", "5") as session:
            assert set(await names(session)) == READ | {"submit"}
            assert "needs a budget" in await call(session, "submit", table=sent)
            assert "5 USD at most" in await call(session, "submit", table=sent, budget_usd=6)
            assert "5 USD at most" in await call(session, "submit", table=sent, budget_tokens=6)
            planned = await call(session, "submit", table=sent, budget_usd=1)
            assert planned["dry_run"] is True
            assert planned["outline"].startswith("3 trials = 1 task")
            assert ctx.layout.batch_ids() == []
            wrong = await call(session, "submit", table=sent | {"bugdet": 1}, budget_usd=1)
            assert "did you mean" in wrong
            own = sent | {"budget": {"usd": 0.5}}
            done = await call(session, "submit", table=own, budget_usd=1, dry_run=False)
            assert read(ctx.layout.batch(done["batch_id"]) / "batch_meta.json")["budget"]["usd"] == 0.5
            done = await call(session, "submit", table=sent, budget_usd=1, dry_run=False)
            again = await call(session, "submit", table=sent, budget_usd=1, dry_run=False)
            assert (again["batch_id"], again["duplicate"]) == (done["batch_id"], True)
            return done["batch_id"]

    batch = anyio.run(work)  # the client has gone, and its server with it
    wait_for(lambda: list(ctx.layout.batch(batch).glob("*/steps/*/attempts/*/seal.json")), "an attempt")
    (line,) = [event for _, event in ledger.read(ctx.layout.batch(batch)) if event["event"] == "submitted"]
    assert line["by"].startswith("mcp:")
    for each in ctx.layout.batch_ids():
        program(root, "cancel", each)
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the end")


def test_a_client_that_may_operate_has_the_words_of_operators(root):
    ctx = context(root)
    batch = put(ctx, table(job("k", shell("t", "true", gate="human"), shell("u", "true", gate="human"))))

    async def work():
        async with client(root, "--allow", "operate") as session:
            tools = await names(session)
            assert set(tools) == READ | {"submit"} | {a.name.replace("-", "_") for a in ACTIONS if not a.by_hand}
            assert tools["cancel"]["annotations"]["destructiveHint"] is True
            assert "needs a reason" in await call(session, "reject", target=f"{batch}/k/u")
            await call(session, "reject", target=f"{batch}/k/u", reason="not this one")
            await call(session, "approve", target=f"{batch}/k/t")

    anyio.run(work)
    wait_for(lambda: (tick(ctx), idle(ctx))[1], "the batch")
    events = {event["event"]: event for _, event in ledger.read(ctx.layout.batch(batch))}
    assert (events["rejected"]["reason"], events["rejected"]["by"][:4]) == ("not this one", "mcp:")


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--allow", "all"], "use read, submit, operate"), ([], "there is no store in")]
)
def test_what_it_cannot_serve_is_said_in_a_line(root, arguments, said):
    done = program(root, "mcp", *arguments, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
