"""How the interface for programs describes itself: OpenAPI 3.1, out of the answers and the schemas of the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from actmine.pipeline.atlas.interface import MOST_ROWS, Answer
from actmine.pipeline.atlas.interface_words import WORDS
from actmine.schemas.fields import IMAGE

_MOST = 10**18 - 1
_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "layer": ("the layer's part of its address, as /api/layers gives it", {"type": "string"}),
    "unit": ("number of the unit within its layer, from 0", {"type": "integer", "minimum": 0, "maximum": _MOST}),
    "image": ("number of the image in the whole dataset, from 0", {"type": "integer", "minimum": 0, "maximum": _MOST}),
}
_ADDRESS = {"type": ["string", "null"], "description": "address of the picture; null where there is none"}
_REFUSALS = {
    "400": "A word behind the address is none of this address, or none of its kind.",
    "404": "The run has no such thing.",
    "405": "Only reading is allowed.",
    "413": "The request has too long a body.",
    "414": "The address is too long.",
    "429": "Too many requests; Retry-After says when to come back.",
    "431": "The headers of the request are too long.",
    "500": "A table of the run cannot be read.",
    "503": "Too much is being done at once; Retry-After says when to come back.",
}
_HEADERS = {
    "ETag": {"description": "names the state of what is told", "schema": {"type": "string"}},
    "Cache-Control": {"description": "no-cache: ask again, with If-None-Match", "schema": {"type": "string"}},
}


def description(answers: Sequence[Answer], version: str) -> dict[str, Any]:
    """The document of the answers; `version` is that of actmine."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "actmine atlas", "version": version,
            "description": "Rows of a run's tables as JSON, under the tables' own names. Lists come in pages: `next` "
            "is the address of the page behind. Pictures and pages are addresses; what is no finite number is null.",
        },
        "paths": {each.path: {"get": _operation(each)} for each in answers},
        "components": {
            "schemas": {
                "Error": {
                    "type": "object", "required": ["error"], "additionalProperties": False,
                    "properties": {"error": {"type": "string", "description": "what is wrong, in a sentence"}},
                },
            },
            "responses": {
                status: _response(says, {"$ref": "#/components/schemas/Error"}, _refused(status))
                for status, says in _REFUSALS.items()
            },
        },
    }  # fmt: skip


def _refused(status: str) -> dict[str, Any]:
    """The headers of a refusal."""
    if status == "405":
        return {"Allow": {"required": True, "schema": {"type": "string"}}}
    return {"Retry-After": {"required": True, "schema": {"type": "string"}}} if status in ("429", "503") else {}


def _operation(answer: Answer) -> dict[str, Any]:
    named = re.findall(r"{(\w+)}", answer.path)
    parts = [(name, "path", True, *_PARTS[name]) for name in named]
    words = [(name, "query", False, *WORDS[name]) for name in answer.all_words]
    columns = {"items": {"type": "string", "enum": [each.name for each in answer.columns]}}
    statuses = [each for each in _REFUSALS if (each != "404" or named) and (each != "503" or answer.heavy)]
    headers = {name: header | {"required": True} for name, header in _HEADERS.items()}
    return {
        "operationId": "_".join(re.findall(r"\w+", answer.path.removeprefix("/api"))) or "addresses",
        "summary": answer.says,
        "parameters": [
            {"name": name, "in": where, "required": needed, "description": says, "schema": schema}
            | ({"schema": schema | columns, "style": "form", "explode": False} if name == "columns" else {})
            for name, where, needed, says, schema in (*parts, *words)
        ],
        "responses": {
            "200": _response(answer.says, _schema(answer), headers),
            "304": {"description": "It is still as the ETag in If-None-Match names it.", "headers": headers},
            **{each: {"$ref": f"#/components/responses/{each}"} for each in statuses},
        },
    }  # fmt: skip


def _response(says: str, schema: dict[str, Any], headers: dict[str, Any]) -> dict[str, Any]:
    return {"description": says, "headers": headers, "content": {"application/json": {"schema": schema}}}


def _schema(answer: Answer) -> dict[str, Any]:
    if answer.schema is None:
        return {"type": "object"}
    row = _object({each.name: _column(each) for each in answer.columns})
    del row["required"]  # with the word `columns` some of them
    if answer.one:
        return row
    count = {"type": "integer", "minimum": 0}
    return _object({
        "count": count | {"description": "rows of the whole list"},
        "offset": count | {"description": "rows before the first one here"},
        "next": {"type": ["string", "null"], "description": "address of the next page; null on the last"},
        **answer.more, "rows": {"type": "array", "maxItems": MOST_ROWS, "items": row},
    })  # fmt: skip


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


def _column(column: pa.Field) -> dict[str, Any]:
    said = (column.metadata or {}).get(b"description", b"").decode()
    return _type(column.type) | ({"description": said} if said else {})


def _type(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return dict(_ADDRESS)
    if pa.types.is_list(kind):
        return {"type": ["array", "null"], "items": _type(kind.value_type)}
    if pa.types.is_struct(kind):
        return _object({each.name: _type(each.type) for each in kind})
    names = ((pa.types.is_boolean, "boolean"), (pa.types.is_integer, "integer"), (pa.types.is_floating, "number"))
    return {"type": [next((name for test, name in names if test(kind)), "string"), "null"]}
