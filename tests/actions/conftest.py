"""What tests of archives elsewhere share: a server of buckets, an address, a batch, another machine's store."""

import time

import buckets
import pytest
from archives import LEAVES, ended
from stores import command, context, job, shell


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with buckets.serving(tmp_path_factory.mktemp("weed")) as found:
        yield found


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.seaweedfs)])
def place(request, tmp_path, monkeypatch):
    """Where an archive is to be: its URL; what it needs is in the environment."""
    if request.param == "folder":
        return str(tmp_path / "archive")
    found = request.getfixturevalue("server")
    for name, value in found.env.items():
        monkeypatch.setenv(name, value)
    return found.make_bucket(f"b{time.time_ns()}")


@pytest.fixture
def batch(root):
    ctx = context(root, "durable = false\n")
    return ctx, ended(ctx, job("j", shell("a", LEAVES), command("b", "false")), job("k", command("c", "true")))


@pytest.fixture
def other(tmp_path):
    """A store on another machine."""
    (tmp_path / "other").mkdir()
    return context(tmp_path / "other", "durable = false\n")
