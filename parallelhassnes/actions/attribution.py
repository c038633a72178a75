"""Who says it: every word of an operator carries a name, a time and a reason."""

from parallelhassnes.store.evidence import ledger
from parallelhassnes.store.records import Attribution, now_text


def said(reason: str = "") -> Attribution:
    """A word of whoever runs this process, now."""
    return Attribution(at=now_text(), by=ledger.person(), reason=" ".join(reason.split())[:500])
