"""Just enough of PromQL to see which metrics and labels an expression speaks of."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""(?P<string>"[^"]*"|'[^']*')
    | (?P<range>\[[^\]]*\])
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    | (?P<number>\d[\d.eE]*[smhdwy]?)
    | (?P<operator>=~|!~|!=|[=<>]=?|[-+*/%^(){},])
    | (?P<space>\s+)""",
    re.VERBOSE,
)
LABELS_FOLLOW = {"by", "without", "on", "ignoring", "group_left", "group_right"}
OPERATORS = {"and", "or", "unless", "bool", "offset"}


@dataclass
class Spoken:
    """What an expression names: metrics, matchers of each, and the labels it groups or joins by."""

    matchers: dict[str, list[tuple[str, str, str]]] = field(default_factory=lambda: defaultdict(list))
    grouped: set[str] = field(default_factory=set)


def parse(expression: str) -> Spoken:
    """Raises ValueError on what is not PromQL, or not the part of it that is understood here."""
    tokens = _tokens(expression)
    spoken = Spoken()
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if text in LABELS_FOLLOW:
            end = tokens.index(("operator", ")"), at)
            spoken.grouped |= {word for sort, word in tokens[at:end] if sort == "name"} - {text}
            at = end
        elif kind == "name" and text not in OPERATORS and following != "(" and following not in LABELS_FOLLOW:
            spoken.matchers[text] += []
            if following == "{":
                end = tokens.index(("operator", "}"), at)
                spoken.matchers[text] += _matchers(tokens[at + 2 : end])
                at = end
        elif text == "{":
            raise ValueError(f"a selector without a metric's name in {expression!r}")
        at += 1
    return spoken


def _matchers(tokens: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    parts = [token for token in tokens if token != ("operator", ",")]
    return [
        (label, operator, value[1:-1])
        for (_, label), (_, operator), (_, value) in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"no PromQL at {expression[at:]!r}")
        if match.lastgroup not in {"space", "range"}:
            tokens.append((str(match.lastgroup), match.group()))
        at = match.end()
    return tokens
