"""Git worktrees for isolated workspaces.

    <repository's common .git>/parallelhassnes.lock   held while worktrees of that repository are made or removed
    <root>/worktrees/<batch_id>/<run_id>              the worktree, detached at its base

``run.json`` names the worktree before it is made, so that whoever ends a dead attempt finds it, also half made. What
changed is taken by way of an index and an object folder of our own: nothing is added to the repository, and nothing
is committed.
"""

import contextlib
import json
import math
import os
import subprocess
from pathlib import Path
from typing import IO, NamedTuple

from parallelhassnes import walk
from parallelhassnes.errors import UserError, why_not_started
from parallelhassnes.store import atomic, locks

LOCK = "parallelhassnes.lock"
PATCH, STATUS, HEAD, TOUCHED = ("git_diff.patch", "git_status.txt", "git_head.txt", "touched_files.json")
_AS_PATCH = (
    "--cached",
    "--binary",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)
"""One that can be applied, whatever the user's own settings."""
_WAIT_SEC = 600.0


class Source(NamedTuple):
    """A folder in a repository."""

    top: Path
    """The top folder of its work tree."""
    common: Path
    """The repository's own folder, shared by all its worktrees."""
    inside: Path
    """The folder, relative to ``top``."""
    base: str
    """A commit's full name."""


def look(folder: Path, base: str) -> Source:
    """Return the repository around a folder.

    Raises:
        UserError: it is in none, or there is no such commit.
    """
    if not folder.is_dir():
        raise UserError(f"folder {folder} does not exist", fix="correct working_directory")
    found = _git(folder, "rev-parse", "--show-toplevel", "--git-common-dir")
    if found.returncode != 0:
        raise UserError(
            f"{folder} is in no git repository ({_said(found)})",
            fix="an isolated workspace needs one; or use the mode shared",
        )
    top, common = found.stdout.splitlines()
    commit = _git(folder, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}")
    if commit.returncode != 0:
        raise UserError(f"{top} has no commit {base!r}", fix="correct workspace_policy.base")
    return Source(
        Path(top), (folder / common).resolve(), folder.resolve().relative_to(Path(top).resolve()), commit.stdout.strip()
    )


def add(source: Source, path: Path) -> None:
    """Make a worktree at its base; one at a time in a repository.

    Raises:
        UserError: git refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(source.common / LOCK, math.inf):
        made = _git(source.top, "worktree", "add", "--quiet", "--detach", str(path), source.base)
    if made.returncode != 0:
        raise UserError(f"git cannot make a worktree of {source.top}: {_said(made)}")


def apply(path: Path, patch: Path) -> None:
    """Put another worktree's changes into this one.

    Raises:
        UserError: they do not fit.
    """
    if patch.stat().st_size == 0:
        return
    done = _git(path, "apply", "--binary", "--whitespace=nowarn", str(patch.resolve()))
    if done.returncode != 0:
        raise UserError(f"{patch} does not apply to {path}: {_said(done)}")


def capture(path: Path, base: str, into: Path) -> tuple[str, list[str]]:
    """Write what changed in a worktree since ``base`` into a folder; its head and the files touched.

    Raises:
        UserError: git refuses; the worktree is none any more, and another repository around it is not taken for it.
    """
    here = {"GIT_CEILING_DIRECTORIES": str(path.parent)}
    common = Path(_must(path, "rev-parse", "--git-common-dir", env=here).stdout.strip())
    objects = into / "tmp_objects"
    objects.mkdir(exist_ok=True)
    own = here | {
        "GIT_INDEX_FILE": str(objects.resolve() / "index"),
        "GIT_OBJECT_DIRECTORY": str(objects.resolve()),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((path / common).resolve() / "objects"),
    }
    try:
        head = _must(path, "rev-parse", "HEAD", env=here).stdout.strip()
        status = _must(path, "status", "--porcelain=v1", "--untracked-files=all", env=here).stdout
        _must(path, "read-tree", base, env=own)
        _must(path, "add", "--all", env=own)
        for name in (PATCH, HEAD, STATUS, TOUCHED):  # where an agent made a link, we would write behind it
            (into / name).unlink(missing_ok=True)
        with (into / PATCH).open("xb") as out:
            _must(path, "diff", *_AS_PATCH, base, env=own, out=out)
        names = _must(path, "diff", "--cached", "--name-only", "-z", "--no-renames", base, env=own)
    finally:
        _remove(objects)
    touched = [name for name in names.stdout.split("\0") if name]
    atomic.write_text(into / HEAD, f"{head}\n", durable=False)
    atomic.write_text(into / STATUS, status, durable=False)
    atomic.write_text(into / TOUCHED, json.dumps(touched) + "\n", durable=False)
    return head, touched


def remove(repository: Path, path: Path, patience_sec: float | None = None) -> bool:
    """Remove a worktree, also a half made one, and the repository's record of it; whether there was anything.

    Args:
        patience_sec: how long to wait for the repository's lock; see ``locks.held``.
    """
    found = _git(repository, "rev-parse", "--git-common-dir")
    if found.returncode != 0:  # the repository is gone, and its records with it
        there = path.exists()
        _remove(path)
        return there
    common = (repository / found.stdout.strip()).resolve()
    with locks.held(common / LOCK, patience_sec):
        there = path.exists()
        _remove(path)
        for record in (common / "worktrees").glob("*"):
            if _is_of(record, path):
                _remove(record)
                there = True
    return there


def _remove(folder: Path) -> None:
    """Remove what an agent worked in, as far as possible."""
    with contextlib.suppress(OSError):
        walk.remove_tree(folder)


def _is_of(record: Path, path: Path) -> bool:
    """Tell whether git's record is that of the worktree; one that was killed early has nothing but its name."""
    try:
        told = (record / "gitdir").read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        told = ""
    return Path(told) == path / ".git" if told else record.name == path.name


def _git(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, out: int | IO[bytes] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run git without the user's hooks; its own variables, which a caller's git may have set, stay out."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *arguments],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=_WAIT_SEC,
            stdin=subprocess.DEVNULL,
            env={**clean, "GIT_TERMINAL_PROMPT": "0", **(env or {})},
        )
    except OSError as error:
        raise UserError(why_not_started("git", error), fix="an isolated workspace needs it") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"git {arguments[0]} in {folder} took longer than {_WAIT_SEC:g} s") from None


def _must(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, out: int | IO[bytes] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    done = _git(folder, *arguments, env=env, out=out)
    if done.returncode != 0:
        raise UserError(f"git {arguments[0]} fails in {folder}: {_said(done)}")
    return done


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"
