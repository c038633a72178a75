"""What one of several hosts makes of files that it cannot read just now, that are of another version, or that a crash has left."""

import json
import os
import select
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import joined_hosts
import pytest
from joined_hosts import as_host, attempt, beats, has_right, member
from stores import CHECKOUT, environment, wait_for

from parallelhassnes import names
from parallelhassnes.execute import set_apart as set_apart_module
from parallelhassnes.execute.set_apart import set_apart
from parallelhassnes.schedule import launch, repair, runner_loop
from parallelhassnes.schedule.context import Context
from parallelhassnes.schedule.joining.measured import check_own
from parallelhassnes.schedule.process import attempt_process
from parallelhassnes.schedule.tick import run_pass
from parallelhassnes.store import atomic, attempts, clocks, decider, hosts, locks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout
from parallelhassnes.store.queue import handed, tickets
from parallelhassnes.store.records import now_text


@pytest.fixture
def ctx(root: Path) -> Context:
    """This host is h1 of three; a step of a batch is ready."""
    return joined_hosts.three(root)


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """Names of the attempts that a process was started for, in place of the process."""
    found: list[str] = []

    def start(_ctx, assignment, _lock, _then) -> None:
        found.append(assignment.attempt)

    for module in (repair, runner_loop):
        monkeypatch.setattr(module, "start", start)
    return found


def ended(ctx: Context, assignment: attempt_process.Assignment, lock: int) -> None:
    """Be, in a process of its own, the one that ends an attempt, without the pass that follows."""
    child = os.fork()
    if not child:
        code = 1
        try:
            attempt_process.run(ctx, assignment, lock, lambda _: None)
            code = 0
        finally:
            os._exit(code)
    os.close(lock)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def loop(ctx: Context) -> runner_loop._Loop:
    acts = runner_loop.Acts(lambda _: None, lambda _: True, lambda _: None)
    return runner_loop._Loop(ctx, acts, 4, None)


# --- who decides


@pytest.mark.parametrize("content", [b"", b"\xff{", b'{"schema_version": 2}'])
def test_an_epoch_that_cannot_be_read_ends_the_one_before_and_is_followed_once_it_stays_so(ctx, content):
    decider.claim_right(ctx.layout, None)
    assert decider.decides(ctx.layout)
    path = ctx.layout.hosts / "right" / "00000002.json"
    path.write_bytes(content)
    assert not decider.decides(ctx.layout), "whoever has written that may decide"
    with decider.deciding_if_free(ctx.layout) as is_ours:
        assert not is_ours
    here, still = loop(ctx), hosts.still_sec(ctx.layout, ctx.config.heartbeat_sec)
    here._see_to_right(100.0, {"h1"})
    here._see_to_right(100.0 + still / 2, {"h1"})
    assert not decider.decides(ctx.layout)
    here._see_to_right(100.0 + still + 1, {"h1"})
    right = decider.right(ctx.layout)
    assert right is not None
    assert (right.epoch, right.runner) == (3, "h1")


def test_what_a_host_of_a_later_version_says_besides_changes_nothing(ctx):
    has_right(ctx, 1, "h2", reason="of a later version")
    beat = ctx.layout.runners / "h2" / hosts.BEAT
    beats(ctx, "h2", 1)
    atomic.write_json(beat, {**atomic.read_json(beat), "gpus": 8})
    record = ctx.layout.runners / "h2" / hosts.MEMBER
    atomic.write_json(record, {**atomic.read_json(record), "gpus": 8})
    right, found = decider.right(ctx.layout), hosts.beat_of(ctx.layout, "h2")
    assert right is not None
    assert found is not None
    assert (right.runner, found.count) == ("h2", 1)
    assert set(hosts.members_of(ctx.layout)) == {"h1", "h2", "h3"}


