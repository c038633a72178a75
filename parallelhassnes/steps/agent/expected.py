"""The artifacts that a step must leave in its workspace."""

import json
import shutil
from pathlib import Path

from parallelhassnes.errors import UserError
from parallelhassnes.plan import ArtifactExpected
from parallelhassnes.steps import final_report, safe_read
from parallelhassnes.steps.agent.files import ARTIFACTS, ArtifactFacts

MOST_FILES = 100
MOST_BYTES = 256 << 20
"""Of one file; a larger one counts, and is not copied."""


def check(expected: ArtifactExpected, workspace: Path, into: Path, attempt_dir: Path) -> ArtifactFacts:
    """Look for an artifact and copy what is found, so that it outlives the workspace.

    Args:
        into: the agent's folder of the attempt.

    Raises:
        UserError: its glob leads out of the workspace.
    """
    if Path(expected.glob).is_absolute() or ".." in Path(expected.glob).parts:
        raise UserError(f"artifacts_expected: {expected.glob} leads out of the workspace", fix="name files below it")
    found = [path for path in sorted(workspace.glob(expected.glob)) if _is_inside(path, workspace)]
    facts = ArtifactFacts(name=expected.name, paths=[], problems=[])
    if not found:
        facts.problems.append(f"no file fits {expected.glob}")
    for path in found[:MOST_FILES]:
        relative = path.relative_to(workspace)
        facts.problems += [f"{relative}: {line}" for line in _problems(expected, path)]
        if path.stat().st_size <= MOST_BYTES:
            target = into / ARTIFACTS / expected.name / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            facts.paths.append(str(target.relative_to(attempt_dir)))
    return facts


def _is_inside(path: Path, workspace: Path) -> bool:
    """A regular file that lies in the workspace, also where links are followed."""
    return path.is_file() and path.resolve().is_relative_to(workspace.resolve())


def _problems(expected: ArtifactExpected, path: Path) -> list[str]:
    if expected.non_empty and path.stat().st_size == 0:
        return ["is empty"]
    if expected.json_schema is None:
        return []
    if path.stat().st_size > MOST_BYTES:
        return ["is too large to be looked into"]
    try:
        document = json.loads(safe_read.read_bytes(path, MOST_BYTES) or b"")
    except (ValueError, RecursionError):
        return ["is not JSON"]
    return final_report.problems(document, expected.json_schema)
