"""What the clients raise for a problem document."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import orjson


class AnytimeError(Exception):
    """The server answered with a problem document.

    `code` is stable and for programs; `retry_after_s` is set when the same request may succeed later.
    """

    def __init__(self, status: int, code: str, detail: str, document: Mapping[str, Any]) -> None:
        # What it was made of, so that it can be copied, and pickled on its way out of another process.
        super().__init__(status, code, detail, document)
        self.status = status
        self.code = code
        self.detail = detail
        self.document = document

    def __str__(self) -> str:
        return f"{self.detail} ({self.code}, HTTP {self.status})"

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the same request may succeed."""
        return self.document.get("retry_after_s")


def raise_problem(status: int, reason: str, content_type: str | None, body: bytes) -> NoReturn:
    """Raise the `AnytimeError` of an answer that is none."""
    if content_type is not None and content_type.partition(";")[0].strip().lower() == "application/problem+json":
        with suppress(orjson.JSONDecodeError):
            document = orjson.loads(body)
            if isinstance(document, dict) and document.keys() >= {"status", "code", "detail"}:
                raise AnytimeError(document["status"], document["code"], document["detail"], document)
    # Not this service: a proxy in between, for example, which may have problems of its own.
    raise AnytimeError(status, "no_problem_document", reason, {})