def test_a_beat_that_cannot_be_read_once_takes_no_right_and_no_work_from_its_host(ctx):
    has_right(ctx, 1, "h2")
    here, still = loop(ctx), hosts.still_sec(ctx.layout, ctx.config.heartbeat_sec)
    beats(ctx, "h2", 1)
    assert here._moving(100.0, still) == {"h2", "h3"}
    for kept in (hosts.BEAT, hosts.MEMBER):  # what a client of NFS says of a file that was just replaced
        path = ctx.layout.runners / "h2" / kept
        path.unlink()
        path.symlink_to(path.name)
    with pytest.raises(OSError, match="symbolic links"):
        atomic.read_bytes(ctx.layout.runners / "h2" / hosts.BEAT)
    alive = {"h1"} | here._moving(100.1, still)
    here._see_to_right(100.1, alive)
    assert "h2" in alive
    right = decider.right(ctx.layout)
    assert right is not None
    assert right.runner == "h2"
    assert "h2" not in here._moving(101 + still, still), "it is silent once that stays so"
    here._see_to_right(101 + still, {"h1"})
    right = decider.right(ctx.layout)
    assert right is not None
    assert right.runner == "h1"


def test_a_mark_that_cannot_be_looked_at_makes_no_host_the_only_one(ctx):
    shared = ctx.layout.hosts / "shared"
    atomic.write_text(ctx.layout.runners / "h1" / hosts.NOTE, hosts.note_text())
    shared.unlink()
    shared.symlink_to(shared.name)  # one whose state cannot be told
    for name in ("h1", "h2", "h3"):
        (ctx.layout.runners / name / hosts.MEMBER).write_text("{")
    assert hosts.is_shared(ctx.layout)
    with pytest.raises(hosts.SecondHost, match="has not shown that it sees"):
        hosts.check(hosts.standing(Layout(ctx.layout.root)))
    shared.unlink()
    hosts.check(hosts.standing(Layout(ctx.layout.root)))


# --- whose an attempt is


def test_a_note_that_a_crash_has_left_ends_no_attempt_of_another_host(ctx, started):
    """Its supervisor dies between the end of its ticket and of its note; the retry, whose ticket has the same name, runs elsewhere."""
    made = attempt(ctx, "h2")
    handed.note_taken(ctx.layout, made.ticket)
    handed.note_taken(ctx.layout, made.ticket, "h2")
    assert repair.repair(ctx, lambda _: None) == []
    assert started == []
    assert not attempts.is_sealed(made.dir)
    assert handed.taken(ctx.layout, "h1") == []
    assert handed.taken(ctx.layout, "h2") == [made.ticket]


def test_a_dead_attempt_whose_worker_has_spoilt_its_record_is_ended_by_its_own_host(ctx, started):
    made = attempt(ctx, "h1")
    handed.note_taken(ctx.layout, made.ticket)
    (made.dir / attempts.META).write_text("{")
    state = attempts.read_state(made.dir)
    attempts.write_state(made.dir, state.model_copy(update={"host": hosts.machine().host}))
    assert repair.repair(ctx, lambda _: None) == [made.dir.name]
    assert started == [made.dir.name]


@pytest.mark.parametrize("is_fenced", [False, True])
def test_an_attempt_of_the_host_that_had_this_ones_name_before_is_left_to_its_fence(ctx, started, is_fenced):
    """h1 stood still for long, another machine took its name, and h1 is back: what runs there is no dead attempt of here."""
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h1")  # its state is of another boot, and of a host of another name
    handed.note_taken(ctx.layout, made.ticket)
    assert repair.repair(ctx, lambda _: None) == []
    assert started == []
    watch, still = repair.SilenceWatch(), 1.2
    for now in (0.0, 1.0, 2.0) if is_fenced else (0.0, 1.0):
        watch.silent(ctx, {"h1"}, now, still)
    assert attempts.is_fenced(made.step_dir, names.run_id_of(made.dir.name)) == is_fenced


def test_a_loop_ends_whose_name_is_another_hosts_by_now(ctx):
    here = loop(ctx)
    here.turn()
    hosts.join(ctx.layout, member(ctx.layout, "h1", "boot-of-another"))
    beat = hosts.beat_of(ctx.layout, "h1")
    handed.note_taken(ctx.layout, "b.0000000.0123456789ab.command")
    here.next_beat = 0.0
    here.turn()
    assert here.is_over(None)
    here.end()
    assert hosts.beat_of(ctx.layout, "h1") == beat, "the other one writes that now"


