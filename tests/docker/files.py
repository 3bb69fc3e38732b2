"""The files of docker/, read once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "docker"


def read_yaml(path: str) -> Any:
    return yaml.safe_load((DOCKER / path).read_text())


def dashboard() -> dict[str, Any]:
    return json.loads((DOCKER / "grafana/dashboards/anytime.json").read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml("alerts.yml")["groups"] for rule in group["rules"]]


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(keyword, arguments) of each instruction, its lines joined."""
    text = "\n".join(line for line in (DOCKER / dockerfile).read_text().splitlines() if not line.startswith("#"))
    found = [line.strip().partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(keyword, re.sub(r"\s+", " ", rest).strip()) for keyword, _, rest in found]


def stages(dockerfile: str) -> list[list[tuple[str, str]]]:
    """Instructions by build stage; the last is the image."""
    found: list[list[tuple[str, str]]] = []
    for keyword, arguments in instructions(dockerfile):
        if keyword == "FROM":
            found.append([])
        found[-1].append((keyword, arguments))
    return found


def arguments(steps: list[tuple[str, str]], keyword: str) -> list[str]:
    return [text for word, text in steps if word == keyword]


def environment(steps: list[tuple[str, str]]) -> dict[str, str]:
    return dict(pair.split("=", 1) for text in arguments(steps, "ENV") for pair in text.split())
