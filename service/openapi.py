"""The HTTP contract: FastAPI's schema, completed.

Routes decode their bodies by hand, so their schemas are added here.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from service.errors import kinds
from service.routes.documented import REFERENCE
from service.schemas import AnswerHead, ContinueRequest, FeedbackRequest, PredictRequest, ProblemDocument, Progress
from service.stream_schemas import StreamEvent, StreamMessage

VERSION = "1"
"""Of the contract, not of the release: raised when a client must change."""

SUMMARY = "Predictions that are as good as the deadline allows."
DESCRIPTION = """\
Every model is an ensemble of small members. A request says how long its answer may take; members run in
order, and at the deadline the mean logits of those that were finished are the answer. Every error is an
RFC 9457 problem document with a stable `code`."""


def describe(app: FastAPI) -> None:
    """Let the app give the completed schema at /openapi.json."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=VERSION, summary=SUMMARY, description=DESCRIPTION, routes=app.routes)
    _, models = models_json_schema(
        [
            (model, "validation")
            for model in (
                PredictRequest,
                ContinueRequest,
                FeedbackRequest,
                ProblemDocument,
                AnswerHead,
                Progress,
                StreamMessage,
                StreamEvent,
            )
        ],
        ref_template=REFERENCE,
    )
    schemas = schema["components"]["schemas"]
    schemas.update(models["$defs"])
    # FastAPI's own error body: this service answers with problem documents instead.
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schema["components"]["schemas"] = dict(sorted(schemas.items()))
    # OpenAPI has no place for codes of errors.
    schema["x-problems"] = [
        {"code": kind.code, "status": kind.status.value, "title": kind.status.phrase, "description": kind.__doc__}
        for kind in sorted(kinds(), key=lambda kind: (kind.status, kind.code))
    ]
    return schema