@pytest.mark.parametrize("lives", [True, False])
def test_a_copy_of_a_machine_does_not_take_the_name_of_the_live_one(ctx, lives):
    """Machine-id and host name are the same, so it might be this one under an earlier start: but that would not beat."""
    here = hosts.machine()
    twin = member(ctx.layout, "h1", "boot-of-the-twin").model_copy(
        update={"machine_id": here.machine_id, "host": here.host}
    )
    hosts.join(ctx.layout, twin)
    beat = hosts.Beat(name="h1", boot_id=twin.boot_id, count=1, at=now_text(), capacity=4)
    hosts.write_beat(ctx.layout, beat)
    over = threading.Event()

    def go_on() -> None:
        count = 1
        while lives and not over.wait(0.05):
            hosts.write_beat(ctx.layout, beat.model_copy(update={"count": (count := count + 1)}))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        if lives:
            with pytest.raises(hosts.SecondHost, match="is called h1, as another host"):
                check_own(ctx)
        else:
            check_own(ctx)
    finally:
        over.set()
        thread.join()


def test_an_attempt_that_its_own_host_seals_just_then_stays_as_it_is(ctx, monkeypatch):
    made = attempt(ctx, "h2")
    copied = set_apart_module._copy

    def and_seal(source: Path, target: Path) -> None:
        copied(source, target)
        (made.dir / attempts.SEAL).write_text("{}")

    monkeypatch.setattr(set_apart_module, "_copy", and_seal)
    assert set_apart(made.dir) == made.dir.name
    assert os.listdir(made.step_dir / "attempts") == [made.dir.name]
    assert not os.listdir(ctx.layout.temp)


def test_an_old_note_of_a_live_host_hides_no_attempt_of_a_silent_one(ctx, started):
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h2")
    handed.note_taken(ctx.layout, made.ticket, "h2")
    handed.note_taken(ctx.layout, made.ticket, "h3")
    watch, still = repair.SilenceWatch(), 1.2
    for now in (0.0, 2.0, 4.0):
        watch.silent(ctx, {"h1", "h3"}, now, still)
    assert attempts.is_fenced(made.step_dir, names.run_id_of(made.dir.name))


def test_what_is_no_ticket_keeps_no_loop_from_its_work(ctx):
    for folder in ("handed", "taken"):
        (ctx.layout.runners / "h1" / folder / "notes").mkdir()
    (ctx.layout.runners / "h1" / "handed" / "b.0000000.0123456789ab.command").write_text('{"batch_id": ["no"]}')
    here = loop(ctx)
    here.turn()
    assert here.count == 1
    assert decider.decides(ctx.layout)
    assert here._gives() is not None
    assert handed.handed(ctx.layout, "h1") == []


# --- one end


def test_a_host_that_was_asked_late_ends_nothing_again(ctx, started):
    made = attempt(ctx, "h2")
    asked = made.assignment.model_copy(update={"dead": True, "fenced": True})
    attempts.fence(made.step_dir, names.run_id_of(made.dir.name), "h3")
    (made.dir / attempts.SEAL).write_text('{"files": {}}')
    before = sorted(os.listdir(made.step_dir))
    handed.hand(ctx.layout, "h1", made.ticket, asked)
    lock = locks.claim(made.step_dir / "step.lock")
    assert lock is not None
    loop(ctx)._take(0.0)
    assert locks.is_current(lock, made.step_dir / "step.lock"), "the lock may be that of the step's next attempt"
    os.close(lock)
    assert started == []
    assert handed.taken(ctx.layout, "h1") == []
    assert sorted({*os.listdir(made.step_dir)} - {"step.lock"}) == before
    handle = locks.claim(made.step_dir / "step.lock")
    assert handle is not None
    ended(ctx, asked.model_copy(update={"fenced": False}), handle)
    assert (made.dir / attempts.SEAL).read_text() == '{"files": {}}'
    assert [each.name for each in tickets.running(ctx.layout)] == [made.ticket]


def test_an_attempt_that_another_host_is_ending_is_ended_by_no_second_one(ctx, started):
    """Locks do not reach from host to host here, and whoever decides now is not the one who has asked."""
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h2")
    run_id = names.run_id_of(made.dir.name)
    attempts.fence(made.step_dir, run_id, "h1")
    handed.note_taken(ctx.layout, made.ticket, "h2")
    handed.hand(ctx.layout, "h3", made.ticket, made.assignment.model_copy(update={"dead": True, "fenced": True}))
    assert handed.take(as_host(ctx, "h3").layout, made.ticket)
    aside = made.step_dir / "fenced" / made.dir.name
    aside.parent.mkdir()
    made.dir.rename(aside)
    watch = repair.SilenceWatch()
    for now in range(50):
        assert watch.silent(ctx, {"h1", "h3"}, float(now), 1.2) == [], "h3 lives, and is at it"
    ((assignment, lock),) = watch.silent(ctx, {"h1"}, 51.0, 1.2)
    os.close(lock)
    assert assignment.attempt == made.dir.name, "h3 is silent too"


