"""The OpenAPI document holds: whatever is sent, the answer is one that it names. Cases by schemathesis.

PARALLELHASSNES_CASES=300 sends so many per operation; the suite sends a few.
"""

import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from servers import serving, token
from stores import context, job, program, put, shell, table

CASES = int(os.environ.get("PARALLELHASSNES_CASES", "4"))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A server with auth on, over a store in which something ran, and how many cases were sent."""
    root = tmp_path_factory.mktemp("contract")
    ctx = context(root, "[api]\nmax_body_mb = 1\nmax_upload_mb = 1\n")
    put(ctx, table(job("j", shell("s", "echo x"), shell("f", "exit 1", retry={"max_attempts": 1}))))
    program(root, "tick", "--until-idle", "--quiet", "--fail-on", "never")
    text = token(root, "ops", "operate")
    sent = {"cases": 0}
    with serving(root, "--auth", "token", token=text) as server:
        yield server, text, sent
    print(f"\n{sent['cases']} cases")


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_one_that_the_document_names(served, mode):
    """Of every operation but the streams, which have no end to wait for."""
    server, text, sent = served
    headers = {"Authorization": f"Bearer {text}"}
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json", headers=headers)
    schema = schema.exclude(path_regex="/stream$|/events$")
    failed, operations = [], 0
    for operation in (found.ok() for found in schema.get_all_operations()):
        operations += 1

        @settings(
            max_examples=CASES,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=CASES < 10,
            database=None,
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def send(case):
            sent["cases"] += 1
            case.call_and_validate(headers=headers, checks=CHECKS, timeout=60)

        try:
            send()
        except Unsatisfiable:  # nothing about this operation can be wrong
            continue
        except (Failure, FailureGroup) as error:
            failed.append(f"{operation.label}: {error}")
    assert operations > 50
    assert not failed, "\n\n".join(failed)
