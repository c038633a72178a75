"""What the tests of the HTTP interface share."""

import httpx


def is_problem(answer: httpx.Response, status: int) -> dict:
    """The problem document, which says something and shows no traceback."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["detail"]
    assert "Traceback" not in answer.text
    return document