def test_a_host_that_does_not_take_what_it_was_asked_to_end_is_asked_no_more(ctx, started):
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h2")
    attempts.fence(made.step_dir, names.run_id_of(made.dir.name), "h1")
    handed.hand(ctx.layout, "h3", made.ticket, made.assignment.model_copy(update={"dead": True, "fenced": True}))
    watch, found = repair.SilenceWatch(), []
    for now in range(40):
        found += watch.silent(ctx, {"h1", "h3"}, float(now), 1.2)
        assert now > 10 or not found
    assert {assignment.attempt for assignment, _ in found} == {made.dir.name}
    assert handed.handed(ctx.layout, "h3") == []
    for _, lock in found:
        os.close(lock)


@pytest.mark.parametrize(("status", "stays"), [("queued", False), ("running", True), ("succeeded", True)])
def test_a_host_that_comes_back_while_it_launches_takes_away_nothing_that_another_has_begun(ctx, status, stays):
    made = attempt(ctx, "h2", status=status)
    has_right(ctx, 1, "h3")
    path = tickets.ready_path(ctx.layout, "k", made.ticket)
    assert not launch._move_ticket(ctx, path, "k", made.dir, "h2")
    assert made.dir.exists() == stays


def test_a_silence_is_said_by_no_host_that_decides_no_more(ctx):
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h2")
    watch = repair.SilenceWatch()
    watch.silent(ctx, {"h1"}, 0.0, 1.2)
    has_right(ctx, 2, "h3")
    before = (ctx.layout.batch(made.assignment.batch_id) / "ledger.jsonl").read_bytes()
    watch.silent(ctx, {"h1"}, 5.0, 1.2)
    assert not attempts.is_fenced(made.step_dir, names.run_id_of(made.dir.name))
    assert (ctx.layout.batch(made.assignment.batch_id) / "ledger.jsonl").read_bytes() == before


def test_a_copy_that_a_silent_host_had_begun_to_end_is_set_apart_too(ctx, started):
    """The host that ended what h2 had left stands still, and may go on with it at any time."""
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h2")
    run_id, handles = names.run_id_of(made.dir.name), []
    attempts.fence(made.step_dir, run_id, "h3")
    handed.note_taken(ctx.layout, made.ticket, "h2")
    copy = set_apart(made.dir)
    begun = (made.step_dir / "attempts" / copy / "stdout.log").open("w")
    watch, found = repair.SilenceWatch(), []
    for now in range(8):
        found += watch.silent(ctx, {"h1"}, float(now), 1.2)
    handles = [lock for _, lock in found]
    assert {(each.attempt, each.fenced) for each, _ in found} == {(copy, True)}
    (made.step_dir / "attempts" / copy).rename(made.step_dir / "fenced" / copy)  # killed between the two renames
    assert attempts.half_set_apart(made.step_dir) == copy, "not what it was a copy of"
    last = set_apart(made.step_dir / "attempts" / copy)
    begun.write("late")
    begun.close()
    assert os.listdir(made.step_dir / "attempts") == [last]
    assert (made.step_dir / "attempts" / last / "stdout.log").read_text() == ""
    line = json.loads((ctx.layout.batch(made.assignment.batch_id) / "ledger.jsonl").read_text().splitlines()[-1])
    assert (line["event"], line["became"]) == ("fenced", last)
    for lock in handles:
        os.close(lock)


def test_a_host_that_comes_back_ends_no_ticket_of_the_next_attempt(ctx):
    early = attempt(ctx, "h1", at=datetime(2026, 1, 1, tzinfo=UTC))
    attempt(ctx, "h2")
    handed.note_taken(ctx.layout, early.ticket)
    lock = locks.claim(early.step_dir / "step.lock")
    assert lock is not None
    ended(ctx, early.assignment.model_copy(update={"dead": True}), lock)
    assert attempts.is_sealed(early.dir)
    assert [each.name for each in tickets.running(ctx.layout)] == [early.ticket]
    assert tickets.ended(ctx.layout) == []


