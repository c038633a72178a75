"""Task folders: what Harbor would skip without a word is named with file and line."""

import os
import shutil
from pathlib import Path

import pytest

from parallelhassnes.tables.expanders.tasks import TaskFilter, tasks_in
from parallelhassnes.tables.parse.located_errors import Problems

from .conftest import make_task

pytestmark = pytest.mark.harbor


def problems_of(folder: Path) -> list[str]:
    problems = Problems("t.json")
    tasks_in(folder, "/sweep/path", problems)
    return [problem.line() for problem in problems.found]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ('version = "1.0"\n[agent\n', "task.toml line 2: is not TOML"),
        ("a = ", "task.toml line 1: is not TOML"),
        ('[agent]\n\ntimeout_sec = "soon"\n', "task.toml line 3: agent.timeout_sec"),
        ('[task]\nname = "no-org"\n', "task.toml line 2: task.name"),
    ],
)
def test_a_task_toml_that_harbor_cannot_read(toml: str, line: str, tmp_path: Path) -> None:
    make_task(tmp_path / "bad", toml)
    make_task(tmp_path / "good")
    (found,) = problems_of(tmp_path)
    assert line in found


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("task.toml", "task.toml: is missing"),
        ("instruction.md", "instruction.md"),
        ("environment", "no environment/ folder"),
        ("tests", "tests/test.sh"),
    ],
)
def test_a_task_that_lacks_a_part(missing: str, message: str, tmp_path: Path) -> None:
    task = make_task(tmp_path / "bad")
    part = task / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    (found,) = problems_of(tmp_path)
    assert message in found


def test_an_instruction_that_is_not_utf8(tmp_path: Path) -> None:
    task = make_task(tmp_path / "bad")
    (task / "instruction.md").write_bytes("Créer".encode("latin-1"))
    (found,) = problems_of(tmp_path)
    assert "bad/instruction.md: is not UTF-8" in found


def test_a_task_whose_path_is_not_utf8(tmp_path: Path) -> None:
    make_task(tmp_path / os.fsdecode(b"t\xe9sk"))
    make_task(tmp_path / "good")
    (found,) = problems_of(tmp_path)
    assert found.endswith("its path is not UTF-8; rename it")


def test_a_task_of_terminal_bench_1(tmp_path: Path) -> None:
    (tmp_path / "old" / "tests").mkdir(parents=True)
    (tmp_path / "old" / "task.yaml").write_text("instruction: do it")
    (found,) = problems_of(tmp_path)
    assert "task.toml: is missing" in found
    assert "harbor tasks migrate" in found


def test_what_harbor_warns_of_is_a_warning_of_ours(tmp_path: Path) -> None:
    make_task(tmp_path / "a", 'artifacts = ["/app/x", "/app"]\n')
    problems = Problems("t.json")
    (_,) = tasks_in(tmp_path, "", problems)
    (warning,) = problems.warnings
    assert "a/task.toml: Artifact " in warning
    assert " overlap" in warning


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").write_text("nothing")
    (found,) = problems_of(tmp_path)
    assert "holds no task" in found


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    (found,) = problems_of(tmp_path / "x")
    assert "is not a folder" in found


def test_what_is_filtered_out_is_not_looked_at(tmp_path: Path) -> None:
    make_task(tmp_path / "a")
    make_task(tmp_path / "broken", "[")
    make_task(tmp_path / "c")
    problems = Problems("t.json")
    found = tasks_in(tmp_path, "", problems, TaskFilter(excluded=("bro*",), limit=1))
    assert [task.name for task in found] == ["a"]
    assert not problems


def test_the_hash_follows_the_content(tmp_path: Path) -> None:
    task = make_task(tmp_path / "a")
    problems = Problems("t.json")
    (before,) = tasks_in(task, "", problems)
    (task / "instruction.md").write_text("Something else.\n")
    (after,) = tasks_in(task, "", problems)
    assert before.checksum != after.checksum
    assert before.config == after.config == {"path": str(task)}
