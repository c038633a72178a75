"""What a process has imported, made ready to be shared with the workers that are forked from it.

A fork copies no memory until one side writes to it. Python writes where it only looks: the collector into every object that it walks, which
the launcher ends by ``gc.freeze``, and each use of an object into its count of references. So functions, classes and the like get the count
by which the interpreter knows ``None`` for *immortal* (PEP 683), and leaves it alone. They are there for as long as the process is anyway.
A worker copies a quarter less for it.

Python offers no call for that. The count is written to where CPython has it since 3.12, and only where a look afterwards finds that
it does what it should. Elsewhere memory is copied as it always was.
"""

import array
import ctypes
import functools
import gc
import itertools
import os
import sys
import sysconfig
import types
from collections.abc import Iterable

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


def make_immortal() -> None:
    """Have what is defined by now be shared for good; nothing happens where that is not possible."""
    if _is_possible():
        _give_count_of_none(_definitions())


def _definitions() -> list[object]:
    objects = gc.get_objects()
    wanted = {kind: kind in _DEFINITIONS or issubclass(kind, type) for kind in set(map(type, objects))}
    found = [each for each in objects if wanted[type(each)]]
    # The collector does not know of code.
    return [*found, *(each.__code__ for each in found if type(each) is types.FunctionType)]


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
