"""What tests of archives elsewhere share: an address, a batch, another machine's store."""

import time

import pytest
from archives import LEAVES, ended
from stores import command, context, job, shell


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.seaweedfs)])
def place(request, tmp_path, monkeypatch):
    """Where an archive is to be: its URL; what it needs is in the environment."""
    if request.param == "folder":
        return str(tmp_path / "archive")
    return request.getfixturevalue("bucket_server").offer(monkeypatch).make_bucket(f"b{time.time_ns()}")


@pytest.fixture
def batch(root):
    ctx = context(root, "durable = false\n")
    return ctx, ended(ctx, job("j", shell("a", LEAVES), command("b", "false")), job("k", command("c", "true")))


@pytest.fixture
def other(tmp_path):
    """A store on another machine."""
    (tmp_path / "other").mkdir()
    return context(tmp_path / "other", "durable = false\n")
