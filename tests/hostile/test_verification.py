"""A reward comes from the verifier: not from what an agent has left, whether a file, a link or a process."""

import json
import os

import pytest

from parallelhassnes.sandbox.engines import kernel

TESTS = """#!/bin/bash
{before}
sleep 0.3
echo 0 >/logs/verifier/reward.txt
"""
FORGER = r"""cat >/tmp/forge.sh <<'END'
while :; do
  echo 1 >/logs/verifier/reward.txt
  for p in /proc/[0-9]*; do
    [ -e $p/root/logs/verifier/test-stdout.txt ] && echo "root of $p" >>/tmp/seen && echo 1 >$p/root/logs/verifier/reward.txt
    tr '\0' '\n' <$p/environ 2>/dev/null | grep THE_VERIFIERS_SECRET >>/tmp/seen
    for f in $p/fd/*; do case $(readlink $f) in *verifier/*) echo "fd of $p" >>/tmp/seen; echo 1 >$f;; esac; done
    [ -r $p/mem ] && head -c 0 $p/mem 2>/dev/null && grep -q verifier $p/cmdline && cat $p/maps 2>/dev/null | grep -q . && echo "mem of $p" >>/tmp/seen
  done
  grep -rs verifier /tests /run/sandbox >>/tmp/seen
  sleep 0.02
done
END
setsid bash /tmp/forge.sh >/dev/null 2>&1 &
"""


def _verified(row, agent: str, before: str = "", **options) -> dict:
    trial = row.run(agent, tests=TESTS.format(before=before), **options)
    assert trial["said"][0]["code"] == 0, trial["said"]
    return trial


def test_killing_the_verifier_is_refused_by_landlock(row):
    """The agent's processes have the verifier's user; the kernel keeps their signals in, so that there is a reward.

    Where the record says that there is no Landlock (before Linux 6.12), nobody promises that.
    """
    kept_in = kernel.can_keep_in()
    assert row.run("true")["record"]["landlock"] is kept_in
    if not kept_in:
        return
    killer = r"""cat >/tmp/kill.py <<'END'
import errno, os, signal, time
own = {int(n) for n in os.listdir("/proc") if n.isdigit()}
said = set()
open("/tmp/ready", "w").close()
while True:
    for pid in {int(n) for n in os.listdir("/proc") if n.isdigit()} - own:
        try:
            os.readlink(f"/proc/{pid}/ns/mnt")
            continue  # one of the agent's own
        except FileNotFoundError:
            continue
        except PermissionError:
            pass
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        except OSError as error:
            said.add(errno.errorcode[error.errno])
        else:
            said.add("killed")
        with open("/tmp/new", "w") as file:
            file.write(" ".join(sorted(said)))
        os.replace("/tmp/new", "/tmp/said")
    time.sleep(0.001)
END
setsid /usr/bin/python3 /tmp/kill.py >/dev/null 2>&1 &
until [ -e /tmp/ready ]; do sleep 0.02; done
"""
    trial = _verified(row, killer, before="sleep 0.2; cat /tmp/said")
    assert trial["reward"] == "0\n"
    assert trial["stdout"] == "EPERM"


@pytest.mark.parametrize("verification", ["isolated", "clean"])
def test_a_loop_that_is_left_behind_forges_nothing(row, verification):
    trial = _verified(row, FORGER, verification=verification)
    assert trial["reward"] == "0\n"
    assert trial["record"]["verification"] == verification
    assert trial["seen"] == ""


def test_files_and_links_that_are_left_are_not_there(row):
    """Also a reward.json, which Harbor prefers to what the tests write."""
    left = "cd /logs/verifier; echo '{\"reward\": 1}' >reward.json; echo 1 >reward.txt; ln -s /etc/passwd ctrf.json; mkfifo p"
    trial = _verified(row, left, before="ls -A /logs/verifier")
    assert trial["reward"] == "0\n"
    assert trial["stdout"] == "test-stdout.txt\n"
    assert set(trial["verifier"]) == {"reward.txt", "test-stdout.txt"}


@pytest.mark.parametrize("own", ["/root/user/bin", "/home/user/bin", "/opt/tool/bin"])
def test_no_program_of_the_agents_is_run_for_the_verifier(row, own):
    """Whoever starts the trial may have folders in ``PATH`` that are the agent's to write inside, and so may the task's image."""
    plant = f"""mkdir -p {own}
for name in bash sh env setpriv nsenter; do
  printf '#!/bin/sh\\necho "$0" >>/tmp/seen\\nexec /usr/bin/%s "$@"\\n' $name >{own}/$name
  chmod 755 {own}/$name
done"""
    image = f"FROM debian\nENV PATH={own}:$PATH\n"
    trial = _verified(row, plant, path=f"{own}:{os.environ['PATH']}", dockerfile=image)
    assert trial["reward"] == "0\n"
    assert trial["seen"] == ""


def test_what_is_no_plain_file_goes_before_it_is_read(row):
    planted = "cd /logs/verifier; ln -s /etc/hostname reward.json; mkfifo ctrf.json; mkdir d; ln -s / d/host"
    trial = _verified(row, "true", before=planted)
    assert set(trial["verifier"]) == {"reward.txt", "test-stdout.txt", "d"}


def test_what_the_verifier_leaves_running_writes_no_more(row):
    late = "(sleep 0.6; while :; do echo 1 >/logs/verifier/reward.txt; done) >/dev/null 2>&1 &"
    trial = _verified(row, "true", before=late, wait=1)
    assert trial["reward"] == "0\n"


def test_services_are_there_to_be_tested(row):
    """A server of the agent's, its port, its process and its files, as honest tasks have them."""
    serve = "mkdir -p /app/www && echo hi >/app/www/x && cd /app/www && (setsid /usr/bin/python3 -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 &)"
    ask = (
        "for i in $(seq 200); do r=$(/usr/bin/python3 -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/x').read().decode().strip())\" 2>/dev/null) && break; sleep 0.05; done;"
        ' echo "$r"; grep -lz [h]ttp.server /proc/[0-9]*/cmdline | wc -l; cat /app/www/x'
    )
    trial = _verified(row, serve, before=ask)
    assert trial["stdout"] == "hi\n1\nhi\n"


def test_clean_kills_first(row):
    trial = _verified(
        row,
        "setsid sleep 300 >/dev/null 2>&1 &",
        before="grep -lz [s]leep /proc/[0-9]*/cmdline | wc -l",
        verification="clean",
    )
    assert trial["stdout"] == "0\n"


def test_shared_is_as_harbor_has_it_but_begins_empty(row):
    trial = _verified(
        row, "echo '{\"reward\": 1}' >/logs/verifier/reward.json", before="ls -A /logs/verifier", verification="shared"
    )
    assert trial["stdout"] == "test-stdout.txt\n"
    assert trial["record"]["verification"] == "shared"


def test_a_task_says_how(row):
    trial = row.run("true", tests=TESTS.format(before=""), toml='[metadata]\nverification = "clean"\n')
    assert trial["record"]["verification"] == "clean"
    assert json.loads(json.dumps(trial["reward"])) == "0\n"


def test_what_the_image_has_among_the_tests_is_there_for_both(row):
    """And what the agent makes of it is not what the verifier finds."""
    look = "cat /tests/data.txt"
    trial = _verified(
        row,
        f"{look}; echo mine >/tests/data.txt",
        before=look,
        dockerfile="FROM debian\nWORKDIR /app\nCOPY data.txt /tests/\n",
    )
    assert trial["said"][0]["out"] == "data\n"
    assert trial["stdout"] == "data\n"
