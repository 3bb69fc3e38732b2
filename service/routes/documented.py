"""What OpenAPI cannot read off the routes: bodies that are decoded by hand, and problem documents."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from service import npy
from service.schemas import AnswerHead, Knobs, PredictResponse, ProblemDocument, Progress

REFERENCE = "#/components/schemas/{model}"

ANSWER = "anytime-answer"
"""Header of an .npy answer: what JSON would tell beside the numbers."""

ARRAY = {"type": "string", "format": "binary", "description": "One array in .npy form, version 1.0 or 2.0."}


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route that decodes a JSON body of this model itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _reference(model)}}}}


def body_or_array(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route that takes this model as JSON, or its `inputs` as .npy and the rest as query."""
    extra = body_of(model)
    extra["requestBody"]["content"][npy.MEDIA_TYPE] = {"schema": ARRAY}
    extra["parameters"] = parameters(Knobs, "Beside an .npy body only. ")
    return extra


def parameters(model: type[BaseModel], note: str = "") -> list[dict[str, Any]]:
    """The fields of this model as a query; each description begins with `note`."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": note + schema.pop("description", ""),
            "schema": schema,
            **({"style": "form", "explode": False} if schema.get("type") == "array" else {}),
        }
        for name, schema in model.model_json_schema()["properties"].items()
    ]


def or_array() -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers with an .npy body to who accepts one."""
    head = {"content": {"application/json": {"schema": _reference(AnswerHead)}}}
    described = {"description": "Of an .npy answer: what JSON would tell beside the numbers."}
    return {200: {"content": {npy.MEDIA_TYPE: {"schema": ARRAY}}, "headers": {"Anytime-Answer": described | head}}}


def followed_up() -> dict[int | str, dict[str, Any]]:
    """`responses` of a route whose answer can be continued and labelled: how."""
    request_id = "$response.body#/request_id"
    links = {
        "continue": {
            "operationId": "continue__predict__request_id__continue_post",
            "parameters": {"request_id": request_id},
            "description": "Go on from this answer, if it was kept (`kept_ms`).",
        },
        "feedback": {
            "operationId": "feedback_feedback_post",
            "requestBody": {"request_id": request_id},
            "description": "Label this answer; `labels` go into the body too.",
        },
    }
    return {200: {"links": links}}


def events() -> dict[int | str, dict[str, Any]]:
    """`responses` of the route that answers with server-sent events."""
    each = {
        "type": "object",
        "description": "Each event.",
        "oneOf": [_event("prefix", Progress), _event("answer", PredictResponse)],
    }
    return {200: {"description": "Server-sent events.", "content": {"text/event-stream": {"schema": each}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` for a route that may answer with these problem statuses."""
    schema = {"schema": _reference(ProblemDocument)}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": schema}}
        for status in statuses
    }


def _event(name: str, data: type[BaseModel]) -> dict[str, Any]:
    payload = {"type": "string", "contentMediaType": "application/json", "contentSchema": _reference(data)}
    return {"properties": {"event": {"const": name}, "data": payload}, "required": ["event", "data"]}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REFERENCE.format(model=model.__name__)}
