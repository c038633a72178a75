"""Where a relative path of a table is looked for."""

from pathlib import Path

from parallelhassnes.tables.parse.located_errors import Problems


class Bases:
    """The folders that relative paths are looked for in, in order."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = list(dict.fromkeys(Path(folder).absolute() for folder in folders))
        self._found: dict[str, Path | None] = {}

    def find(self, text: str) -> Path | None:
        """Return the first that exists, absolute and without ``..``; None where there is no such thing. Looked for once."""
        if text not in self._found:
            self._found[text] = self._look(text)
        return self._found[text]

    def _look(self, text: str) -> Path | None:
        path = Path(text).expanduser()
        for candidate in [path] if path.is_absolute() else [base / path for base in self.folders]:
            try:
                if candidate.exists():
                    return candidate.resolve()
            except OSError:  # a name that is too long, a folder that may not be read: not here
                continue
        return None

    def need(self, text: str, at: str, what: str, problems: Problems) -> Path | None:
        """As ``find``; what is missing is a problem that says where was looked."""
        found = self.find(text)
        if found is None:
            shown = text if len(text) <= 200 else text[:197] + "..."
            if Path(text).expanduser().is_absolute():
                problems.add(at, f"{what} {shown} does not exist", "correct the path")
            else:
                looked = ", ".join(str(folder) for folder in self.folders) or "nowhere"
                problems.add(at, f"{what} {shown} does not exist; looked in {looked}", "correct the path")
        elif not is_text(found):
            problems.add(at, f"{what} {found} has a path that is not UTF-8", "rename it")
            return None
        return found


def is_text(path: Path) -> bool:
    """Tell whether a path can be written as UTF-8, as Harbor and the store must."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