# --- locks that were taken away

WAITS = """
import sys
from parallelhassnes.store import locks
print("waits", flush=True)
with locks.held(sys.argv[1], 30):
    print("has it", flush=True)
    sys.stdin.read()
"""


def test_who_waits_for_a_lock_that_is_taken_away_waits_for_the_new_one(tmp_path):
    path = tmp_path / "tick.lock"
    old = locks.hold(path)
    assert old is not None
    waiter = subprocess.Popen(
        [sys.executable, "-c", WAITS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=CHECKOUT,
    )
    assert waiter.stdin is not None
    assert waiter.stdout is not None
    try:
        assert waiter.stdout.readline() == "waits\n"
        new = locks.take_away(path)
        locks.release(old)
        assert not select.select([waiter.stdout], [], [], 0.5)[0], "it holds a lock that excludes nobody"
        os.close(new)
        assert waiter.stdout.readline() == "has it\n"
    finally:
        waiter.kill()
        waiter.wait()
        waiter.stdin.close()
        waiter.stdout.close()


# --- what another host has decided


@pytest.mark.parametrize("given_up", [True, False])
def test_no_process_of_a_host_that_took_over_acts_before_it_sees_what_the_one_before_it_wrote(ctx, given_up):
    """A pass that a supervisor of this host runs asks the same as the host's loop."""
    before = clocks.boottime()
    has_right(ctx, 1, "h2", given_up=given_up)
    assert decider.claim_right(ctx.layout, decider.right(ctx.layout))
    assert not decider.decides(ctx.layout)
    run_pass(ctx)
    assert len(list(ctx.layout.ready.rglob("*.command"))) == 1, "nothing was launched"
    wait_for(lambda: decider.decides(ctx.layout), "the caches' time to pass", 20)
    assert clocks.boottime() - before >= 2 * hosts.cache_sec(ctx.layout)


def test_a_command_that_claims_a_right_that_another_host_gave_up_waits_for_what_that_one_wrote(ctx):
    has_right(ctx, 1, "h2", given_up=True)
    before = clocks.boottime()
    with decider.deciding_if_free(ctx.layout) as is_ours:
        assert is_ours
        assert decider.decides(ctx.layout)
        assert clocks.boottime() - before >= 2 * hosts.cache_sec(ctx.layout)
    right = decider.right(ctx.layout)
    assert right is not None
    assert right.given_up


def test_a_host_that_decided_last_itself_goes_on_at_once(ctx):
    assert decider.claim_right(ctx.layout, None)
    decider.give_up_right(ctx.layout)
    assert decider.claim_right(ctx.layout, decider.right(ctx.layout))
    assert decider.decides(ctx.layout)


# --- a runner that is told to end


def test_a_runner_that_is_told_to_end_lets_another_decide_while_its_last_attempt_goes_on(ctx):
    beats(ctx, "h2", 1)
    here = loop(ctx)
    here.turn()
    assert decider.decides(ctx.layout)
    made = attempt(ctx, "h1")
    lock = locks.claim(made.step_dir / "step.lock")
    assert lock is not None
    handed.note_taken(ctx.layout, made.ticket)
    here.told_to_end()
    beats(ctx, "h2", 2)
    here.turn()
    assert not here.is_over(None), "something runs here"
    os.close(lock)
    right = decider.right(ctx.layout)
    assert right is not None
    assert right.given_up
    other = as_host(ctx, "h2")
    assert decider.claim_right(other.layout, right)


def test_what_has_not_begun_when_its_runner_is_told_to_end_is_taken_back(ctx):
    has_right(ctx, 1, "h2")
    beats(ctx, "h2", 1)
    made = attempt(ctx, "h1", status="queued")
    lock = locks.claim(made.step_dir / "step.lock")
    assert lock is not None
    handed.hand(ctx.layout, "h1", made.ticket, made.assignment)
    here = loop(ctx)
    here.turn()
    assert handed.taken(ctx.layout, "h1") == [made.ticket], "it waits for the lock"
    here.told_to_end()
    here.turn()
    assert here.is_over(None)
    assert handed.take_back(ctx.layout, "h1", made.ticket)
    os.close(lock)


def test_a_runner_does_not_wait_for_an_attempt_of_its_own_that_was_given_up_and_is_dead(ctx, started):
    """Its host lost power, and the one that fenced it has ended since, so nobody is there to end it but whoever decides next."""
    made = attempt(ctx, "h1")
    state = attempts.read_state(made.dir)
    attempts.write_state(made.dir, state.model_copy(update={"host": hosts.machine().host}))
    handed.note_taken(ctx.layout, made.ticket)
    attempts.fence(made.step_dir, names.run_id_of(made.dir.name), "h2")
    here = loop(ctx)
    here.told_to_end()
    here.turn()
    assert here.is_over(None)
    assert started == []
    other, still = as_host(ctx, "h2"), 1.2
    has_right(ctx, 9, "h2")
    watch = repair.SilenceWatch()
    found = [each for now in (0.0, 1.3, 2.6, 5.0) for each in watch.silent(other, {"h1", "h2"}, now, still)]
    assert [(each.attempt, each.fenced) for each, _ in found] == [(made.dir.name, True)]
    os.close(found[0][1])


def test_a_runner_that_is_told_to_end_waits_for_no_note_that_a_crash_has_left(ctx):
    note = ctx.layout.runners / "h1" / "taken" / "b.0000000.0123456789ab.command"
    here = loop(ctx)
    here.turn()
    handed.note_taken(ctx.layout, note.name)
    here.told_to_end()
    here.turn()
    assert not here.is_over(None), "it may be about to run"
    beat = ctx.layout.runners / "h1" / hosts.BEAT
    write, later = hosts.write_beat, time.time() + 6
    here.next_beat = 0.0

    def write_later(*given) -> None:
        write(*given)
        os.utime(beat, (later, later))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hosts, "write_beat", write_later)
        here.turn()
    assert here.is_over(None)
    assert not note.exists()


