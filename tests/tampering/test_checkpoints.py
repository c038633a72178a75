"""Checkpoints come by themselves, are signed by OpenSSH, and are kept where a hook brings them."""

import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stores import CHECKOUT, command, context, idle, job, program, put, read, shell, started, table, wait_for

from parallelhassnes.admin.audit import verify
from parallelhassnes.admin.audit.make_checkpoint import checkpoint
from parallelhassnes.errors import UserError
from parallelhassnes.schedule.context import open_context
from parallelhassnes.schedule.tick import tick
from parallelhassnes.store import locks
from parallelhassnes.store.evidence import checkpoints, ledger

pytestmark = pytest.mark.programs("ssh-keygen")


def made(ctx) -> list[dict]:
    return [read(checkpoints.place(ctx.layout, n)) for n in checkpoints.numbers(ctx.layout)]


def run_batch(ctx, *steps) -> str:
    batch = put(ctx, table(job("j", *(steps or (command("s", "true"),)))))
    tick(ctx)
    wait_for(lambda: idle(ctx) and not ctx.layout.checkpoint_wanted.exists(), "the batch")
    return batch


@pytest.fixture
def key(tmp_path):
    """A key, and the file that says whose it is."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    public = path.with_suffix(".pub").read_text().split()
    signers = tmp_path / "allowed_signers"
    signers.write_text(f'ann@lab namespaces="checkpoint@parallelhassnes" {public[0]} {public[1]}\n')
    return path, signers


def test_a_batchs_end_makes_a_checkpoint_of_what_is_new(root):
    ctx = context(root)
    first = run_batch(ctx)
    one = wait_for(lambda: made(ctx), "its checkpoint")[-1]
    head = ledger.head(ctx.layout.batch(first))
    assert one["batches"][first] == {"head": head.head, "lines": head.lines, "seals": 1}
    second = run_batch(ctx)
    wait_for(lambda: len(made(ctx)) > 1, "the next")
    two = made(ctx)[-1]
    assert second in two["batches"]
    assert two["prev"] == ledger.content_hash(checkpoints.place(ctx.layout, two["number"] - 1))
    said = program(root, "audit", "checkpoint").stdout
    assert "nothing is new since" in said
    assert f"{two['number']}.json sha256:" in said
    full = json.loads(program(root, "audit", "checkpoint", "--full", "--json").stdout)
    assert full["batches"] == 2
    assert verify.verify(ctx.layout, against=[root / full["path"]]).ok


def test_a_day_without_a_batchs_end_makes_one_too(root):
    import os

    ctx = context(root)
    run_batch(ctx)
    flag = root / "go"
    put(ctx, table(job("j", shell("s", f"until test -e {flag}; do sleep 0.02; done"))))
    tick(ctx)
    wait_for(lambda: made(ctx), "the first")
    before = made(ctx)[-1]["number"]
    os.utime(ctx.layout.checkpoint_lock, (1, 1))
    tick(ctx)
    wait_for(lambda: made(ctx)[-1]["number"] == before + 1, "the day's")
    flag.touch()
    wait_for(lambda: idle(ctx), "the end")


def test_a_signed_checkpoint_is_verified_with_openssh_alone(root, key, tmp_path):
    path, signers = key
    ctx = context(root, f'[audit]\nkey = "{path}"\n')
    run_batch(ctx)
    done = checkpoint(ctx)
    assert done.signed
    kept = tmp_path / "kept.json"
    for ending in ("", ".sig"):
        shutil.copyfile(f"{root / done.path}{ending}", f"{kept}{ending}")
    argv = [
        "ssh-keygen",
        "-Y",
        "verify",
        "-f",
        signers,
        "-I",
        "ann@lab",
        "-n",
        "checkpoint@parallelhassnes",
        "-s",
        f"{kept}.sig",
    ]
    assert subprocess.run(argv, input=kept.read_bytes(), capture_output=True).returncode == 0
    program(root, "audit", "verify", "--against", str(kept), "--signers", str(signers))

    other = tmp_path / "other"
    other.write_text(signers.read_text().replace("AAAAC3NzaC1lZDI1NTE5AAAAI", "AAAAC3NzaC1lZDI1NTE5AAAAJ"))
    said = program(root, "audit", "verify", "--signers", str(other), check=False)
    assert (said.returncode, "is signed by nobody in" in said.stdout) == (1, True)
    kept.write_text(kept.read_text().replace('"by":"', '"by":"x'))
    said = program(root, "audit", "verify", "--against", str(kept), "--signers", str(signers), check=False)
    assert "is no signature of kept.json" in said.stdout
    assert "kept elsewhere" in said.stdout
    beside = root / f"{done.path}.sig"
    beside.write_text(beside.read_text().replace("A", "B", 1))
    found = verify.verify(ctx.layout)
    assert [each.place for each in found.problems] == [f"_system/checkpoints/{beside.name}"]
    beside.unlink()
    unsigned = program(root, "audit", "verify", "--signers", str(signers), check=False)
    assert "is signed" in unsigned.stdout


def test_a_key_that_cannot_sign_is_told_and_costs_no_checkpoint(root):
    ctx = context(root, '[audit]\nkey = "nowhere"\n')
    run_batch(ctx)
    wait_for(lambda: made(ctx), "the checkpoint")
    with pytest.raises(UserError, match="there is no such file"):
        checkpoint(ctx, full=True)
    assert "nowhere" in (ctx.layout.system / "checkpoints.log").read_text()
    assert verify.verify(ctx.layout).ok


def test_a_hook_keeps_every_checkpoint_in_a_git_remote(root, key, tmp_path, monkeypatch):
    """The recipe of docs/audit.md, with a bare repository that refuses to be rewritten."""
    remote, anchor = tmp_path / "remote.git", tmp_path / "anchor"
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    (tmp_path / "gitconfig").write_text(
        "[user]\nname = a\nemail = a@b\n[init]\ndefaultBranch = main\n[push]\ndefault = current\n"
    )
    for argv in (["init", "-q", "--bare", str(remote)], ["clone", "-q", str(remote), str(anchor)]):
        subprocess.run(["git", *argv], check=True, capture_output=True)
    subprocess.run(["git", "-C", str(remote), "config", "receive.denyNonFastForwards", "true"], check=True)
    text = (CHECKOUT / "docs" / "audit.md").read_text()
    recipe = next(line for line in text.splitlines() if line.startswith("hook = ") and "git push" in line)
    ctx = context(root, f'[audit]\nkey = "{key[0]}"\n{recipe.replace("/srv/anchor", str(anchor))}\n')
    run_batch(ctx)

    def there() -> str:
        return subprocess.run(
            ["git", "-C", str(remote), "ls-tree", "--name-only", "main"], capture_output=True, text=True
        ).stdout

    newest = wait_for(lambda: made(ctx), "a checkpoint")[-1]["number"]
    wait_for(lambda: f"{newest}.json.sig" in there(), "the remote to have it")
    wait_for(lambda: not checkpoints.unsent(ctx.layout), "the note of it")
    shown = subprocess.run(["git", "-C", str(remote), "show", f"main:{newest}.json"], capture_output=True)
    kept = tmp_path / "kept.json"
    kept.write_bytes(shown.stdout)
    assert verify.verify(ctx.layout, against=[kept]).problems == []

    remote.rename(tmp_path / "away.git")  # what cannot be sent is told, and sent later
    batch = put(ctx, table(job("j", command("s", "true"))))
    tick(ctx)
    wait_for(lambda: idle(ctx) and made(ctx)[-1]["number"] > newest, batch)
    said = program(root, "audit", "checkpoint", check=False)
    assert (said.returncode, "was not sent: audit.hook ended with" in said.stdout) == (1, True)
    notes = verify.verify(open_context(root).layout).notes
    assert {note.what for note in notes} == {"unsent"}
    (tmp_path / "away.git").rename(remote)
    program(root, "audit", "checkpoint")
    assert f"{made(ctx)[-1]['number']}.json.sig" in there()
    assert verify.verify(ctx.layout).notes == []


class StampingAuthority:
    """A time stamping authority on loopback: ``openssl ts`` with a key that a CA of its own has certified."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.answer = folder, "a stamp"
        folder.mkdir()
        (folder / "ext").write_text("extendedKeyUsage=critical,timeStamping\n")
        (folder / "serial").write_text("01\n")
        (folder / "tsa.cnf").write_text(
            "[tsa]\ndefault_tsa = here\n[here]\nserial = serial\ndefault_policy = 1.2.3.4\ndigests = sha256\nsigner_digest = sha256\n"
        )
        for line in (
            "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=CA -days 10",
            "req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj /CN=TSA",
            "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ext -out tsa.pem -days 10",
        ):
            self._openssl(*line.split())
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _openssl(self, *argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=self.folder, check=True, capture_output=True)

    def _stamp(self, query: bytes) -> bytes:
        if self.answer == "a refusal":  # for it cannot be read
            query = b"\x30\x00"
        (self.folder / "query").write_bytes(query)
        self._openssl(
            "ts",
            "-reply",
            "-config",
            "tsa.cnf",
            "-queryfile",
            "query",
            "-signer",
            "tsa.pem",
            "-inkey",
            "tsa.key",
            "-out",
            "answer",
        )
        return (self.folder / "answer").read_bytes()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        authority = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                is_down = authority.answer == "an error"
                self.send_response(503 if is_down else 200)
                self.end_headers()
                self.wfile.write(b"" if is_down else authority._stamp(query))

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def authority(tmp_path):
    made = StampingAuthority(tmp_path / "tsa")
    yield made
    made.close()


