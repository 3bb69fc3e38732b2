"""The HTTP contract as a page for people: one HTML document, no scripts, nothing fetched from anywhere.

A pure function of the OpenAPI document.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

Node = Mapping[str, Any]
"""A part of the document."""

STYLE = files("service").joinpath("handbook.css").read_text()
NPY = "application/octet-stream"
PROBLEM = "application/problem+json"
HUGE = 1e6
"""Bounds from here on are those of a number format."""
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def page(document: Node) -> str:
    """HTML of the handbook.

    Args:
        document: OpenAPI 3.1, with the codes of problem documents as `x-problems`.
    """
    info = document["info"]
    operations = list(_operations(document))
    parts = [
        f"<header><h1>{escape(info['title'])}</h1><p class=quiet>{escape(info['summary'])}</p></header>",
        "<div class=page>",
        _contents(operations, document),
        f"<main>{_prose(info['description'])}",
        _start(),
        "<h2 id=endpoints>Endpoints</h2>",
        *(_endpoint(method, path, operation, document) for method, path, operation in operations),
        _problems(document),
        _objects(document),
        "</main></div>",
    ]
    return (
        '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">'
        f'<title>{escape(info["title"])}</title><link rel=icon href="data:,"><style>{STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _operations(document: Node) -> Iterator[tuple[str, str, Node]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def _contents(operations: Iterable[tuple[str, str, Node]], document: Node) -> str:
    links = "".join(
        f'<li><a href="#{_anchor(operation)}"><span class="method {method}">{method.upper()}</span>'
        f"<code>{escape(path)}</code></a>"
        for method, path, operation in operations
    )
    return (
        f'<nav aria-label=Contents><ul><li class=group><a href="#endpoints">Endpoints</a>{links}'
        '<li class=group><a href="#errors">Errors</a><li class=group><a href="#objects">Objects</a>'
        f'<li class=group><a href="/openapi.json">openapi.json</a> <span class=quiet>version '
        f"{escape(document['info']['version'])}</span></ul></nav>"
    )


def _start() -> str:
    return (
        "<p>The examples are for a shell that knows the address of this page. Where the service has API keys, every "
        'request but the probes carries one: add <code>-H "x-api-key: $KEY"</code>.</p>'
        "<pre>ANYTIME=http://127.0.0.1:8000</pre>"
    )


def _endpoint(method: str, path: str, operation: Node, document: Node) -> str:
    return "".join(
        (
            f'<article id="{_anchor(operation)}"><h3><span class="method {method}">{method.upper()}</span>'
            f"<code class=path>{escape(path)}</code></h3><p><strong>{escape(operation['summary'])}</strong></p>",
            _prose(operation.get("description", "")),
            _listed("Path", _parameters(operation, "path")),
            _body(operation, document),
            _folded("Query", _parameters(operation, "query")),
            _answers(operation),
            "<h4>Example</h4>",
            *(f"<pre>{escape(command)}</pre>" for command in _commands(method, path, operation, document)),
            "</article>",
        )
    )


def _parameters(operation: Node, place: str) -> list[str]:
    return [
        _field(one["name"], one["schema"], one.get("description", ""), one["required"])
        for one in operation.get("parameters", [])
        if one["in"] == place
    ]


def _body(operation: Node, document: Node) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return ""
    schema = _resolved(content["application/json"]["schema"], document)
    body = _listed("Body: JSON", _fields(schema))
    if NPY in content:
        body += f"<p>Or <code>{NPY}</code>: {escape(content[NPY]['schema']['description'])}</p>"
    return body


def _answers(operation: Node) -> str:
    rows, refusals = [], []
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if PROBLEM in content:
            told = f"{status} {answer['description']}".replace(" ", "\N{NO-BREAK SPACE}")
            refusals.append(f'<a href="#errors-{status}">{escape(told)}</a>')
            continue
        told = "; ".join(f"<code>{escape(kind)}</code> {_type(form['schema'])}" for kind, form in content.items())
        rows.append(_row(f"<code>{status}</code>", told or escape(answer["description"])))
        for name, link in answer.get("links", {}).items():
            rows.append(_row(f'then <a href="#{_anchor(link)}">{escape(name)}</a>', _prose(link["description"])))
    if refusals:
        rows.append(_row("errors", ", ".join(refusals)))
    return _listed("Answers", rows)


def _commands(method: str, path: str, operation: Node, document: Node) -> Iterator[str]:
    address = re.sub(r"\{(\w+)\}", lambda found: "$" + found[1].upper(), path)
    content = operation.get("requestBody", {}).get("content", {})
    streams = " -N" if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}) else ""
    verb = " -X POST" if method == "post" and not content else ""
    command = f'curl{streams}{verb} "$ANYTIME{address}'
    if not content:
        yield f'{command}"'
        return
    (example,) = _resolved(content["application/json"]["schema"], document)["examples"]
    yield f"{command}\" -H 'content-type: application/json' \\\n  -d '{json.dumps(example)}'"
    if NPY in content:
        yield f"{command}?deadline_ms=20\" -H 'content-type: {NPY}' \\\n  --data-binary @samples.npy"


def _problems(document: Node) -> str:
    by_status: dict[int, list[Node]] = {}
    for problem in document["x-problems"]:
        by_status.setdefault(problem["status"], []).append(problem)
    parts = [
        '<h2 id=errors>Errors</h2><p>Every error is a <a href="#object-ProblemDocument">ProblemDocument</a> of type '
        f"<code>{PROBLEM}</code>. Programs go by its <code>code</code>, which is stable.</p>"
    ]
    for status, group in sorted(by_status.items()):
        rows = [_row(f"<code>{escape(one['code'])}</code>", _prose(one["description"])) for one in group]
        title = f"{status} {group[0]['title']}"
        parts.append(f"<section id=errors-{status}>{_listed(title, rows)}</section>")
    return "".join(parts)


def _objects(document: Node) -> str:
    parts = ["<h2 id=objects>Objects</h2>"]
    for name, schema in document["components"]["schemas"].items():
        example = "".join(
            f"<h4>Example</h4><pre>{escape(json.dumps(one, indent=2))}</pre>" for one in schema.get("examples", [])
        )
        parts.append(
            f"<article id=object-{name}><h3><code class=path>{name}</code></h3>{_prose(schema.get('description', ''))}"
            f"<dl>{''.join(_fields(schema))}</dl>{example}</article>"
        )
    return "".join(parts)


def _fields(schema: Node) -> list[str]:
    needed = schema.get("required", [])
    fields = sorted(schema.get("properties", {}).items(), key=lambda field: field[0] not in needed)
    return [_field(name, field, field.get("description", ""), name in needed) for name, field in fields]


def _field(name: str, schema: Node, description: str, needed: bool) -> str:
    default = schema.get("default")
    told = f" <span class=quiet>Default: <code>{escape(json.dumps(default))}</code></span>" if default else ""
    mark = " <span class=needed>required</span>" if needed else ""
    term = f"<code>{escape(name)}</code>{mark}<br><span class=type>{_type(schema)}</span>"
    return _row(term, _prose(description) + told)


def _row(term: str, meaning: str) -> str:
    return f"<div><dt>{term}</dt><dd>{meaning}</dd></div>"


def _type(schema: Node) -> str:
    """What a value may be, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#object-{name}">{name}</a>'
    if "anyOf" in schema:
        # pydantic leaves some bounds beside the choice that they belong into.
        outer = {name: schema[name] for name in BOUNDS if name in schema}
        return " or ".join(_type(one if one.get("type") == "null" else {**one, **outer}) for one in schema["anyOf"])
    if "oneOf" in schema:
        # Of server-sent events, what their data holds.
        data = (one.get("properties", {}).get("data", {}).get("contentSchema", one) for one in schema["oneOf"])
        told = " or ".join(map(_type, data))
    elif "const" in schema:
        told = f"<code>{escape(str(schema['const']))}</code>"
    elif "enum" in schema:
        told = " or ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"])
    elif schema.get("type") == "array":
        told = "array" + (f" of {_type(schema['items'])}" if schema.get("items") else "")
    elif schema.get("format") == "binary":
        told = "bytes"
    else:
        kinds = schema.get("type", "anything")
        told = escape(kinds if isinstance(kinds, str) else " or ".join(kinds))
    bounds = [f"{sign} {schema[name]:g}" for name, sign in BOUNDS.items() if abs(schema.get(name, HUGE)) < HUGE]
    return " ".join([told, escape(", ".join(bounds))]).strip()


def _listed(title: str, rows: list[str]) -> str:
    return f"<h4>{escape(title)}</h4><dl>{''.join(rows)}</dl>" if rows else ""


def _folded(title: str, rows: list[str]) -> str:
    if not rows:
        return ""
    fields = f"{len(rows)} field" + ("" if len(rows) == 1 else "s")
    return f"<details><summary>{escape(title)}: {fields}</summary><dl>{''.join(rows)}</dl></details>"


def _prose(text: str) -> str:
    """Paragraphs, with what stands between backticks as code."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return "".join(f"<p>{paragraph}</p>" for paragraph in re.split(r"\n\s*\n", marked) if paragraph)


def _anchor(operation: Node) -> str:
    """Of an operation, or of what a link leads to."""
    return escape(operation["operationId"])


def _resolved(schema: Node, document: Node) -> Node:
    """The schema itself, where this is a reference."""
    found: Node = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found