@pytest.mark.parametrize("has_line", [False, True])
def test_what_a_host_has_left_with_nobody_gets_the_line_of_its_launch_before_it_is_handed_out_again(ctx, has_line):
    """The one that decided lost power when it had moved the ticket, before or after it wrote down the launch."""
    decider.claim_right(ctx.layout, None)
    made = attempt(ctx, "h2", status="queued")
    meta = attempts.read_meta(made.dir)
    if has_line:
        launch.record_if_missing(ctx, made.dir)
    watch = repair.SilenceWatch()
    for now in (0.0, 2.0):
        watch.silent(ctx, {"h1", "h2"}, now, 1.2)
    assert handed.handed(ctx.layout, "h2") == [made.ticket]
    lines = [line for _, line in ledger.read(ctx.layout.batch(meta.batch_id)) if line["event"] == "launched"]
    assert [(line["run_id"], line["attempt"]) for line in lines] == [(meta.run_id, made.dir.name)]


def test_a_host_that_stood_still_in_the_middle_of_a_line_writes_it_to_nothing_that_counts(ctx, monkeypatch):
    """It has read the end of the ledger, and stops; h1 takes over and adds a line; then the other goes on."""
    made = attempt(ctx, "h2")
    batch = ctx.layout.batch(made.assignment.batch_id)
    has_right(ctx, 1, "h2")
    wrote = ledger._write_whole

    def and_stand_still(handle: int, size: int, data: bytes) -> None:
        monkeypatch.undo()
        here, still = loop(ctx), hosts.still_sec(ctx.layout, ctx.config.heartbeat_sec)
        here._see_to_right(100.0 + still, {"h1"})
        wait_for(lambda: decider.decides(ctx.layout), "the caches' time to pass", 20)
        here._decide(100.0 + still)
        ledger.append(batch, "paused", reason="of the one that has taken over")
        wrote(handle, size, data)

    monkeypatch.setattr(ledger, "_write_whole", and_stand_still)
    with pytest.raises(OSError, match="another host has taken over meanwhile"):
        ledger.append(batch, "resumed", reason="of the one that stood still")
    lines = [line for _, line in ledger.read(batch)]
    assert [line["seq"] for line in lines] == list(range(len(lines)))
    assert lines[-1]["reason"] == "of the one that has taken over"