@pytest.mark.programs("openssl", "curl")
def test_a_hook_has_every_checkpoint_stamped_by_a_time_stamping_authority(root, authority, tmp_path):
    """The recipe of docs/audit.md; what the authority refuses, or does not answer, is told and sent again."""
    anchor = tmp_path / "anchor"
    anchor.mkdir()
    shutil.copyfile(authority.folder / "ca.pem", anchor / "tsa-ca.pem")
    text = (CHECKOUT / "docs" / "audit.md").read_text()
    (recipe,) = (line for line in text.splitlines() if line.startswith("hook = ") and "ts -query" in line)
    recipe = recipe.replace("/srv/anchor", str(anchor)).replace("https://tsa.example.org", authority.url)
    ctx = context(root, f"[audit]\n{recipe}\n")
    run_batch(ctx)
    newest = wait_for(lambda: made(ctx), "a checkpoint")[-1]["number"]
    wait_for(lambda: not checkpoints.unsent(ctx.layout), "the note that it was sent")

    def holds(path: Path, number: int) -> tuple[bool, str]:
        argv = [
            "openssl",
            "ts",
            "-verify",
            "-data",
            str(path),
            "-in",
            str(anchor / f"{number}.json.tsr"),
            "-CAfile",
            str(anchor / "tsa-ca.pem"),
        ]
        done = subprocess.run(argv, capture_output=True, text=True)
        return done.returncode == 0, done.stderr

    path = checkpoints.place(ctx.layout, newest)
    assert holds(path, newest)[0]
    forged = tmp_path / "forged.json"
    forged.write_text(path.read_text().replace('"seals":1', '"seals":2'))
    assert forged.read_text() != path.read_text()
    is_good, why = holds(forged, newest)
    assert (is_good, "message imprint mismatch" in why) == (False, True)

    for authority.answer in ("an error", "a refusal"):
        batch = run_batch(ctx)
        wait_for(lambda b=batch: any(b in each["batches"] for each in made(ctx)), "its checkpoint")
        said = program(root, "audit", "checkpoint", check=False)
        assert (said.returncode, "was not sent: audit.hook ended with" in said.stdout) == (1, True)
        assert {note.what for note in verify.verify(open_context(root).layout).notes} == {"unsent"}
        assert not (anchor / f"{made(ctx)[-1]['number']}.json.tsr").exists()
    authority.answer = "a stamp"
    program(root, "audit", "checkpoint")
    assert all(holds(checkpoints.place(ctx.layout, n), n)[0] for n in checkpoints.numbers(ctx.layout) if n >= newest)
    assert verify.verify(ctx.layout).notes == []


