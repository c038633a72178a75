"""How the package speaks: docstrings say what to do first, sentences are short, and none leaves its end to be guessed."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import parallelhassnes
from parallelhassnes import formatting

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
    assert len(named) <= 0.015 * len(called), "\n".join(named)


COUNTED_BY_HAND = {
    ("actions/limits/budget.py", "of_tokens"): "a part of a sentence that begins with the number",
    ("cli/upkeep.py", "each.freed_inodes"): "of two nouns",
    ("tables/formats/earlier_tables.py", "max(folders.values())"): "two at the least",
}
"""A number before a noun that is never 1, or that no function here could put in words."""


def test_numbers_before_nouns_are_put_in_words_by_the_one_function_that_knows_of_1():
    trees = {path: ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    calls = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    nouns = {
        str(call.args[1].value).split()[-1]
        for call in calls
        if ast.unparse(call.func).endswith("counted") and isinstance(call.args[-1], ast.Constant)
    }
    assert {"job", "step", "trial"} <= nouns
    plurals = {formatting.plural(noun) for noun in nouns}
    found = {
        (str(path.relative_to(PACKAGE)), value)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for value in _counted_by_hand(node, plurals)
    }
    assert found == set(COUNTED_BY_HAND)


def _counted_by_hand(text: ast.JoinedStr, plurals: set[str]) -> Iterator[str]:
    """Yield what stands before a noun in the plural: no constant, no rate, no words of a call, no share (3 of 4 trials)."""
    for before, value, after in zip([ast.Constant(""), *text.values], text.values, text.values[1:], strict=False):
        if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant) or value.format_spec:
            continue
        noun = re.match(r" (?:[a-z]+(?<!s) )?([a-z]+)\b", str(after.value))
        is_share = isinstance(before, ast.Constant) and str(before.value).endswith((" of ", "/"))
        said = ast.unparse(value.value)
        if (
            noun
            and noun[1] in plurals
            and not is_share
            and not said.startswith(("formatting.", "counted", "number"))
            and not said.isupper()
        ):
            yield said
