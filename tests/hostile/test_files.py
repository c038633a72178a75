"""What of the host's files a sandbox shows: what programs need, and nothing else, whatever the host does meanwhile."""

import os
import shutil
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="puts files where only root may")
PLACES = ("/opt", "/srv", "/home", "/root", "/var/lib", "/var/cache", "/mnt", "/etc", "/var/tmp", "/tmp")


@pytest.fixture
def secrets():
    """Files that every user of the host may read, in places where hosts keep such things."""
    name = f"hostile-{uuid.uuid4().hex}"
    made = [Path(place, name) for place in PLACES if Path(place).is_dir()]
    for folder in made:
        folder.mkdir()
        (folder / "secret").write_text("a secret of the host\n")
    yield name
    for folder in made:
        shutil.rmtree(folder)


@as_root
def test_secrets_of_the_host_are_not_there(row, secrets):
    paths = " ".join(f"{place}/{secrets}/secret" for place in PLACES)
    trial = row.run(
        f"cat {paths} 2>&1 | sort | uniq -c | sort -rn | grep -v 'No such file'; find / \\( -path /usr -o -path /proc -o -path /sys \\) -prune -o -name {secrets} -print 2>/dev/null"
    )
    assert trial["said"][0]["out"] is None


def test_nothing_of_etc_that_may_hold_a_secret(row):
    names = "shadow gshadow gitconfig npmrc pip.conf environment ssh ssl/private docker postgresql sudoers machine-id"
    trial = row.run(f"cd /etc && for n in {names}; do [ -e $n ] && echo $n; done; true")
    assert trial["said"][0]["out"] is None


def test_programs_find_what_they_need(row):
    """Names of users, certificates, time zones, alternatives, packages."""
    ask = (
        "getent passwd root | cut -d: -f1; getent hosts localhost >/dev/null && echo hosts; date >/dev/null && echo date;"
        ' awk \'BEGIN { print "awk" }\'; /usr/bin/python3 -c "import ssl; print(len(ssl.create_default_context().get_ca_certs()) >= 0)"'
    )
    assert row.run(ask)["said"][0]["out"] == "root\nhosts\ndate\nawk\nTrue\n"


@as_root
def test_what_is_hidden_stays_hidden_when_the_host_replaces_it(row):
    """By rename, as editors and package managers do: a cover of the old file would go with it."""
    folder = Path("/usr/share", f"hostile-{uuid.uuid4().hex}")
    folder.mkdir()
    try:
        for name in ("secret", "open"):
            (folder / name).write_text(f"{name}\n")
        wait = (
            "touch /logs/artifacts/ready; for i in $(seq 1000); do [ -e /logs/artifacts/go ] && break; sleep 0.02; done"
        )
        look = f"cat {folder}/secret; cat {folder}/open"

        def replace() -> None:
            artifacts = row.next_folder / "trials/one/artifacts"
            deadline = time.monotonic() + 60
            while not (artifacts / "ready").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            (folder / "new").write_text("secret\n")
            (folder / "new").rename(folder / "secret")
            (artifacts / "go").touch()

        host = threading.Thread(target=replace)
        host.start()
        trial = row.run(f"{look}; {wait}; {look}", hide=[str(folder / "secret")])
        host.join()
    finally:
        shutil.rmtree(folder)
    assert trial["said"][0]["out"] == "open\nopen\n"


@as_root
def test_a_shown_folder_is_read_as_root_reads_it(row, tmp_path):
    """Also what is closed to others; it cannot be written to. An account reads it as it may outside."""
    folder = Path("/srv", f"hostile-{uuid.uuid4().hex}")
    folder.mkdir(mode=0o700)
    try:
        (folder / "data").write_text("data\n")
        (folder / "data").chmod(0o600)
        said = row.run(f"cat {folder}/data; echo x >{folder}/data", show=[str(folder)])["said"][0]
    finally:
        shutil.rmtree(folder)
    if row.who == "user":
        assert said["out"] is None
        assert said["err"].count("Permission denied") == 2
        return
    assert said["out"] == "data\n"
    assert "Read-only file system" in said["err"]


def test_the_loader_and_what_it_reads_cannot_be_replaced(row):
    """Else an agent's code would run in every program that the verifier starts."""
    tries = (
        "for d in /lib64 /lib /bin; do [ -L $d ] && echo $d is a link; mv $d /moved; done; echo /x >/etc/ld.so.preload;"
        " rm /etc/ld.so.cache /etc/ld.so.preload; touch /usr/bin/x /lib/x /bin/x"
    )
    said = row.run(tries)["said"][0]
    assert said["out"] is None
    lines = said["err"].splitlines()
    assert len(lines) == 9, lines
    assert all("busy" in line or "Read-only" in line for line in lines), lines


def test_folders_deeper_than_python_goes_are_given_back_and_removed(row):
    """In the sandbox's own root and in what stays of the trial, 1,100 of them: Python goes down 1,000. With a program that takes its owner's rights at the bottom.

    The verifier, which may run the agent's code, leaves them too, with links and pipes that Harbor must not meet.
    """
    deep = "d/" * 1100
    dig = f"for top in /app /logs/agent; do cd $top && mkdir -p {deep} && cd {deep} && touch s && chmod 4755 s || exit; done"
    tests = (
        f"#!/bin/bash\ncd /logs/verifier && mkdir -p {deep} && cd {deep} && ln -s / l && mkfifo p\n"
        "chmod 0 /logs/verifier/d/d/d; echo 0 >/logs/verifier/reward.txt\n"
    )
    trial = row.run(dig, tests=tests)
    assert trial["said"][0]["code"] == 0, trial["said"]
    assert trial["record"]["removed"] == {"…/l": "link", "…/p": "pipe"}
    left = "( -perm /6000 -o -not -uid {} -o -type l -o -type p ) -print -quit"
    found = subprocess.run(
        ["find", ".", "-depth", *left.format(row.uid).split()],
        cwd=row.last_folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == ""
    assert list((row.last_folder / "tmp").iterdir()) == []
    subprocess.run(["rm", "-rf", row.last_folder], check=True)  # pytest removes by recursion
