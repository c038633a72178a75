"""Datasets and single tasks that come over the network, by Harbor's own clients."""

import asyncio
import subprocess
import warnings
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from parallelhassnes.errors import UserError
from parallelhassnes.tables.expanders.expansion import Expansion
from parallelhassnes.tables.expanders.tasks import FoundTask, TaskFilter

_MOST_CAUSES = 5


def run_async[T](work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in an event loop of its own, also where the caller is inside another one."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result()


def harbor_plan(config: Any) -> Any:
    """Return ``JobPlan.from_config``, its failures as one line.

    Raises UserError: the dataset is unknown or empty, the network or git failed.
    """
    import httpx
    from harbor.job_plan import JobPlan

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run_async(JobPlan.from_config(config))
    except subprocess.CalledProcessError as error:
        last = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        raise UserError(f"git failed: {last[-1] if last else error}") from None
    except httpx.HTTPError as error:
        raise UserError(
            f"the registry could not be reached: {error or type(error).__name__}",
            fix="check the network, or use a local path",
        ) from None
    except (ValueError, OSError, RuntimeError, LookupError) as error:
        if unreachable := _unreachable(error):
            raise UserError(
                f"the registry could not be reached: {unreachable}", fix="check the network, or use a local path"
            ) from None
        raise UserError(_causes(error)) from None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came of, the outermost first."""
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _unreachable(error: BaseException) -> str:
    """Return why the network failed, where that is what the error came of."""
    import httpx

    return next((str(each) or type(each).__name__ for each in _chain(error) if isinstance(each, httpx.HTTPError)), "")


def _causes(error: BaseException) -> str:
    """Return what an error says, and what it came of, in one line."""
    lines = [(str(each).strip() or type(each).__name__).splitlines()[0].rstrip(".") for each in _chain(error)]
    return ": ".join(dict.fromkeys(lines))


def dataset_tasks(text: str, at: str, wanted: TaskFilter, context: Expansion) -> list[FoundTask]:
    """Return the tasks of ``name@version`` (registry) or ``org/name@ref`` (package), downloaded."""
    from harbor.models.job.config import DatasetConfig, JobConfig

    if context.defaults.no_network:
        context.problems.add(at, "has to be downloaded, and the network is switched off")
        return []
    name, _, version = text.partition("@")
    version_key = "ref" if "/" in name else "version"
    try:
        dataset = DatasetConfig.model_validate(
            {
                "name": name,
                version_key: version or None,
                "task_names": list(wanted.names) or None,
                "exclude_task_names": list(wanted.excluded) or None,
                "n_tasks": wanted.limit,
            }
        )
        plan = harbor_plan(JobConfig(datasets=[dataset]))
    except ValidationError as error:
        context.problems.add_validation(at, error)
        return []
    except UserError as error:
        context.problems.add(at, error.message, error.fix)
        return []
    return found_tasks(plan)


def found_tasks(plan: Any) -> list[FoundTask]:
    """Return the tasks of a Harbor plan, in its order, with the content hash where Harbor knows it."""
    hashes = {lock.task.name: lock.task.digest for lock in plan.trial_locks if lock.task}
    found = []
    for task in plan.task_configs:
        name = task.get_task_id().get_name()
        config = task.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        if task.path is not None and not task.is_git_task():
            config["path"] = str(task.get_local_path())
        found.append(FoundTask(name, config, hashes.get(name, "")))
    return found


def download(tasks: list[dict[str, Any]]) -> None:
    """Bring git and package tasks into Harbor's cache, before attempts would race for it.

    Raises UserError.
    """
    if not tasks:
        return
    from harbor.models.job.config import JobConfig

    harbor_plan(JobConfig.model_validate({"tasks": tasks}))
