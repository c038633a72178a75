"""Problems at the lines of a table's text."""

from stores import CHECKOUT, context

from parallelhassnes.actions.error_annotations import mark
from parallelhassnes.actions.submit import plan_table
from parallelhassnes.errors import InvalidInput, Problem


def problems_of(root, text: str) -> list[Problem]:
    try:
        plan_table(context(root), text.encode(), name="t.yaml", folders=[CHECKOUT])
    except InvalidInput as error:
        return error.problems
    return []


def test_problems_stand_at_their_lines(root):
    text = (
        '{\n  "spec_version": "2.0",\n  "jobs": [\n    {"job_id": "../x",\n     "stepz": [],\n'
        '     "steps": [{"kind": "command"}]}\n  ]\n}\n'
    )
    marked = mark(text, problems_of(root, text))
    found = {line.number: [p.message for p in line.problems] for line in marked.lines if line.problems}
    assert "unknown key 'stepz'" in found[5][0]
    assert 4 in found
    assert 6 in found
    assert marked.elsewhere == []


def test_text_that_does_not_parse_is_marked_where_it_stops(root):
    text = '{"spec_version": "2.0",\n "jobs": [}\n'
    marked = mark(text, problems_of(root, text))
    assert [line.number for line in marked.lines if line.problems] == [2]


def test_what_has_no_line_is_told_apart():
    marked = mark(
        "a: 1\n", [Problem("t", "", "is empty"), Problem("t", "line 77", "odd"), Problem("t", "/b/0", "gone")]
    )
    assert [problem.message for problem in marked.elsewhere] == ["is empty", "gone", "odd"]
    assert [line.problems for line in marked.lines] == [[]]
