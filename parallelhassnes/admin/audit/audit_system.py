"""What the store's own ledger answers for: configuration, budgets, tokens, uploaded tasks."""

from collections.abc import Iterator
from pathlib import Path

from parallelhassnes import formatting
from parallelhassnes.admin.audit.audit_ledger import Lines, read_lines
from parallelhassnes.admin.audit.audit_models import Finding, What
from parallelhassnes.store import uploaded_tasks
from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.layout import Layout


def read(layout: Layout, marks: set[int]) -> Lines:
    """Return the store's own ledger; an empty one where there is none, as in a new store."""
    if not (layout.system / ledger.LEDGER).exists():
        return Lines(rules=1)
    return read_lines(layout.system, marks)


def findings(layout: Layout, lines: Lines) -> Iterator[Finding]:
    """Yield everything that differs."""
    for number, fault, text in lines.faults:
        yield Finding(what=fault, place=f"_system/{ledger.LEDGER}:{number}", text=text)  # type: ignore[arg-type]
    for place, written in lines.files.items():
        digest = ledger.content_hash(layout.system / place)
        if digest == written.sha256:
            continue
        if place in lines.promised and digest == written.before:
            text = "a crash came before it was replaced, or it is just being replaced"
            yield Finding(what="torn", place=f"_system/{place}", text=text)
            continue
        what: What = "changed" if digest and written.sha256 else "added" if digest else "missing"
        text = "is not what the ledger says was written"
        yield Finding(what=what, place=f"_system/{place}", text=text)
    yield from _unrecorded(layout, lines)
    yield from _tasks(layout, lines)


def _unrecorded(layout: Layout, lines: Lines) -> Iterator[Finding]:
    present: list[Path] = []
    for pattern in ledger.SYSTEM_FILES:
        # Beside what we write nothing may lie: a token that somebody put there lets them in.
        wide = f"{pattern.rpartition('/')[0]}/*" if "/" in pattern else pattern
        present += sorted(layout.system.glob(wide))
    places = [path.relative_to(layout.system).as_posix() for path in present]
    unknown = [place for place in places if place not in lines.files]
    covered = lines.rules >= ledger.RULES
    for place in unknown if covered else unknown[:1]:
        rest = "" if covered or len(unknown) == 1 else f", nor do {formatting.counted(len(unknown) - 1, 'more file')}"
        text = f"has no record in the store's ledger{rest}"
        yield Finding(what="added" if covered else "uncovered", place=f"_system/{place}", text=text)


def _tasks(layout: Layout, lines: Lines) -> Iterator[Finding]:
    """Yield the uploaded tasks, whose folders are named by what is in them."""
    try:
        folders = sorted(path for path in layout.tasks.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        folders = []
    for folder in folders:
        place = f"_tasks/{folder.name}"
        try:
            digest = uploaded_tasks.content_of(folder)
        except OSError as error:
            yield Finding(what="unreadable", place=place, text=str(error.strerror))
            continue
        if digest != folder.name:
            yield Finding(what="changed", place=place, text="is not the task that it is named by")
        record = ledger.content_hash(folder / uploaded_tasks.RECORD)
        told = lines.uploads.get(folder.name)
        if told is not None and record != told:
            what: What = "changed" if record else "missing"
            yield Finding(what=what, place=f"{place}/{uploaded_tasks.RECORD}")
        for extra in sorted(entry.name for entry in folder.iterdir() if not entry.is_dir()):
            if extra != uploaded_tasks.RECORD:
                yield Finding(what="added", place=f"{place}/{extra}")
    for name in lines.uploads.keys() - {folder.name for folder in folders}:
        yield Finding(what="missing", place=f"_tasks/{name}")
