"""What a trial's workers share with the process that they were forked from stays shared when they use it."""

import json

import pytest
from stores import python

PROGRAM = """
import gc, json, os, sys
import asyncio, decimal, email, http.client, logging, pydantic, types, xml.dom.minidom
from parallelhassnes.execute import shared_heap


def private_kb():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def copied():
    "What a fork copies that refers to each function once."
    found = [each for each in functions]
    reading, writing = os.pipe()
    if os.fork() == 0:
        before = private_kb()
        for each in found:
            again = each
        os.write(writing, str(private_kb() - before).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 99))


class Mine:
    held = [1, 2]


functions = [each for each in gc.get_objects() if callable(each)]
gc.freeze()
before = copied()
gc.unfreeze()
name = logging.Logger.findCaller.__code__.co_names[-1]
instance, work = Mine(), [[n] for n in range(1000)]
callers = sys.modules["callers"] = types.ModuleType("callers")
callers.__file__, callers.work = "/nowhere/callers.py", [1, 2]
shared_heap.share()
gc.freeze()
after = copied()
is_immortal = [sys.getrefcount(each) == sys.getrefcount(None) for each in (Mine, copied, copied.__code__, logging.root, logging.Logger.manager, name, instance, work, Mine.held, callers.work)]
print(json.dumps([before, after, is_immortal]))
"""


def run(program: str, **more: str) -> str:
    done = python(program, env=more, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_is_defined_is_not_copied_for_being_used_and_what_is_worked_on_can_go():
    before, after, is_immortal = json.loads(run(PROGRAM))
    assert is_immortal == [True] * 6 + [False] * 4
    assert after < before / 3


GAPS = """
import gc, json, os, sys
from parallelhassnes.execute import shared_heap


def private_kb():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))


def copied():
    "What a fork copies that makes new objects."
    reading, writing = os.pipe()
    if os.fork() == 0:
        before = private_kb()
        small = [bytes(40) for _ in range(2000)]
        large = [bytes(1000) for _ in range(200)]
        os.write(writing, str(private_kb() - before).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reading, 99))


small, large = [bytes(40) for _ in range(200_000)], [bytes(1000) for _ in range(20_000)]
del small[::50], large[::50]
gc.freeze()
before = copied()
shared_heap.share()
print(json.dumps([before, copied()]))
"""


def test_what_is_new_is_not_written_into_the_gaps_of_what_is_old():
    """Nearly all pages of these objects have a gap. A fork that fills gaps copies a page for each."""
    before, after = json.loads(run(GAPS))
    assert before > 4000
    assert after < before / 4


@pytest.mark.parametrize("allocator", ["malloc", "debug"])
def test_other_allocators_are_left_alone(allocator):
    run(
        "from parallelhassnes.execute import shared_heap; shared_heap.share(); assert len(shared_heap._kept) < 200",
        PYTHONMALLOC=allocator,
    )
