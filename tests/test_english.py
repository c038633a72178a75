"""How the package speaks: docstrings say what to do first, sentences are short, and none leaves its end to be guessed."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import parallelhassnes

PACKAGE = Path(parallelhassnes.__file__).parent
MOST_WORDS = 35
NOUNS = re.compile(
    r"(?:The|An?|Every|All|Each|Those|What|Whether|Why|How|Where|Which|Whose?|Whom|When|Seconds|Bytes)\b"
)
"""How a first line begins that names what comes back, and not what is done."""
AUXILIARY = r"(?:is|are|was|were|do|does|did|has|have|had|can|could|may|might|must|will|would)(?: not)?"
GUESSED = re.compile(
    rf"(?:^|[,;:] )(?:(?:None|null|empty|nothing|none|False|True|[01]|no \w+) (?:where|if|while) (?:nothing|none|nobody|it|they|one|that|something) {AUXILIARY}"
    rf"|which {AUXILIARY}|(?:this|that|it|a \w+ one|the others?) {AUXILIARY})$"
)
"""An end that leaves out its verb: "None where it does not", "which is not", "a sealed one is not"."""


class Docstring(NamedTuple):
    place: str
    text: str
    is_of_function: bool
    """Of a function that is called as one: no property, whose docstring names a thing, and no route, whose is the API's."""


def docstrings() -> Iterator[Docstring]:
    """Every text that stands alone: of modules, classes, functions and fields."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            body = getattr(node, "body", None)
            for number, part in enumerate(body if isinstance(body, list) else ()):
                if not isinstance(part, ast.Expr) or not isinstance(part.value, ast.Constant):
                    continue
                if isinstance(part.value.value, str):
                    named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and number == 0
                    others = ("property", "router.", ".setter", "validator")
                    is_called = named and not any(
                        word in ast.unparse(each) for each in node.decorator_list for word in others
                    )
                    place = f"{path.relative_to(PACKAGE)}:{part.lineno}"
                    yield Docstring(place, inspect.cleandoc(part.value.value), is_called)


EVERY = list(docstrings())


def sentences(text: str) -> Iterator[str]:
    """Sentences of paragraphs, list items and arguments; what is set off by spaces is no prose."""
    text = re.sub(r"(?m)^(?:Args|Returns|Raises|Yields):$", "", text)
    text = re.sub(r"(?m)^    (?=[\w, ]+: )", "\n\n", text)
    for block in re.split(r"\n\s*\n|\n(?=(?:\* |- |\d+\. ))", text):
        if not block.startswith("    "):
            yield from filter(None, re.split(r"(?<=[.!?])\s+(?=[A-Z`(])", " ".join(block.split())))


def test_sentences_are_short():
    every = [sentence for each in EVERY for sentence in sentences(each.text)]
    long = [sentence for sentence in every if len(sentence.split()) > MOST_WORDS]
    assert len(every) > 5000
    assert len(long) <= 0.02 * len(every), "\n\n".join(long)


def test_no_end_is_left_to_be_guessed():
    found = [
        f"{each.place}: {sentence}"
        for each in EVERY
        for sentence in sentences(each.text)
        if any(GUESSED.search(clause.strip(" .)")) for clause in re.split(r"[.;]\s", sentence))
    ]
    assert len(found) <= 0.002 * len(EVERY), "\n".join(found)


def test_a_function_says_first_what_it_does():
    called = [each for each in EVERY if each.is_of_function]
    named = [f"{each.place}: {each.text.splitlines()[0]}" for each in called if NOUNS.match(each.text)]
    assert len(called) > 1500
    assert len(named) <= 0.05 * len(called), "\n".join(named)
