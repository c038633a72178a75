"""Templates in prompts: the one environment that checks them at submit and renders them at launch.

``{{ job.labels.area }}``, ``{{ steps.review.report.summary }}``, ``{% if … %}``, ``{% raw %}``: Jinja in its sandbox.
A name that is not known is an error, at submit where the text alone shows it, else at launch. ``{# … #}`` is text
as any other, because prompts are full of it.

| name | what it is |
|---|---|
| ``batch`` | ``batch_id``, ``experiment``, ``goal``, ``labels`` |
| ``job`` | ``job_id``, ``labels`` |
| ``step`` | ``step_id`` |
| ``steps`` | step_id → ``report``, ``text``, ``status`` of a step of this job that has ended |
| ``jobs`` | job_id → ``labels``, ``steps`` |
| ``reports`` | of a step with ``fan_in``: a list of ``job_id``, ``step_id``, ``labels``, ``status``, ``report``, ``text`` |
| ``round`` | of a step in a loop: which round this is, from 1 |
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

NAMES = ("batch", "job", "jobs", "reports", "round", "step", "steps")
OF_BATCH = ("batch_id", "experiment", "goal", "labels")
OF_JOB = ("job_id", "labels")
OF_STEP = ("report", "status", "text")
_NEVER = "\0"


class _Environment(SandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """As Jinja's, but a label or a key of a report comes before a method of its name, such as ``items``."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


ENVIRONMENT = _Environment(
    undefined=StrictUndefined,
    autoescape=False,
    keep_trailing_newline=True,
    comment_start_string=f"{_NEVER}#",
    comment_end_string=f"#{_NEVER}",
)


class TemplateFault(NamedTuple):
    """What is wrong with a template."""

    line: int
    message: str


class Looked(NamedTuple):
    """What the text of a template shows without being rendered."""

    fault: TemplateFault | None
    unknown: tuple[str, ...]
    """Names at the top that are unknown."""
    paths: tuple[tuple[str, ...], ...]
    """Every chain of constants from a known name on, as ``("steps", "s1", "report", "summary")``."""
    guarded: frozenset[tuple[str, ...]]
    """Chains that are asked for with ``is defined`` or ``default``, so that they may be missing."""


def is_template(text: str) -> bool:
    """Tell whether there is anything to render in a text."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=1024)
def look(text: str) -> Looked:
    """Parse a template."""
    try:
        tree = ENVIRONMENT.parse(text)
        ENVIRONMENT.compile(tree)
    except TemplateSyntaxError as error:
        return Looked(TemplateFault(error.lineno, str(error.message)), (), (), frozenset())
    names = find_undeclared_variables(ENVIRONMENT.parse(text)) - set(ENVIRONMENT.globals)
    found: list[tuple[str, ...]] = []
    guarded: set[tuple[str, ...]] = set()
    for path, is_guarded in _chains(ENVIRONMENT.parse(text), guarded=False):
        if path[0] in names & set(NAMES):
            found.append(path)
            if is_guarded:
                guarded.add(path)
    return Looked(None, tuple(sorted(names - set(NAMES))), tuple(dict.fromkeys(found)), frozenset(guarded))


def render(text: str, context: dict[str, Any]) -> str:
    """Return the text with everything filled in; raises jinja2's TemplateError, as for a name that is not known."""
    return ENVIRONMENT.from_string(text).render(context)


def holds(expression: str, context: dict[str, Any]) -> bool:
    """Tell whether an expression is true.

    Raises:
        TemplateError: it is not an expression, or asks for something that is not there.
    """
    compiled = ENVIRONMENT.compile_expression(expression, undefined_to_none=False)
    found = compiled(**context)
    if isinstance(found, StrictUndefined):
        raise TemplateError(found._undefined_message)  # noqa: SLF001 - jinja's own words
    return bool(found)


def expression_fault(expression: str) -> str | None:
    """Tell why a text is no expression; None where it is one."""
    try:
        ENVIRONMENT.compile_expression(expression)
    except TemplateSyntaxError as error:
        return str(error.message)
    return None


def _chains(node: nodes.Node, *, guarded: bool) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield every longest chain of constants that begins with a name, and whether it may be missing."""
    path = _chain(node)
    if path is not None:
        yield path, guarded
        return
    asks = isinstance(node, nodes.Test) and node.name in ("defined", "undefined")
    defaults = isinstance(node, nodes.Filter) and node.name in ("default", "d")
    for child in node.iter_child_nodes():
        is_subject = isinstance(node, nodes.Test | nodes.Filter) and child is node.node
        yield from _chains(child, guarded=(asks or defaults) and is_subject)


def _chain(node: nodes.Node) -> tuple[str, ...] | None:
    if isinstance(node, nodes.Name):
        return (node.name,) if node.ctx == "load" else None
    if isinstance(node, nodes.Getattr):
        before = _chain(node.node)
        return None if before is None else (*before, node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        before = _chain(node.node)
        return None if before is None else (*before, str(node.arg.value))
    return None
