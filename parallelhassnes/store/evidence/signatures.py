"""Signatures beside files, made and checked by OpenSSH: ``ssh-keygen -Y``."""

import shutil
import subprocess
from pathlib import Path

from parallelhassnes.errors import UserError, why_not_started
from parallelhassnes.store.evidence import checkpoints

_PROGRAM = "ssh-keygen"
_PATIENCE_SEC = 60.0


def is_signed(path: Path) -> bool:
    return _beside(path).exists()


def sign(path: Path, key: Path) -> None:
    """Write the signature of a file beside it.

    Args:
        key: a private key without a passphrase, or the public half of one that an ssh-agent holds.

    Raises:
        UserError: it cannot be signed.
    """
    if not key.is_file():
        raise UserError(f"audit.key {key}: there is no such file", fix="make one with ssh-keygen -t ed25519")
    done = _run(["sign", "-f", str(key), "-n", checkpoints.NAMESPACE, str(path)], None)
    if done.returncode != 0:
        raise UserError(f"audit.key {key}: {_line(done)}", fix="use a key without a passphrase, or one in an ssh-agent")


def check(path: Path, signers: Path | None = None) -> str:
    """Tell what is wrong with the signature of a file; empty where it is good.

    Args:
        signers: OpenSSH's ``allowed_signers``; None only tells whether the signature is one of this content.
    """
    if not is_signed(path):
        return f"there is no {_beside(path).name}"
    beside = ["-n", checkpoints.NAMESPACE, "-s", str(_beside(path))]
    data = path.read_bytes()
    if signers is None:
        if shutil.which(_PROGRAM) is None:
            return ""
        done = _run(["check-novalidate", *beside], data)
        return "" if done.returncode == 0 else f"is no signature of {path.name}: {_line(done)}"
    if not signers.is_file():
        raise UserError(f"--signers {signers}: there is no such file", fix="give OpenSSH's allowed_signers")
    found = _run(["find-principals", "-f", str(signers), "-s", str(_beside(path))], None)
    names = found.stdout.decode("utf-8", "replace").split()
    if found.returncode != 0 or not names:
        return f"is signed by nobody in {signers}"
    done = _run(["verify", "-f", str(signers), "-I", names[0], *beside], data)
    return "" if done.returncode == 0 else f"is no signature of {path.name}: {_line(done)}"


def _beside(path: Path) -> Path:
    return path.with_name(path.name + checkpoints.SIGNATURE)


def _run(arguments: list[str], data: bytes | None) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [_PROGRAM, "-Y", *arguments], input=data or b"", capture_output=True, timeout=_PATIENCE_SEC, check=False
        )
    except OSError as error:
        raise UserError(why_not_started(_PROGRAM, error), fix="install OpenSSH's client") from None
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{_PROGRAM} did not end within {_PATIENCE_SEC:.0f} s", fix="use a key without a passphrase"
        ) from None


def _line(done: subprocess.CompletedProcess[bytes]) -> str:
    said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().splitlines()
    return said[-1] if said else f"{_PROGRAM} ended with {done.returncode}"
