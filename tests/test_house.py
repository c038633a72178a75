"""The order of the house: nothing imports in a ring, a name stands for one thing, and no folder is a heap."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import parallelhassnes

PACKAGE = Path(parallelhassnes.__file__).parent
MOST_FILES = 21


def name_of(path: Path) -> str:
    parts = ("parallelhassnes", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it; those that only the type checker sees, or that a text names, among them."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (each.value for each in node.args if isinstance(each, ast.Constant))


GRAPH = {module: {found for found in imports(module) if found in MODULES and found != module} for module in MODULES}
"""Module → those that it imports. The package itself, which offers the names of its face, is nobody's import."""
del GRAPH["parallelhassnes"]


def assert_no_ring(graph: Mapping[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_modules_do_not_import_each_other_in_a_ring():
    assert_no_ring(GRAPH)


def test_nothing_imports_the_package_for_what_a_module_of_it_has():
    assert [
        module for module, found in GRAPH.items() if "parallelhassnes" in found and module != "parallelhassnes.__main__"
    ] == []


@pytest.mark.parametrize("folder", sorted(name_of(path) for path in PACKAGE.rglob("__init__.py")))
def test_what_a_folder_holds_does_not_import_each_other_in_a_ring(folder):
    def child(module: str) -> str | None:
        return module.removeprefix(f"{folder}.").split(".")[0] if module.startswith(f"{folder}.") else None

    between: dict[str, set[str]] = defaultdict(set)
    for module, found in GRAPH.items():
        if (own := child(module)) is not None:
            between[own] |= {other for each in found if (other := child(each)) not in (None, own)}
    assert_no_ring(between)


def test_no_module_name_stands_more_than_twice():
    counts = Counter(path.stem for path in MODULES.values() if path.stem != "__init__")
    assert {name: count for name, count in counts.items() if count > 2} == {}


def test_no_class_name_stands_twice():
    found = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module)
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


def test_the_words_for_how_things_stand_are_listed_once():
    from parallelhassnes.states import TERMINAL

    listing = [
        f"{module}:{node.lineno}"
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript | ast.Tuple | ast.List | ast.Set)
        and {each.value for each in ast.iter_child_nodes(node) if isinstance(each, ast.Constant)} >= {*TERMINAL}
    ]
    assert {each.partition(":")[0] for each in listing} <= {
        "parallelhassnes.states",
        "parallelhassnes.api.pages.charts",
    }, listing


def test_no_folder_is_a_heap():
    counts = Counter(path.parent.relative_to(PACKAGE).as_posix() for path in MODULES.values())
    assert {folder: count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_who_takes_a_key_or_a_place_apart_asks_its_owner():
    by_hand = re.compile(
        r"""\w+, _, step_id = |_id\}?/steps/\{|/steps/\{[^/]*/attempts/\{|"steps" / [\w.]+ / "attempts"|"steps", [\w.]+, "attempts\""""
    )
    known = {
        "places",
        "store.layout",
        "store.earlier_batches",
        "compat.hassnes",
    }  # the last two: other stores, and paths of HTTP
    found = {
        (module.removeprefix("parallelhassnes."), line.strip())
        for module, path in MODULES.items()
        for line in path.read_text().splitlines()
        if by_hand.search(line) and "/{step" not in line and "/{batch}" not in line
    }
    assert {(module, line) for module, line in found if module not in known} == set()


def test_the_former_path_of_the_sandbox_is_importable():
    """Stored plans hold it, and Harbor job configs of users."""
    from parallelhassnes import plan
    from parallelhassnes.sandbox.environment import SandboxEnvironment
    from parallelhassnes.steps.sandbox.environment import SandboxEnvironment as Former

    assert Former is SandboxEnvironment
    assert all(map(plan.is_sandbox, ("parallelhassnes.steps.sandbox.environment:SandboxEnvironment", plan.SANDBOX)))
    assert not plan.is_sandbox("my.sandbox:Environment")
