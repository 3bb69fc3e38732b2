"""Bytes of a request, head and body, to a valid request object."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from service import npy
from service.errors import InvalidField, MalformedBody
from service.ingress import visit_of
from service.schemas import Knobs, PredictRequest
from service.tensors import check_unmixed

Schema = TypeVar("Schema", bound=BaseModel)

NPY = npy.MEDIA_TYPE.encode()

REMEMBERED_BYTES = 512
"""Of a query: longer ones are read each time."""


async def read_json(request: Request, schema: type[Schema]) -> Schema:
    """Read the body as a JSON object of the schema.

    Raises:
        MalformedBody: it is no JSON object.
        InvalidField: a field is missing, unknown or of the wrong type, or in the query.
        BodyTooLarge: it grew past the limit while it was read.
        RequestTimeout: it came too slowly.
    """
    _check_no_query(request)
    return parse(await read_body(request), schema)


async def read_predict(request: Request) -> tuple[Knobs, object]:
    """Read a request for a prediction: JSON, or an .npy body with the other fields in the query.

    Returns:
        What it asks, which may be shared by others that ask the same; and its inputs, nested lists or an array, not
        yet held against a model.

    Raises:
        Problem: as `read_json`.
    """
    if _media_type(visit_of(request).headers) == NPY:
        asked = _asked(request.scope["query_string"])
        try:
            inputs = npy.decode(await read_body(request))
        except npy.NotNpy as error:
            raise MalformedBody(f"The body is not valid .npy: {error}.") from error
        return asked, inputs
    _check_no_query(request)
    content = await read_body(request)
    wanted = parse(content, PredictRequest)
    if b"true" in content or b"false" in content or content.count(b'"') > _quotes(wanted):
        check_unmixed(wanted.inputs)
    # As nested lists they would be walked by every collection of garbage until the answer.
    inputs, wanted.inputs = wanted.inputs, None
    return wanted, inputs


def _asked(query: bytes) -> Knobs:
    """What a query asks; shared by all who ask the same.

    Raises:
        InvalidField: as `query_of`.
    """
    return _remembered(query) if len(query) <= REMEMBERED_BYTES else _remembered.__wrapped__(query)


# A client asks for the same again and again.
@lru_cache(maxsize=256)
def _remembered(query: bytes) -> Knobs:
    return query_of(query, Knobs)


def _media_type(headers: Mapping[bytes, bytes]) -> bytes:
    """Of the body, without parameters such as a charset."""
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _quotes(wanted: PredictRequest) -> int:
    """Quotation marks of a body whose `inputs` hold no text: of its fields' names, and of what is text in others.

    No field but `inputs` can hold a truth value either, so hardly a body has to be looked through.
    """
    texts = len(wanted.model_fields_set) + len(wanted.outputs) + (wanted.model is not None)
    return 2 * texts


def query_of(query: bytes, schema: type[Schema]) -> Schema:
    """The fields of a query string as an object of the schema; several `outputs` are separated by commas.

    Raises:
        InvalidField: a field is unknown, of the wrong type, or there twice.
    """
    if not query:
        return schema()
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in fields:
            raise InvalidField(f"Field `{name}`: it is in the query twice.", field=name)
        fields[name] = value.split(",") if name == "outputs" else value
    # A query is text: here "50" is a number.
    return _validated(schema, fields, strict=False)


def _check_no_query(request: Request) -> None:
    """Refuse fields where nobody looks for them."""
    query: bytes = request.scope["query_string"]
    if query:
        raise InvalidField(
            "The query must be empty beside a JSON body: put its fields into the body.", field=query.decode("latin-1")
        )


async def read_body(request: Request) -> bytes:
    """All of the body; most come in one message.

    Raises:
        MalformedBody: the client hung up before it was there.
        BodyTooLarge, RequestTimeout: see `read_json`.
    """
    parts: list[bytes] = []
    while (message := await request.receive())["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise MalformedBody("The client hung up before the whole body had come.")


def parse(content: bytes | str, schema: type[Schema], what: str = "body") -> Schema:
    """The JSON object of the schema that `content` is; `what` is what people call it.

    Raises:
        MalformedBody: it is no JSON object.
        InvalidField: a field is missing, unknown or of the wrong type.
    """
    try:
        document = _loads(content)
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The {what} is not valid JSON: {error}.") from error
    if not isinstance(document, dict):
        raise MalformedBody(f"The {what} must be a JSON object.")
    return _validated(schema, document, strict=True)


def _loads(content: bytes | str) -> object:
    """The JSON value, made without Python's collection of garbage: it would look at lists that are only being made.

    With some thousand of them in a body that takes a part of the time, with millions most of it.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        return orjson.loads(content)
    finally:
        if collecting:
            gc.enable()


def _validated(schema: type[Schema], fields: Mapping[str, Any], *, strict: bool) -> Schema:
    try:
        return schema.model_validate(fields, strict=strict)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidField(f"Field `{field}`: {_lower(first['msg'])}.", field=field) from error


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
