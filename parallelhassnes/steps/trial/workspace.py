"""The workspace of a trial: its working directory as the agent has left it, kept beside the attempt, and put back for a regrade.

    workspace/blobs/<sha256>     the content of each file, once
    workspace/manifest.json      last, by rename: ``directory`` and ``entries``, or ``why`` nothing is kept

Who keeps is the worker, when the agent has ended and before anything of the verifier is there (Harbor's ``AGENT_END``): a tar of the
working directory is made in the environment, brought here, and taken apart. What is in it is an agent's, and its ``tar`` may be, too: nothing but plain
files, folders and links is taken, sizes are bounded before they are read, names stay text in the manifest, and no name of it becomes one here. A
workspace past the bounds is not kept at all, since a part of one would be judged as if it were the whole. Secrets are taken out as out of
every file before the seal, which names each blob that was changed.

A crash leaves blobs without a manifest: no workspace. Who puts it back (``restored_agent``) checks the seal against the hash that the plan of the
regrade has, and each blob against the seal, and makes a tar of it anew.
"""

import contextlib
import hashlib
import io
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from parallelhassnes.steps import safe_read
from parallelhassnes.steps.step_types import StepAttempt
from parallelhassnes.store import atomic, attempts

if TYPE_CHECKING:
    import tarfile

    from harbor.environments.base import BaseEnvironment
    from harbor.trial.hooks import TrialHookEvent
    from harbor.trial.trial import Trial

FOLDER, BLOBS, MANIFEST = "workspace", "blobs", "manifest.json"
MOST_BYTES = 512 << 20
MOST_ENTRIES = 50_000
MOST_MANIFEST = 32 << 20
_KEEP_SEC = 240
_LONGEST_PATH = 3_000
_CHUNK = 1 << 20
_PACK = "d=$(mktemp -d) && tar -C {place} -cf - . 2>/dev/null | head -c {most} >$d/w.tar; echo $d; wc -c <$d/w.tar; test -s $d/w.tar"
_UNPACK = "find {place} -mindepth 1 -delete; tar -C {place} -xpf {folder}/w.tar && rm -rf {folder}"


class WorkspaceError(RuntimeError):
    """A kept workspace is not what was sealed, or cannot be put back."""


# --- keeping ------------------------------------------------------------------------------------------


def arrange(trial: "Trial", attempt: StepAttempt) -> None:
    """Have the trial's workspace kept, where its plan says so."""
    import asyncio  # a worker has it, a supervisor that reads this module does not

    from harbor.trial.hooks import TrialEvent

    if not attempt.step.spec.get("keep_workspace"):
        return

    async def ended(_event: "TrialHookEvent") -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the whole trial is called off
            return
        why = ""
        try:
            async with asyncio.timeout(_KEEP_SEC):
                why = await _keep(trial, attempt)
        except TimeoutError:
            why = f"bringing it took longer than {_KEEP_SEC} s"
        except Exception as error:  # noqa: BLE001 - each environment fails in its own way, and the trial goes on
            why = f"{type(error).__name__}: {safe_read.first_line(str(error))}"
        if why:
            with contextlib.suppress(OSError):
                _write(attempt.dir / FOLDER, {"why": safe_read.text(why, 500) or "?"})

    trial.add_hook(TrialEvent.AGENT_END, ended)


async def _keep(trial: "Trial", attempt: StepAttempt) -> str:
    """Keep the workspace; why nothing is kept, or an empty text."""
    import asyncio

    environment = trial.agent_environment
    if trial.task.has_steps:
        return "its task has several steps"
    place = ((await environment.exec("pwd")).stdout or "").strip()
    if not place.startswith("/") or place == "/":
        return f"its working directory is {place or 'unknown'}"
    command = _PACK.format(place=shlex.quote(place), most=MOST_BYTES + 1)
    packed = await environment.exec(command, user="root", timeout_sec=_KEEP_SEC)
    folder, _, size = (packed.stdout or "").strip().partition("\n")
    if packed.return_code != 0 or not folder.startswith("/") or not size.strip().isdecimal():
        return f"tar did not pack it: {safe_read.first_line(packed.stderr or packed.stdout or '') or 'it said nothing'}"
    tar = attempt.dir / "tmp" / "workspace.tar"
    try:
        if int(size) > MOST_BYTES:
            return f"it is larger than {MOST_BYTES >> 20} MB"
        await environment.download_file(f"{folder}/w.tar", tar)
    finally:
        await environment.exec(f"rm -rf {shlex.quote(folder)}", user="root", timeout_sec=60)
    try:
        return await asyncio.to_thread(take_apart, tar, attempt.dir / FOLDER, place)
    finally:
        tar.unlink(missing_ok=True)


