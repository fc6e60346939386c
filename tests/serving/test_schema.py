"""The description of the interface is true: made-up requests get documented answers only."""

import os
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from embedtune.serving.keys import Keys

EXAMPLES = 5000 if os.environ.get("PROVE") else 200
ADMIN = "key-of-the-admin"


@pytest.fixture(scope="module")
def server(serving, make_stub):
    headers = {"authorization": f"Bearer {ADMIN}"}
    stub = make_stub()
    with serving(stub, keys=Keys(admin=[ADMIN]), headers=headers, any_dimension=True) as own:
        yield own


def test_made_up_requests_get_documented_answers_and_no_5xx(server):
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        negative_data_rejection,
        response_schema_conformance,
        status_code_conformance,
    )

    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [own.ok() for own in schema.get_all_operations()]
    assert len(operations) == 8
    seen: Counter[tuple[str, int]] = Counter()
    for operation in operations:
        # most calls go to the one route that reads a body
        share = EXAMPLES if operation.path == "/v1/embeddings" else EXAMPLES // 20
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @settings(
                max_examples=max(1, share // 2), deadline=None, database=None, derandomize=True,
                phases=[Phase.generate], suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                answer = case.call(headers={"authorization": f"Bearer {ADMIN}"})
                seen[case.operation.path, answer.status_code] += 1
                case.validate_response(
                    answer,
                    checks=[
                        not_a_server_error, status_code_conformance, content_type_conformance,
                        response_schema_conformance, negative_data_rejection,
                    ],
                )  # fmt: skip

            with suppress(Unsatisfiable):  # a route without parameters cannot be asked wrongly
                ask()
    print(dict(seen))
    assert sum(seen.values()) >= EXAMPLES, seen
    assert seen["/v1/embeddings", 200] >= EXAMPLES // 20
    assert seen["/v1/embeddings", 422] >= EXAMPLES // 20
