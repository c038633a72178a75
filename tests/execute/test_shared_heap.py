"""What a trial's workers share with the process that they were forked from stays shared when they use it."""

import json

from stores import python

PROGRAM = """
import gc, json, os, sys
import asyncio, decimal, email, http.client, logging, pydantic, xml.dom.minidom
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
    pass


functions = [each for each in gc.get_objects() if callable(each)]
gc.freeze()
before = copied()
gc.unfreeze()
instance, work = Mine(), [[n] for n in range(1000)]
shared_heap.make_immortal()
gc.freeze()
after = copied()
is_immortal = [sys.getrefcount(each) == sys.getrefcount(None) for each in (Mine, copied, copied.__code__, instance, work)]
print(json.dumps([before, after, is_immortal]))
"""


def test_what_is_defined_is_not_copied_for_being_used_and_what_is_worked_on_can_go():
    done = python(PROGRAM, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    before, after, is_immortal = json.loads(done.stdout)
    assert is_immortal == [True, True, True, False, False]
    assert after < before / 3
