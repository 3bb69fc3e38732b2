from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from openapi_spec_validator import validate
from pydantic import TypeAdapter

from bundle import Bundle
from service import errors
from service.app import create_app
from service.contract import PATH, render
from service.schemas import ContinueRequest, FeedbackRequest, PredictRequest, PredictResponse, ProblemDocument
from service.settings import Settings


@pytest.fixture
def app(tiny: Bundle, models: Path) -> FastAPI:
    return create_app(Settings(models_dir=models, device="cpu"))


def test_the_committed_contract_is_the_apps(app: FastAPI):
    assert PATH.read_text() == render(app), "run `make schema` and commit the result"


def test_it_is_valid_openapi(app: FastAPI):
    validate(app.openapi())


def test_every_reference_leads_somewhere(app: FastAPI):
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [one for value in node.values() for one in references(value)]
        return [one for value in node for one in references(value)] if isinstance(node, list) else []

    schemas = app.openapi()["components"]["schemas"]
    named = {one.removeprefix("#/components/schemas/") for one in references(app.openapi())}
    assert named <= set(schemas)
    assert {"PredictRequest", "PredictResponse", "ProblemDocument"} <= named


def test_every_link_leads_to_an_operation(app: FastAPI):
    operations = [operation for path in app.openapi()["paths"].values() for operation in path.values()]
    links = [
        link for operation in operations for link in operation["responses"].get("200", {}).get("links", {}).values()
    ]
    assert links
    assert {link["operationId"] for link in links} <= {operation["operationId"] for operation in operations}


def test_the_examples_are_valid(app: FastAPI):
    schemas = app.openapi()["components"]["schemas"]
    for model in (PredictRequest, ContinueRequest, FeedbackRequest, PredictResponse, ProblemDocument):
        (example,) = schemas[model.__name__]["examples"]
        TypeAdapter(model).validate_python(example)


def test_every_documented_status_is_one_that_problems_have(app: FastAPI):
    def leaves(kind: type[errors.Problem]) -> list[type[errors.Problem]]:
        below = kind.__subclasses__()
        return [leaf for one in below for leaf in leaves(one)] if below else [kind]

    known = {str(leaf.status.value) for leaf in leaves(errors.Problem)}
    codes = [leaf.code for leaf in leaves(errors.Problem)]
    assert len(set(codes)) == len(codes), "a code is stable and unique"
    for path in app.openapi()["paths"].values():
        for operation in path.values():
            assert set(operation["responses"]) - {"101", "200"} <= known


def test_the_file_is_yaml_that_people_can_read():
    document = yaml.safe_load(PATH.read_text())
    assert set(document["paths"]) == {
        "/predict",
        "/predict/stream",
        "/predict/{request_id}/continue",
        "/stream",
        "/feedback",
        "/models",
        "/models/{name}",
        "/models/{name}/load",
        "/models/{name}/unload",
        "/healthz",
        "/readyz",
        "/metrics",
    }
