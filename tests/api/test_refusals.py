"""Every operation of the document says no as the document says: by role, by host, by size, by id, in one shape.

What the server answers besides, pages and what old clients call, is asked of the application itself, so that nothing
new goes without.
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

import httpx
import pytest
from api_checks import is_problem
from fastapi.routing import iter_route_contexts
from servers import serving, token
from stores import context

from parallelhassnes.admin.tokens import ROLES
from parallelhassnes.api.app import create_app
from parallelhassnes.api.http.auth import SAFE_METHODS
from parallelhassnes.api.http.problems import ProblemDocument
from parallelhassnes.api.live.server_state import ServerState
from parallelhassnes.config import ApiConfig

OPEN = {("GET", "/login"), ("POST", "/login"), ("GET", "/static/{name}")}
"""What is answered without a token, besides /health: the way in, and what its page is drawn with."""


class Operation(NamedTuple):
    """One operation of the document."""

    method: str
    path: str
    described: dict[str, Any]

    @property
    def role(self) -> str | None:
        """None where everybody may."""
        ways = self.described.get("security", [])
        return ways[0]["HTTPBearer"][0] if ways else None

    def send(self, client: httpx.Client, **more: Any) -> httpx.Response:
        """With ids that name nothing."""
        uuids = {p["name"] for p in self.described.get("parameters", []) if p["schema"].get("format") == "uuid"}
        path = re.sub(r"{([^}]*)}", lambda found: str(UUID(int=77)) if found[1] in uuids else "77", self.path)
        with client.stream(self.method, path, **more) as answer:
            kind = answer.headers.get("content-type", "")
            if self.method == "head" or not kind.startswith("text/event-stream"):  # it has no end
                answer.read()
        return answer


class Site(NamedTuple):
    """A server with a token of each role, and all that it can be asked."""

    client: httpx.Client
    headers: dict[str, dict[str, str]]
    operations: list[Operation]
    others: list[Operation]
    """What is answered and does not stand in the document."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("refusals")
    context(root, "[api]\nmax_body_mb = 1\nmax_upload_mb = 1\n")
    headers = {role: {"Authorization": f"Bearer {token(root, role, role)}"} for role in ROLES}
    with serving(root, "--no-tick", "--auth", "token") as server:
        paths = server.client.get("/openapi.json", headers=headers["read"]).json()["paths"]
        found = [Operation(m, path, how) for path, ways in paths.items() for m, how in ways.items()]
        assert len(found) > 80
        app = create_app(ServerState(root, ApiConfig(), "token", ticking=False))
        others = [
            Operation(method, route.path, {})
            for route in iter_route_contexts(app.routes)
            for method in sorted(route.methods or ())
            if route.path and method.lower() not in paths.get(route.path, {})
        ]
        yield Site(server.client, headers, found, others)


def refused(operation: Operation, answer: httpx.Response, status: int) -> None:
    """With that status, in the shape of a problem, and the document says that it may be."""
    ProblemDocument.model_validate(is_problem(answer, status), extra="forbid")
    assert str(status) in operation.described["responses"], operation


def test_every_operation_but_health_needs_a_token(site):
    for operation in site.operations:
        if operation.role is None:
            assert operation.path == "/health"
        else:
            refused(operation, operation.send(site.client), 401)


def test_every_operation_needs_the_role_that_it_says_and_no_more(site):
    for operation in site.operations:
        for role in ROLES if operation.role else ():
            answer = operation.send(site.client, headers=site.headers[role])
            if ROLES.index(role) < ROLES.index(operation.role):
                refused(operation, answer, 403)
            else:
                assert answer.status_code not in (401, 403), f"{operation.path}: {answer.text}"
                assert str(answer.status_code) in operation.described["responses"], operation.path


def test_what_is_new_is_among_what_is_asked(site):
    asked = {path for _, path, _ in site.operations + site.others}
    for path in ("/v1/report", "/v1/results", "/v1/trials", "/compare", "/operate/{word}"):
        assert path in asked
    for part in ("/cap", "/regrade", "/harbor/", "/trials/import"):
        assert any(part in path for path in asked), part


def test_what_the_document_does_not_show_needs_a_token_too_and_a_change_more_than_to_read(site):
    assert {(method, path) for method, path, _ in site.others} > OPEN
    for operation in site.others:
        if (operation.method, operation.path) in OPEN:
            continue
        unknown = operation.send(site.client)
        assert unknown.status_code == 401, operation
        reader = operation.send(site.client, headers=site.headers["read"])
        operator = operation.send(site.client, headers=site.headers["operate"])
        assert (reader.status_code == 403) == (operation.method not in SAFE_METHODS), operation
        assert operator.status_code not in (401, 403), f"{operation}: {operator.text}"


def test_every_operation_knows_its_host_and_how_much_it_takes(site):
    mine = site.headers["operate"]
    for operation in site.operations:
        foreign = operation.send(site.client, headers=mine | {"Host": "evals.example.org"})
        refused(operation, foreign, 421)
        large = operation.send(site.client, headers=mine, content=bytes((1 << 20) + 1))
        refused(operation, large, 413)


def test_every_id_that_names_nothing_is_404(site):
    for operation in site.operations:
        named = re.findall(r"{(\w+)}", operation.path)
        needs_more = (
            any(p.get("required") for p in operation.described["parameters"] if p["in"] != "path") if named else True
        )
        if named == ["runner"] or needs_more or "requestBody" in operation.described:
            continue
        answer = operation.send(site.client, headers=site.headers["operate"])
        refused(operation, answer, 404)


def test_head_is_answered_as_get_is_and_has_no_body(site):
    mine = site.headers["operate"]
    for operation in site.operations:
        if operation.method == "get":
            got = operation.send(site.client, headers=mine)
            head = operation._replace(method="head").send(site.client, headers=mine)
            assert head.status_code == got.status_code, operation.path
            assert head.headers["content-type"] == got.headers["content-type"]
            assert head.content == b""
    assert site.client.head("/", headers=mine).headers["content-type"].startswith("text/html")


def test_a_change_on_a_condition_that_cannot_be_fulfilled_is_not_made(site):
    mine = site.headers["operate"] | {"If-Match": '"some"'}
    for operation in site.operations:
        if operation.method != "get":
            is_problem(operation.send(site.client, headers=mine), 412)


def test_every_polled_answer_has_a_tag_and_nothing_else_says_so(site):
    mine = site.headers["operate"]
    for operation in site.operations:
        answers = operation.described["responses"]
        if operation.method != "get" or "{" in operation.path or "events" in operation.path:
            continue
        first = operation.send(site.client, headers=mine)
        if first.status_code != 200:
            continue
        assert ("etag" in first.headers) == ("304" in answers), operation.path
        if "304" in answers:
            headers = mine | {"If-None-Match": "*"}
            assert operation.send(site.client, headers=headers).status_code == 304, operation.path


def test_after_too_many_wrong_tokens_every_operation_says_when_to_come_back(site):
    wrong = {"Authorization": "Bearer phs_wrong"}
    for _ in range(10):
        site.client.get("/v1/batches", headers=wrong)
    for operation in site.operations:
        if operation.role is not None:
            answer = operation.send(site.client, headers=wrong)
            refused(operation, answer, 429)
            assert int(answer.headers["retry-after"]) > 0
    assert site.client.get("/v1/batches", headers=site.headers["read"]).status_code == 200
