"""Harbor's exception for a failed ``docker compose``, told by its end: the reason stands last, after a long command line."""

import re

from parallelhassnes.steps import safe_read

_FAILED = re.compile(
    r"(Docker compose command failed for environment .*?)\. Command: .*?\. "
    r"Return code: (-?\d+)\. Stdout: (.*)\. Stderr: (.*)\. ?",
    re.DOTALL,
)
MAX_OUTPUT = 3000
"""Characters of the output's end that are kept."""


def told(message: str) -> str:
    """The message with the reason in its first line and the end of the output below; any other message as it is."""
    failed = _FAILED.fullmatch(message)
    if failed is None:
        return message
    said, code, *streams = failed.groups()
    output = "\n".join(stream.strip() for stream in streams if stream != "None")
    reason = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    first = f"{said}: {safe_read.text(reason, 600)}" if reason else f"{said}: exit code {code}"
    return f"{first}\n{output[-MAX_OUTPUT:]}"
