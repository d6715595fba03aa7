"""The atlas for programs is as its description says, whatever a client sends that is made of the description alone."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
from starlette.testclient import TestClient

from actmine.pipeline.atlas.links import segments
from actmine.pipeline.atlas.server import application
from actmine.pipeline.notes import Notes, Target
from tests.atlas_tables import NAMES, PLAIN, WIDTH, write_run

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
HOST = "testserver"
KNOWN = {
    "layer": {"enum": [*segments(NAMES).values(), "none"]},
    "unit": {"maximum": WIDTH + 2},
    "image": {"maximum": 8},
}
"""What is added to the description, so that clients ask for what there is, and for a little that is not."""
SETTINGS = {
    "seed": 1, "continue-on-failure": True, "phases": {"stateful": {"enabled": False}},
    "generation": {"deterministic": True, "max-examples": 5, "no-shrink": True},
    # not every layer has every column by which units can be sorted
    "operations": [
        {"include-path": "/api/layer/{layer}",
         "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", 400, 404]}}}
    ],
}  # fmt: skip
CHECKS = {
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection", "positive_data_acceptance", "unsupported_method",
    "allow_header_conformance",
}  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Any:
    run = write_run(tmp_path_factory.mktemp("described"), extra=True)
    Notes(run).say(Target(PLAIN, 3), "ada", note="curves")
    return application(run, names={HOST})


@pytest.fixture
def document(app: Any) -> dict[str, Any]:
    found = copy.deepcopy(TestClient(app, base_url=f"http://{HOST}").get("/api/openapi.json").json())
    for path in found["paths"].values():
        for each in path["get"]["parameters"]:
            if each["in"] == "path":
                each["schema"] |= KNOWN[each["name"]]
    return found


def tried(app: Any, document: dict[str, Any]) -> tuple[Counter[int], Counter[str], list[str]]:
    """How often which status was answered and which check was made, and what failed."""
    from schemathesis.engine import events, from_schema

    schema = schemathesis.openapi.from_dict(document, config=schemathesis.Config.from_dict(SETTINGS))
    schema.app = app
    statuses, checks, failed = Counter[int](), Counter[str](), list[str]()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            statuses.update(each.response.status_code for each in event.recorder.interactions.values())
            for each in (check for made in event.recorder.checks.values() for check in made):
                checks[each.name] += 1
                if each.failure_info:
                    failed.append(f"{event.recorder.label}: {each.name}: {each.failure_info.failure.message[:500]}")
    return statuses, checks, failed


def test_every_answer_is_as_it_is_described(app, document):
    statuses, checks, failed = tried(app, document)
    assert not failed, "\n\n".join(failed[:5])
    assert checks.keys() >= CHECKS and statuses.keys() == {200, 400, 404, 405}
    assert min(statuses.values()) > 50 and statuses[200] > 200


def test_a_description_that_is_not_true_would_be_noticed(app, document):
    paths = document["paths"]
    document["paths"] = {path: paths[path] for path in ("/api/layers", "/api/image/{image}", "/api/search")}
    answers = {path: document["paths"][path]["get"] for path in document["paths"]}
    row = answers["/api/layers"]["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["rows"]
    row["items"]["properties"]["units"] = {"type": "string"}
    del answers["/api/image/{image}"]["responses"]["404"]
    answers["/api/search"]["responses"]["200"]["headers"]["X-None"] = {"required": True, "schema": {"type": "string"}}
    _, _, failed = tried(app, document)
    noticed = {each.split(":")[0].removeprefix("GET ") + each.split(":")[1] for each in failed}
    assert noticed >= {
        "/api/layers response_schema_conformance", "/api/image/{image} status_code_conformance",
        "/api/search response_headers_conformance",
    }  # fmt: skip
