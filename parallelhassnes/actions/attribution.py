"""Who says it: every word of an operator carries a name, a time and a reason; and what came of it."""

from abc import ABC, abstractmethod

from pydantic import BaseModel

from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import Attribution, now_text


def said(reason: str = "") -> Attribution:
    """Return a word of whoever runs this process, now."""
    return Attribution(at=now_text(), by=ledger.person(), reason=" ".join(reason.split())[:500])


class ActionResult(BaseModel, ABC):
    """What came of an action."""

    @property
    def touched(self) -> int:
        """Attempts and steps that it was about; 0 where these are not counted."""
        return 0

    @abstractmethod
    def lines(self) -> list[str]:
        """Tell what is so now, for people."""
