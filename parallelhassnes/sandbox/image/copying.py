"""``COPY`` and ``ADD``: files of the build context put into a sandbox's root folder, before it runs."""

import fnmatch
import os
import re
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from parallelhassnes.sandbox.image.dockerfile import Copy
from parallelhassnes.sandbox.root_layout import RootFolder

# The sandbox is put together by the host's programs with the host's libraries, as root: nothing may take their place.
_PROGRAMS = re.compile(r"/(usr/)?(s?bin|lib[^/]*)(/.*)?|/etc/ld\.so.*|/etc/ld\.so\.conf\.d/.*")


class CopyError(Exception):
    """A ``COPY`` that cannot be done: one line, with the line of the Dockerfile."""


class Ignore:
    """The context's ``.dockerignore``: the last pattern that matches a path or a folder above it decides."""

    def __init__(self, context: Path) -> None:
        self.rules: list[tuple[re.Pattern[str], bool]] = []
        path = context / ".dockerignore"
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            pattern = line.strip()
            if not pattern or pattern.startswith("#"):
                continue
            again = pattern.startswith("!")
            cleaned = os.path.normpath(pattern.lstrip("!").strip()).lstrip("/")
            self.rules.append((re.compile(_regex(cleaned)), again))

    def __call__(self, relative: str) -> bool:
        """Tell whether ``relative`` (to the context, with ``/``) is left out."""
        left_out = False
        for pattern, again in self.rules:
            if pattern.fullmatch(relative):
                left_out = not again
        return left_out


def _regex(pattern: str) -> str:
    """Return a .dockerignore pattern as a regular expression; it also matches everything below what it names."""
    out = ""
    for part in re.split(r"(\*\*/?|\*|\?)", pattern):
        special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
        out += special.get(part, re.escape(part))
    return f"{out}(?:/.*)?"


def copy(context: Path, instruction: Copy, root: RootFolder) -> None:
    """Do one ``COPY`` or ``ADD``. Raises CopyError."""
    ignore = Ignore(context)
    found: list[Path] = []
    for source in instruction.sources:
        matches = [path for path in _matches(context, source) if not _left_out(context, path, ignore)]
        if not matches:
            raise CopyError(
                f"{context.name}/Dockerfile line {instruction.line}: nothing in {context.name}/ matches {source!r}"
            )
        found += matches
    several = len(found) > 1 or instruction.target.endswith("/")
    into = several or root.is_folder(instruction.target)
    try:
        for path in found:
            _copy_one(context, path, instruction, root, ignore, into=into)
    except (OSError, tarfile.TarError) as error:
        raise CopyError(f"{context.name}/Dockerfile line {instruction.line}: {error}") from error


def _left_out(context: Path, path: Path, ignore: Ignore) -> bool:
    return path != context and path.is_file() and ignore(path.relative_to(context).as_posix())


def _matches(context: Path, source: str) -> list[Path]:
    """Tell what a source names: patterns match within one path component, nothing leaves the context."""
    level = [context]
    for part in PurePosixPath("/" + source).parts[1:]:
        if part == "..":
            level = [path.parent if path != context else path for path in level]
        elif re.search(r"[*?\[]", part):
            level = [
                path / name
                for path in level
                if path.is_dir()
                for name in sorted(os.listdir(path))
                if fnmatch.fnmatchcase(name, part)
            ]
        else:
            level = [path / part for path in level if os.path.lexists(path / part)]
    inside = context.resolve()
    return [path for path in level if path.resolve().is_relative_to(inside)]


def _copy_one(context: Path, path: Path, instruction: Copy, root: RootFolder, ignore: Ignore, *, into: bool) -> None:
    target = instruction.target
    if path.is_dir():
        for entry in sorted(path.rglob("*")):
            relative = entry.relative_to(path).as_posix()
            if ignore(entry.relative_to(context).as_posix()):
                continue
            _put(entry, f"{target.rstrip('/')}/{relative}", root, instruction.mode)
        root.folder(target)
    elif instruction.unpack and tarfile.is_tarfile(path):
        with tempfile.TemporaryDirectory() as folder, tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
            plain = instruction._replace(mode=None, unpack=False)
            _copy_one(Path(folder), Path(folder), plain, root, Ignore(Path(folder)), into=True)
    else:
        name = f"{target.rstrip('/')}/{path.name}" if into else target
        _put(path, name, root, instruction.mode)


def _put(source: Path, target: str, root: RootFolder, mode: int | None) -> None:
    place = root.place(target)
    inside = f"/{place.relative_to(root.path)}"
    if _PROGRAMS.fullmatch(inside):
        raise OSError(f"{inside} belongs to the host's programs and libraries, which are read-only")
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        place.unlink(missing_ok=True)
        place.symlink_to(source.readlink())
        return
    if source.is_dir():
        place.mkdir(exist_ok=True)
        shutil.copymode(source, place)
    elif source.is_file():
        shutil.copy2(source, place)
    else:
        return  # a pipe, socket or device has no content to copy
    if mode is not None:
        place.chmod(mode)
