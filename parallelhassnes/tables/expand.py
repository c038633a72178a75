"""A launch table in, a plan out: the one door of this package.

Everything that is wrong with a table is found before anything is raised. Nothing is written; git and
package tasks are brought into Harbor's cache.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from parallelhassnes.config import Budget
from parallelhassnes.errors import InvalidInput, UserError
from parallelhassnes.names import BATCH_FILES, Ids, nearest
from parallelhassnes.plan import Plan, Preregistration
from parallelhassnes.tables.expanders.analyses import limits as analysis_limits
from parallelhassnes.tables.expanders.analyses import parts
from parallelhassnes.tables.expanders.analyses import told_verdicts as told
from parallelhassnes.tables.expanders.dependencies import wire
from parallelhassnes.tables.expanders.expansion import Draft, Expansion, TableDefaults
from parallelhassnes.tables.expanders.plan_check import check_graph, finish
from parallelhassnes.tables.expanders.steps import explicit_jobs
from parallelhassnes.tables.expanders.task_env import check_taken
from parallelhassnes.tables.expanders.trials import TrialExpander
from parallelhassnes.tables.formats import earlier_tables
from parallelhassnes.tables.formats.datasets import download
from parallelhassnes.tables.formats.foreign_formats import from_oddish, recognise
from parallelhassnes.tables.formats.harbor_job import expand_harbor_job
from parallelhassnes.tables.formats.imported_job import expand_imported_job
from parallelhassnes.tables.formats.regrade_table import expand_regrade
from parallelhassnes.tables.formats.sweep import expand_sweep
from parallelhassnes.tables.model import PRIORITY_WORDS, Sweep, TableHead
from parallelhassnes.tables.parse.field_names import check_keys, known_keys
from parallelhassnes.tables.parse.load import load
from parallelhassnes.tables.parse.located_errors import Problems
from parallelhassnes.tables.parse.secret_check import check_names, check_shapes
from parallelhassnes.tables.parse.table_paths import Bases

__all__ = ["TableDefaults", "expand", "expand_document"]
HEAD_KEYS, SWEEP_KEYS = known_keys(TableHead), known_keys(Sweep)


def expand(data: bytes, *, name: str, base_dirs: list[Path], defaults: TableDefaults | None = None) -> Plan:
    """Return the plan of the table in ``data``; ``name`` is its file name, for messages and for telling YAML from JSON.

    A relative path in the table is looked for in each of ``base_dirs``, in order.

    Raises InvalidInput with every problem at once.
    """
    with _collector_paused():
        return expand_document(load(data, name), name=name, base_dirs=base_dirs, defaults=defaults)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection meanwhile: 100,000 steps have no cycles, and looking for some takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def expand_document(document: Any, *, name: str, base_dirs: list[Path], defaults: TableDefaults | None = None) -> Plan:
    """As ``expand``, for a table that is a document already."""
    problems = Problems(name)
    shape = recognise(document, problems)
    if shape is None:
        raise InvalidInput(problems.found)
    check_shapes(document, problems)
    context = Expansion(problems, Bases(base_dirs), defaults or TableDefaults())
    context.forgiving = shape == "parallelhassnes-1"
    if shape == "harbor-job":
        plan = expand_harbor_job(document, context)
    elif shape == "imported-job":
        plan = expand_imported_job(document, context)
    elif shape == "regrade":
        plan = expand_regrade(document, context)
    else:
        strip = ""
        if shape == "oddish-sweep":
            document, strip = from_oddish(document, problems)
        elif shape == "parallelhassnes-1":
            document = earlier_tables.turned(document, problems)
        plan = _own(document, context)
        if strip:
            problems.found = [each._replace(pointer=each.pointer.removeprefix(strip)) for each in problems.found]
    named = document.get("secrets")
    passed = {*context.defaults.secrets, *context.used_variables}
    passed |= {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
    needed = check_taken(context.taken, passed, problems)
    problems.raise_any()
    if plan is None:
        raise UserError(f"{name}: could not be expanded")
    plan.table_format = shape
    plan.warnings = tuple(problems.warnings)
    plan.secrets = tuple(dict.fromkeys([*plan.secrets, *context.used_variables, *needed]))
    return plan


def _own(document: dict[str, Any], context: Expansion) -> Plan | None:
    problems = context.problems
    above = {key: value for key, value in document.items() if key != "jobs"}
    check_keys(problems, "", TableHead, above, also=frozenset({"jobs"}))
    head: TableHead | None = None
    try:
        head = TableHead.model_validate(above)
    except ValidationError as error:
        problems.add_validation("", error)
        head = _as_meant(above, error)
    usable = head or TableHead()
    named = above.get("secrets")
    secrets = check_names(named if isinstance(named, list) else [], "/secrets", problems)
    limits = {context.key(key, "/limits"): count for key, count in usable.limits.items()}
    for asked in (usable.analysis, usable.sweep.analysis if usable.sweep else None):
        for key, limit in analysis_limits(parts(asked), context).items():
            limits.setdefault(key, limit)
    trials = TrialExpander(context)
    drafts: list[Draft] = []
    if "jobs" in document:
        drafts += explicit_jobs(document["jobs"], usable, context, trials)
    sweep = usable.sweep
    if sweep is not None:
        taken = Ids((*BATCH_FILES, *(draft.job_id for draft in drafts)))
        retry = context.retry(usable.retry)
        drafts += expand_sweep(
            sweep,
            "/sweep",
            context,
            trials,
            retry,
            taken,
            usable.analysis,
            baseline_gate=usable.baseline_gate,
            passing=usable.pass_,
            head=usable,
        )
    drafts = told(drafts, usable.verdict, context)
    if not drafts and not problems:
        problems.add("/jobs", "is empty", "write a job, or a sweep")
    drafts = wire(drafts, usable, context)
    check_graph(drafts, problems, partial=bool(problems))
    if problems:
        return None
    _download(trials, problems)
    priority = usable.priority
    if priority is None and sweep is not None and sweep.priority is not None:
        word = sweep.priority
        priority = PRIORITY_WORDS[word] if isinstance(word, str) else word
    labels = dict(usable.labels)
    if sweep is not None:
        labels |= sweep.tags or {}
        labels |= {"user": sweep.user} if sweep.user else {}
    return Plan(
        table_format="parallelhassnes-2",
        experiment=usable.experiment or (sweep.experiment_id if sweep else None) or "",
        goal=usable.batch_goal_summary or "",
        plan=Preregistration.model_validate(usable.plan.model_dump()) if usable.plan else None,
        labels=labels,
        priority=priority or 0,
        concurrency=usable.concurrency,
        limits=limits,
        budget=Budget.model_validate(usable.budget.model_dump()) if usable.budget else None,
        secrets=secrets,
        jobs=finish(drafts),
    )


def _as_meant(above: dict[str, Any], error: ValidationError) -> TableHead | None:
    """Return a table with its unknown keys read as what they were probably meant to be, so that what is wrong besides is found, too.

    None where it would still be none; the unknown keys are reported already.
    """
    document = deepcopy(above)
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        if item["type"] != "extra_forbidden":
            return None
        *way, key = item["loc"]
        place: Any = document
        for part in way:
            here = dict(enumerate(place)) if isinstance(place, list) else place
            if isinstance(here, dict) and part in here:
                place = here[part]
        if not isinstance(place, dict) or key not in place:
            return None
        value = place.pop(key)
        known = SWEEP_KEYS if place is document.get("sweep") else HEAD_KEYS if place is document else frozenset()
        if (meant := nearest(str(key), known)) is not None:
            place.setdefault(meant, value)
    try:
        return TableHead.model_validate(document)
    except ValidationError:
        return None


def _download(trials: TrialExpander, problems: Problems) -> None:
    try:
        download(list(trials.remote.values()))
    except UserError as error:
        problems.add("", f"a task could not be downloaded: {error.message}", error.fix)
