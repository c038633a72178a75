"""What a process has imported, made ready to be shared with the workers that are forked from it.

A fork copies no memory until one side writes to it. Python writes where it only looks: the collector into every object that it walks, which
the launcher ends by ``gc.freeze``, and each use of an object into its count of references. So functions, classes and the like get the count
by which the interpreter knows ``None`` for *immortal* (PEP 683), and leaves it alone. They are there for as long as the process is anyway.
What modules and classes of libraries, and ours, have by a name gets it, too, and so do the names.
It writes, further, what is new into the gaps of what is old, a page for a few bytes. So the gaps are filled before the fork, and what is
new lies together. A worker copies half as much for both.

Python offers no call for the first. The count is written to where CPython has it since 3.12, and only where a look afterwards finds that
it does what it should. Gaps are filled where allocators answer as CPython's and glibc's do. Elsewhere memory is copied as it always was.
"""

import array
import contextlib
import ctypes
import functools
import gc
import itertools
import os
import sys
import sysconfig
import types
from collections.abc import Iterable
from pathlib import Path

_LAYOUTS_KNOWN = ((3, 12), (3, 13), (3, 14))
_AT_ONCE = 1024
"""What the kernel takes in one call (``IOV_MAX``)."""
_COUNT_SIZE = 4
_DEFINITIONS = frozenset(
    {
        types.FunctionType,
        types.CodeType,
        types.BuiltinFunctionType,
        types.MethodDescriptorType,
        types.WrapperDescriptorType,
        types.ClassMethodDescriptorType,
        types.GetSetDescriptorType,
        types.MemberDescriptorType,
        types.MethodType,
        types.ModuleType,
        types.CellType,
        types.GenericAlias,
        types.UnionType,
        types.MappingProxyType,
        functools.partial,
        functools.cached_property,
        property,
        classmethod,
        staticmethod,
        tuple,
        frozenset,
    }
)
"""Exactly these types, and classes. No list, dict or instance: what a caller works on lies in such, and is to go when it is done."""


_PLACES = tuple(
    f"{place}/"
    for place in (*map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")), Path(__file__).parents[1])
)
"""Where modules are whose values stay: libraries, and we. What a caller's own modules have may be what it works on."""
_POOL_SIZE, _HEAD_SIZE, _LARGEST_BLOCK = 1 << 14, 48, 512
"""Of CPython's allocator: blocks of one size lie in a pool, after its head."""
_MOST_FILLED = 1 << 20
"""Bytes that blocks of one size are filled with at most."""
_kept: list[list[object]] = []


def share() -> None:
    """Have what is there by now be shared with whoever is forked from this process; nothing happens where that is not possible."""
    if not _is_possible():
        return
    with contextlib.suppress(OSError):  # one that lies where nobody may write: the rest is copied as ever
        _give_count_of_none(_definitions())
    if _fill_pools():
        _fill_heap()


def _definitions() -> list[object]:
    objects = gc.get_objects()
    wanted = {kind: kind in _DEFINITIONS or issubclass(kind, type) for kind in set(map(type, objects))}
    found = [each for each in objects if wanted[type(each)]]
    # The collector does not know of code.
    codes = [each.__code__ for each in found if type(each) is types.FunctionType]
    names: set[str] = set()
    while codes:
        found += codes
        names.update(*(each.co_names for each in codes))
        parts = [part for each in codes for part in each.co_consts]
        found += parts
        codes = [part for part in parts if type(part) is types.CodeType]
    staying = {name: module for name, module in tuple(sys.modules.items()) if _stays(name, module)}
    found += map(vars, staying.values())
    classes = [each for each in objects if issubclass(type(each), type) and vars(each).get("__module__") in staying]
    for owner in (*staying.values(), *classes):
        names.update(vars(owner))
        found += vars(owner).values()
    return [*found, *names]


def _stays(name: str, module: object) -> bool:
    return name in sys.builtin_module_names or str(getattr(module, "__file__", None)).startswith(_PLACES)


def _fill_pools() -> bool:
    """Take the free blocks of all pools that have some, for good; False where the allocator is another one."""
    for size in range(_LARGEST_BLOCK, 0, -16):
        taken = 0
        while taken < _MOST_FILLED:
            blocks = [_block(size) for _ in range(16)]
            _kept.append(blocks)
            taken += 16 * size
            if _are_fresh(list(map(id, blocks)), size):
                break
        else:
            if size == _LARGEST_BLOCK:
                return False
    return True


def _block(size: int) -> object:
    """Return an object of so many bytes."""
    if size == 16:
        return object()
    return float("0.5") if size == 32 else bytes(size - sys.getsizeof(b""))


def _are_fresh(places: list[int], size: int) -> bool:
    """Tell whether some of these blocks are the first of a pool, which is used when no other has room."""
    return any(
        first % _POOL_SIZE == _HEAD_SIZE and (second, third) == (first + size, first + 2 * size)
        for first, second, third in zip(places, places[1:], places[2:], strict=False)
    )


class _MallocState(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    )


def _fill_heap() -> None:
    """Take what glibc has free below the top of its heap, for good."""
    libc = ctypes.CDLL(None)
    try:
        state, end, take, give_back = libc.mallinfo2, libc.sbrk, libc.malloc, libc.free
    except AttributeError:  # another C library
        return
    state.restype = _MallocState
    end.restype = take.restype = ctypes.c_void_p
    take.argtypes, give_back.argtypes = (ctypes.c_size_t,), (ctypes.c_void_p,)
    top, size = end(0) - state().keepcost, 1 << 16
    while size >= 24:
        place = take(size)
        if not place or place >= top:
            give_back(place)
            size = size * 3 // 4


def _is_possible() -> bool:
    """Try it with one object."""
    if (
        sys.implementation.name != "cpython"
        or sys.version_info[:2] not in _LAYOUTS_KNOWN
        or sysconfig.get_config_var("Py_GIL_DISABLED")
        or hasattr(sys, "getobjects")  # built to trace references: the count lies elsewhere
        or sys.byteorder != "little"
        or sys.maxsize != 2**63 - 1
    ):
        return False
    tried = frozenset({"an object of nobody's"})
    try:
        _give_count_of_none([tried])
    except OSError:
        return False
    more = [tried] * 3
    return len(more) == 3 and sys.getrefcount(tried) == sys.getrefcount(None)


def _give_count_of_none(objects: Iterable[object]) -> None:
    """Give the objects the count of references that ``None`` has: a thousand by one call of the kernel, which reads it from a file to each.

    Raises:
        OSError: the kernel would not.
    """
    count = ctypes.string_at(id(None), _COUNT_SIZE)
    preadv = ctypes.CDLL(None, use_errno=True).preadv
    preadv.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_long)
    preadv.restype = ctypes.c_ssize_t
    places = map(id, objects)
    file = os.memfd_create("count")
    try:
        os.write(file, count * _AT_ONCE)
        while some := list(itertools.islice(places, _AT_ONCE)):
            vectors = array.array("Q", [_COUNT_SIZE]) * (2 * len(some))
            vectors[0::2] = array.array("Q", some)
            if preadv(file, vectors.buffer_info()[0], len(some), 0) != len(some) * _COUNT_SIZE:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), "preadv")
    finally:
        os.close(file)
