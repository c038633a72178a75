"""Who says it: every word of an operator carries a name, a time and a reason."""

import getpass
import os
import platform

from parallelhassnes.store.records import Said, now_text


def said(reason: str = "") -> Said:
    """A word of whoever runs this process, now."""
    return Said(at=now_text(), by=who(), reason=" ".join(reason.split())[:500])


def who() -> str:
    """``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        user = str(os.getuid())
    return f"{user}@{platform.node()}"
