"""What OpenAPI cannot read off the routes: bodies that are decoded by hand, and problem documents."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel

from service.schemas import ProblemDocument

REFERENCE = "#/components/schemas/{model}"


def body_of(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` for a route that decodes a body of this model itself."""
    content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` for a route that may answer with these problem statuses."""
    schema = {"schema": {"$ref": REFERENCE.format(model=ProblemDocument.__name__)}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/problem+json": schema}}
        for status in statuses
    }
