"""Ids as users type them."""

from pathlib import Path

import pytest
import stores

from parallelhassnes.errors import UnknownId
from parallelhassnes.refs import Found, resolve
from parallelhassnes.store import attempts


@pytest.fixture
def store(root: Path):
    ctx = stores.context(root)
    older = stores.put(ctx, stores.table(stores.job("only", stores.command("one", "true"))))
    batch_id = stores.put(
        ctx,
        stores.table(
            stores.job("alpha", stores.command("build", "true"), stores.command("bundle", "true")),
            stores.job("beta", stores.command("build", "true")),
        ),
    )
    stores.program(root, "tick")
    stores.wait_for(lambda: stores.idle(ctx), "the batches to end")
    return ctx.layout, older, batch_id


def test_whole_names_prefixes_and_paths(store) -> None:
    layout, older, batch_id = store
    assert older < batch_id
    assert resolve(layout, "latest") == Found(batch_id)
    assert resolve(layout, batch_id) == Found(batch_id)
    assert resolve(layout, batch_id.rpartition("-")[2]) == Found(batch_id)
    assert resolve(layout, f"{batch_id[:-2]}/al/bui") == Found(batch_id, "alpha", "build")
    assert resolve(layout, f"runs/{batch_id}/alpha/") == Found(batch_id, "alpha")
    step = Found(batch_id, "alpha", "build")
    name = attempts.names(step.folder(layout))[0]
    attempt = step._replace(attempt=name)
    run_id = name.partition("_")[2]
    for text in (
        f"{step}/{name}",
        f"{step}/{run_id}",
        f"{step}/1",
        f"{step}/latest",
        name,
        run_id,
        run_id[:8],
        f"runs/{batch_id}/alpha/steps/build/attempts/{name}",
        str(attempt.folder(layout)),
    ):
        assert resolve(layout, text) == attempt, text
    assert (attempt.what, step.what, Found("x").what) == ("attempt", "step", "batch")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{batch}/alpa", "did you mean alpha?"),
        ("{batch}/alpha/b", "is 2 steps: build, bundle; write more of the name"),
        ("{batch}/alpha/biuld", "did you mean build?"),
        ("{batch}/alpha/build/7", "has no attempt 7"),
        ("{batch}/alpha/build/2", "has no attempt 2"),  # though its name begins with the year
        ("{batch}/alpha/build/1/more", "too many parts"),
        ("zzzz", "has no batch zzzz"),
        ("", "names nothing"),
        ("../../etc", "has no batch .."),
        ("2", "is 2 batchs"),
    ],
)
def test_what_names_nothing_says_what_is_near(store, text: str, said: str) -> None:
    layout, _, batch_id = store
    with pytest.raises(UnknownId) as caught:
        resolve(layout, text.format(batch=batch_id))
    assert said.replace("batchs", "batches") in str(caught.value)


def test_an_empty_store(root: Path) -> None:
    ctx = stores.context(root)
    with pytest.raises(UnknownId, match="no batch yet"):
        resolve(ctx.layout, "latest")
    with pytest.raises(UnknownId, match="it has none"):
        resolve(ctx.layout, "x")
