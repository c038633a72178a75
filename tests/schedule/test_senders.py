"""Who sends beside passes: one of a kind, from before its program is loaded."""

import os

import pytest
from stores import context, wait_for

from parallelhassnes.schedule import checkpointing
from parallelhassnes.schedule.context import ENTRY_POINTS
from parallelhassnes.schedule.process import archiving, notifying, senders
from parallelhassnes.store import locks

RETURNED = 7
KINDS = {
    "notices": (notifying.sending_lock, notifying.SENDER, ()),
    "archive": (archiving.sending_lock, archiving.SENDER, ()),
    "checkpoints": (checkpointing._sending_lock, ENTRY_POINTS, ("send_checkpoints",)),
}


def begun(root, lock, module, arguments):
    """Fork, and become the program there; the child's pid, and a pipe that ends once it is that program or has ended."""
    ours, its = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            senders.become(lock, module, *arguments, str(root))
        finally:
            os._exit(RETURNED)
    os.close(its)
    return child, ours


def code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sender_holds_its_lock_from_before_it_is_loaded_so_that_no_other_is_loaded(root, kind):
    layout = context(root).layout
    place, module, arguments = KINDS[kind]
    lock = place(layout)
    lock.parent.mkdir(parents=True, exist_ok=True)
    first, pipe = begun(root, lock, module, arguments)
    with os.fdopen(pipe, "rb") as began:
        assert began.read() == b""
    assert locks.is_held(lock), "it has not loaded what it needs yet"
    second, pipe = begun(root, lock, module, arguments)
    os.close(pipe)
    assert code(second) == RETURNED, "it has become nothing"
    assert code(first) == 0
    wait_for(lambda: not locks.is_held(lock), "the lock")


def test_a_lock_that_a_process_was_started_with_is_held_once_and_by_this_process_alone(tmp_path):
    path = tmp_path / "a.lock"
    handle = locks.claim(path)
    os.set_inheritable(handle, True)
    locks.inherit(handle)
    assert not os.get_inheritable(handle), "what this process starts would hold it, too"
    assert locks.hold(tmp_path / "another.lock") != handle
    assert locks.hold(path) == handle
    assert locks.hold(path) is None
    locks.release(handle)
    assert not locks.is_held(path)
