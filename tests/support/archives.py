"""Folders as the archives that clients send."""

import io
import tarfile
import zipfile


def zipped(folder, top: str = "") -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(folder)}")
    return made.getvalue()


def tarred(folder, top: str = ".") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        archive.add(folder, arcname=top)
    return made.getvalue()
