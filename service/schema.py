"""What all schemas of the wire share. Durations are milliseconds there, seconds inside."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Output = Literal["probabilities", "logits"]


def example(content: dict[str, Any]) -> ConfigDict:
    """The configuration of a schema that shows an example."""
    return ConfigDict(json_schema_extra={"examples": [content]})


class Asked(BaseModel):
    """What a client sends."""

    # Strict: "50" is no number, and a misspelt field is an error rather than a silent default.
    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)


class Answered(BaseModel):
    """What the service answers."""

    model_config = ConfigDict(use_attribute_docstrings=True)