def take_apart(tar: Path, into: Path, place: str) -> str:
    """Make blobs and manifest of a tar; why that is not done, or an empty text."""
    import tarfile

    entries: list[dict[str, Any]] = []
    kinds = {".": "folder"}
    data = 0
    (into / BLOBS).mkdir(parents=True, exist_ok=True)
    descriptor = safe_read.open_file(tar)
    if os.fstat(descriptor).st_size > MOST_BYTES:
        os.close(descriptor)
        return f"it is larger than {MOST_BYTES >> 20} MB"
    try:
        with os.fdopen(descriptor, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                data += member.size
                if data > MOST_BYTES or len(kinds) > MOST_ENTRIES:
                    return f"it has more than {MOST_ENTRIES} entries or {MOST_BYTES >> 20} MB"
                if _leads_out(path, member, kinds):
                    return "it has a name that leads out of it"
                if member.issparse():
                    return "it has a file with holes, which come as no content"
                entry = _entry(archive, member, path.as_posix(), into / BLOBS)
                if path.name:
                    kinds[path.as_posix()] = entry["type"] if entry else ""
                if entry is not None and (entry["type"] != "same" or kinds[entry["target"]]):
                    entries.append(entry)
            stream.seek(archive.offset)
            if stream.read(512) != bytes(512):  # ``tarfile`` takes whatever is no header for the end
                return "what came is no whole tar"
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        return f"what came is no tar: {type(error).__name__}"
    _write(into, {"directory": place, "entries": entries})
    return ""


def _leads_out(path: PurePosixPath, member: "tarfile.TarInfo", kinds: Mapping[str, str]) -> bool:
    """Tell whether a member would be put elsewhere: by its name, by a link in the place of its folder, or as another name of a file that is not there.

    Args:
        kinds: what was before it, by path; a name that comes again may be a link by then.
    """
    return (
        path.is_absolute()
        or ".." in path.parts
        or len(member.name) > _LONGEST_PATH
        or (bool(path.name) and path.as_posix() in kinds)
        or kinds.get(path.parent.as_posix()) != "folder"
        or (member.islnk() and PurePosixPath(member.linkname).as_posix() not in kinds)
    )


def _entry(archive: "tarfile.TarFile", member: "tarfile.TarInfo", path: str, blobs: Path) -> dict[str, Any] | None:
    """Return what the manifest says of a member; None for a pipe or a device."""
    facts = {
        "path": path,
        "mode": member.mode & 0o7777,
        "uid": member.uid,
        "gid": member.gid,
        "mtime": int(member.mtime),
    }
    if member.isdir():
        return facts | {"type": "folder"}
    if member.issym():
        return facts | {"type": "link", "target": member.linkname}
    if member.islnk():
        return facts | {"type": "same", "target": PurePosixPath(member.linkname).as_posix()}
    if not member.isreg():
        return None
    source = archive.extractfile(member)
    assert source is not None  # noqa: S101 - it is a regular file
    digest = hashlib.sha256()
    temporary = atomic.temp_path(blobs)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    temporary.rename(blobs / digest.hexdigest())
    return facts | {"type": "file", "sha256": digest.hexdigest(), "size": member.size}


def _write(into: Path, document: Mapping[str, Any]) -> None:
    into.mkdir(exist_ok=True)
    atomic.write_json(into / MANIFEST, {"schema_version": 1, **document}, durable=False)


# --- putting it back ----------------------------------------------------------------------------------


def read(attempt_dir: Path) -> tuple[Mapping[str, Any] | None, str]:
    """Return the manifest of an attempt's workspace; without one None, and why."""
    found = safe_read.read_object(attempt_dir / FOLDER / MANIFEST, MOST_MANIFEST)
    if found is None:
        return None, "none was kept"
    if isinstance(found.get("directory"), str) and isinstance(found.get("entries"), list):
        return found, ""
    return None, safe_read.text(found.get("why"), 300) or "its manifest cannot be read"


def said_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report says of a workspace: where it was, with how many entries; or why none was kept."""
    if isinstance(manifest.get("directory"), str):
        return {"directory": manifest["directory"], "entries": len(safe_read.sequence(manifest.get("entries")))}
    return {"why": safe_read.text(manifest.get("why"), 500) or "its manifest cannot be read"}


async def put_back(environment: "BaseEnvironment", attempt_dir: Path, seal_sha256: str) -> None:
    """Replace what is in the working directory of an environment by what was kept.

    Raises:
        WorkspaceError: it is not what was sealed under that hash, or the environment does not take it.
    """
    import asyncio

    manifest, why = read(attempt_dir)
    if manifest is None:
        raise WorkspaceError(f"{attempt_dir.name} has no workspace: {why}")
    place, _, folder = ((await environment.exec("pwd; mktemp -d")).stdout or "").strip().partition("\n")
    if not place.startswith("/") or place == "/" or not folder.startswith("/"):
        raise WorkspaceError(f"the working directory of the environment is {place or 'unknown'}")
    tar = Path(os.environ.get("TMPDIR") or "/tmp") / "restored.tar"  # noqa: S108 - a worker has its own
    try:
        await asyncio.to_thread(_pack, attempt_dir, manifest, _sealed(attempt_dir, seal_sha256), tar)
        await environment.upload_file(tar, f"{folder}/w.tar")
    finally:
        tar.unlink(missing_ok=True)
    command = _UNPACK.format(place=shlex.quote(place), folder=shlex.quote(folder))
    done = await environment.exec(command, user="root", timeout_sec=_KEEP_SEC)
    if done.return_code != 0:
        raise WorkspaceError(
            f"the environment did not take it: {safe_read.first_line(done.stderr or done.stdout or '')}"
        )


def _sealed(attempt_dir: Path, seal_sha256: str) -> Mapping[str, Any]:
    """Return what the seal says of the workspace's files: path → SHA-256."""
    data = safe_read.read_bytes(attempt_dir / attempts.SEAL, safe_read.MAX_JSON_BYTES) or b""
    if hashlib.sha256(data).hexdigest() != seal_sha256:
        raise WorkspaceError(f"the seal of {attempt_dir.name} is not the one that its ledger names")
    with contextlib.suppress(ValueError, AttributeError):
        files = json.loads(data).get("files")
        return {path: said.get("sha256") for path, said in files.items() if path.startswith(f"{FOLDER}/")}
    raise WorkspaceError(f"the seal of {attempt_dir.name} cannot be read")


def _pack(attempt_dir: Path, manifest: Mapping[str, Any], sealed: Mapping[str, Any], tar: Path) -> None:
    import tarfile

    place = f"{FOLDER}/{MANIFEST}"
    data = safe_read.read_bytes(attempt_dir / place, MOST_MANIFEST) or b""
    if hashlib.sha256(data).hexdigest() != sealed.get(place):
        raise WorkspaceError(f"{place} of {attempt_dir.name} is not what was sealed")
    with tarfile.open(tar, "w") as archive:
        for entry in map(safe_read.mapping, manifest["entries"]):
            member = tarfile.TarInfo(str(entry.get("path")))
            for name in ("mode", "uid", "gid", "mtime"):
                setattr(member, name, safe_read.whole(entry.get(name)) or 0)
            content = None
            match entry.get("type"):
                case "folder":
                    member.type = tarfile.DIRTYPE
                case "link" | "same" as kind:
                    member.type = tarfile.SYMTYPE if kind == "link" else tarfile.LNKTYPE
                    member.linkname = str(entry.get("target"))
                case "file":
                    content = _blob(attempt_dir, str(entry.get("sha256")), sealed)
                    member.size = len(content)
                case _:
                    continue
            archive.addfile(member, None if content is None else io.BytesIO(content))


def _blob(attempt_dir: Path, name: str, sealed: Mapping[str, Any]) -> bytes:
    place = f"{FOLDER}/{BLOBS}/{name}"
    data = None if "/" in name else safe_read.read_bytes(attempt_dir / place, MOST_BYTES)
    if data is None or hashlib.sha256(data).hexdigest() != sealed.get(place):
        raise WorkspaceError(f"{place} of {attempt_dir.name} is not what was sealed")
    return data
