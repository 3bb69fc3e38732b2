"""`python -m bundle.schema` writes manifest.schema.json, the contract for tools that are not written in Python."""

from __future__ import annotations

import json
from pathlib import Path

from bundle.manifest import Manifest

PATH = Path(__file__).with_name("manifest.schema.json")


def render() -> str:
    """The JSON schema of manifest.json, as committed."""
    schema = Manifest.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(render())
