"""Bytes of a body to a valid request object."""

from __future__ import annotations

from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from service.errors import InvalidField, MalformedBody

Schema = TypeVar("Schema", bound=BaseModel)


async def read_json(request: Request, schema: type[Schema]) -> Schema:
    """Read the body as a JSON object of the schema.

    Raises:
        MalformedBody: it is no JSON object.
        InvalidField: a field is missing, unknown or of the wrong type.
        BodyTooLarge: it grew past the limit while it was read.
    """
    try:
        document = orjson.loads(await request.body())
    except ClientDisconnect as error:
        raise MalformedBody("The client hung up before the whole body had come.") from error
    except orjson.JSONDecodeError as error:
        raise MalformedBody(f"The body is not valid JSON: {error}.") from error
    if not isinstance(document, dict):
        raise MalformedBody("The body must be a JSON object.")
    try:
        return schema.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidField(f"Field `{field}`: {_lower(first['msg'])}.", field=field) from error


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