def test_who_asks_for_a_checkpoint_waits_for_the_process_that_sends(root, tmp_path):
    """One that is made while an earlier one is being sent is sent, and who asked is not told of success before it is."""
    go, got = tmp_path / "go", tmp_path / "got"
    hook = f"until test -e {go}; do sleep 0.01; done; echo $0 >> {got}"
    ctx = context(root, f"[audit]\nhook = {json.dumps(['sh', '-c', hook])}\n")
    run_batch(ctx)
    wait_for(lambda: locks.is_held(ctx.layout.system / "checkpoint.sending.lock"), "the first to be sent")
    second = run_batch(ctx)
    wait_for(lambda: any(second in each["batches"] for each in made(ctx)), "the second checkpoint")
    with started(root, "audit", "checkpoint") as asked:
        with pytest.raises(subprocess.TimeoutExpired):
            asked.wait(0.5)
        go.touch()
        said, _ = asked.communicate(timeout=60)
    assert (asked.returncode, "sent" in said) == (0, True)
    assert checkpoints.unsent(ctx.layout) == []
    sent = [Path(line).name for line in got.read_text().splitlines()]
    assert sent == [f"{number}.json" for number in checkpoints.numbers(ctx.layout)]


def test_who_sends_sees_to_what_came_meanwhile(root, tmp_path):
    go = tmp_path / "go"
    hook = f"until test -e {go}; do sleep 0.01; done"
    ctx = context(root, f"[audit]\nhook = {json.dumps(['sh', '-c', hook])}\n")
    run_batch(ctx)
    wait_for(lambda: locks.is_held(ctx.layout.system / "checkpoint.sending.lock"), "the first to be sent")
    second = run_batch(ctx)
    wait_for(lambda: any(second in each["batches"] for each in made(ctx)), "the second checkpoint")
    go.touch()
    wait_for(lambda: not checkpoints.unsent(ctx.layout), "both to be sent, though nobody asks again")


def test_a_program_for_signatures_that_may_not_be_run_is_named_in_one_line(root, key, tmp_path):
    path, signers = key
    ctx = context(root, f'[audit]\nkey = "{path}"\n')
    run_batch(ctx)
    checkpoint(ctx)
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "ssh-keygen").write_text(f"#!{closed}\n")  # a folder is executed by nobody, root included
    (closed / "ssh-keygen").chmod(0o755)
    said = program(root, "audit", "verify", "--signers", str(signers), env={"PATH": str(closed)}, check=False)
    assert said.returncode == 2
    assert said.stderr == "the program ssh-keygen cannot be run: Permission denied; install OpenSSH's client\n"
