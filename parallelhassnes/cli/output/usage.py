"""A command line that cannot be, in one line: what was typed, what is wrong with it, what to type."""

import re
import sys
from typing import Any

from parallelhassnes.names import did_you_mean

_SAID = (
    (r"Input should be (greater|less) than or equal to (\S+)", r"must be \2 or \1"),
    (r"Input should be a valid integer.*", "is no whole number"),
    (r"Input should be a valid number.*", "is no number"),
    (r"(\S.*) is not a valid (int|float)\S*", "is no number"),
)
"""What the parser says of a value, and the same in our words."""
_MORE = {"greater": "more", "less": "less"}


def line(error: Any) -> str | None:
    """Return the line of a wrong command line; None where there is nothing wrong but that no command was named.

    Args:
        error: what typer raised.
    """
    kind, context = type(error).__name__, error.ctx
    if kind == "NoArgsIsHelpError":
        return None
    path = context.command_path.partition(" ")[2] if context is not None else " ".join(sys.argv[1:2])
    help_of = f"`{' '.join(filter(None, ('parallelhassnes', path, '--help')))}`"
    if kind == "NoSuchOption":
        return _option(error, path, help_of)
    if (found := re.match(r"No such command '(.*?)'", error.message, re.DOTALL)) is not None:
        said = did_you_mean(found[1], context.command.commands, f"{help_of} lists them")
        return f"{' '.join(filter(None, (path, found[1])))}: there is no such command; {said}"
    if kind == "MissingParameter" and error.param is not None:
        what = re.sub(r" \[default: .*", "", str(getattr(error.param, "help", "") or "")).rstrip(".")
        name = (getattr(error.param, "metavar", None) or error.param.human_readable_name).strip("[]{}")
        example = re.search(r"Example: (.*)", context.command.help or "")
        named = f"{name} is missing{f' ({_lower(what)})' if what else ''}"
        return f"{path}: {named}; {f'for example: {example[1].strip()}' if example else f'see {help_of}'}"
    if (param := getattr(error, "param", None)) is not None:
        return f"{' '.join(filter(None, (path, _typed(param))))}: {_said(error.message)}; see {help_of}"
    return f"{path or 'parallelhassnes'}: {_lower(error.message.rstrip('.'))}; see {help_of}"


def _option(error: Any, path: str, help_of: str) -> str:
    option = error.option_name
    if len(option) > 1 and not option.startswith("-"):
        option = f"-{option}"
    known = [name for param in error.ctx.command.params for name in param.opts if name.startswith("--")]
    said = did_you_mean(option, known, f"{help_of} lists them")
    return f"{' '.join(filter(None, (path, option)))}: there is no such option; {said}"


def _typed(param: Any) -> str:
    """Return an option as it was typed, with its value where that is a word of its own; an argument by its name."""
    for place, word in enumerate(sys.argv):
        name, sign, _ = word.partition("=")
        if any(re.fullmatch(rf"{opt}[^-].*", word) for opt in param.opts if re.fullmatch("-[a-zA-Z]", opt)):
            return word  # -n3
        if name in param.opts:
            return word if sign or place + 1 >= len(sys.argv) else f"{word} {sys.argv[place + 1]}"
    is_option = str(param.opts[0]).startswith("-") if param.opts else False
    return str(param.opts[0] if is_option else getattr(param, "metavar", None) or param.name).strip("[]{}")


def _said(message: str) -> str:
    for pattern, ours in _SAID:
        if found := re.fullmatch(pattern, message, re.DOTALL):
            return re.sub(r"greater|less", lambda word: _MORE[word[0]], found.expand(ours))
    return _lower(message.rstrip("."))


def _lower(text: str) -> str:
    """Return the text as it goes on in a sentence; a word in capitals stays one."""
    return text if text[1:2].isupper() else f"{text[:1].lower()}{text[1:]}"
