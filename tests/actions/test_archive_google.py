"""An archive in a bucket of Google's: the client for it, and a real server of buckets behind a proxy that puts its one word of its own in Amazon's."""

import json
import os

import buckets
import pytest
from archives import ended
from stores import context, job, program, shell

from parallelhassnes.store.archives.object_store import open_store

pytestmark = pytest.mark.seaweedfs


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    (tmp_path / "weed").mkdir()
    with buckets.serving(tmp_path / "weed", open_to_all=True) as server:
        server.make_bucket("evals")
        proxy = buckets.Proxy(server.port, words=buckets.GOOGLES)
        address = f"http://127.0.0.1:{proxy.port}"
        account = {
            "gcs_base_url": address,
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        (tmp_path / "account.json").write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("GOOGLE_BASE_URL", address)
        yield "gs://evals/archive"
        proxy.close()


def test_a_key_is_written_once(bucket, tmp_path):
    store = open_store(bucket, os.environ, at=tmp_path)
    assert store.create("a/key", b"first")
    assert not store.create("a/key", b"second")
    assert store.read("a/key") == b"first"
    assert list(store.names("a")) == [("key", 5)]


def test_a_batch_goes_there_and_comes_back(bucket, root, tmp_path):
    ctx = context(root)
    batch = ended(ctx, job("j", shell("a", "echo said"), shell("b", "false")))
    assert "2 of them sent now" in program(root, "archive", "push", batch, "--to", bucket).stdout
    assert "was there" in program(root, "archive", "push", batch, "--to", bucket).stdout
    assert batch in program(root, "archive", "list", "--from", bucket).stdout
    assert "as it is here" in program(root, "archive", "verify", batch, "--from", bucket).stdout
    other = tmp_path / "other"
    other.mkdir()
    context(other)
    program(other, "archive", "pull", batch, "--from", bucket)
    assert program(other, "logs", f"{batch}/j/a").stdout == program(root, "logs", f"{batch}/j/a").stdout
    program(other, "audit", "verify")
    refused = program(root, "archive", "list", "--from", "gs://nowhere/archive", check=False)
    assert refused.stderr.startswith("gs://nowhere/archive: there is no such bucket (404")
