"""How the interface for programs describes itself: OpenAPI 3.1, out of the answers and the schemas of the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from actmine.pipeline.atlas.interface import MOST_ROWS, ROWS, Answer
from actmine.pipeline.atlas.layer_pages import SORTS
from actmine.schemas.fields import IMAGE

_PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "layer": ("name of the layer as its address in /api/layers says it", {"type": "string"}),
    "unit": ("number of the unit within its layer, from 0", {"type": "integer", "minimum": 0}),
    "image": ("number of the image in the whole dataset, from 0", {"type": "integer", "minimum": 0}),
}
WORDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sort": (
        "the column by which units are sorted: numbers ascend, all else descends",
        {"type": "string", "enum": list(SORTS), "default": "unit"},
    ),
    "reverse": ("the other way round", {"type": "boolean", "default": False}),
    "label": ("only units with this in their label, name or number", {"type": "string", "maxLength": 500}),
    "limit": ("rows of the answer", {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": ROWS}),
    "offset": ("rows before the first one", {"type": "integer", "minimum": 0, "default": 0}),
}
"""The words behind the address of an answer that has pages."""
_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_ADDRESS = {"type": ["string", "null"], "description": "address of a picture or a page"}
_ADDED = {
    "address": _ADDRESS, "visualization": _ADDRESS, "crop": _ADDRESS, "image": _ADDRESS, "star": {"type": "boolean"},
    "tags": {"type": "array", "items": {"type": "string"}}, "notes": {"type": "array", "items": {"type": "string"}},
    "noted_name": {"type": ["string", "null"]},
}  # fmt: skip


def description(answers: Sequence[Answer], version: str) -> dict[str, Any]:
    """The document of the answers; `version` is that of actmine."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "actmine atlas", "version": version, "description": "Rows of a run's tables as JSON."},
        "paths": {each.path: {"get": _operation(each)} for each in answers},
    }


def _operation(answer: Answer) -> dict[str, Any]:
    named = re.findall(r"{(\w+)}", answer.path)
    parts = [(name, "path", True, *_PARTS[name]) for name in named]
    words = [(name, "query", False, *WORDS[name]) for name in WORDS if answer.paged]
    errors = {"400": "a word that is none"} if answer.paged else {}
    errors |= {"404": "the run has no such thing"} if named else {}
    return {
        "summary": answer.says,
        "parameters": [
            {"name": name, "in": where, "required": needed, "description": says, "schema": schema}
            for name, where, needed, says, schema in (*parts, *words)
        ],
        "responses": {"200": _response(answer.says, _schema(answer))}
        | {status: _response(says, _ERROR) for status, says in errors.items()}
        | {"500": _response("a table of the run cannot be read", _ERROR)},
    }  # fmt: skip


def _response(says: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": says, "content": {"application/json": {"schema": schema}}}


def _schema(answer: Answer) -> dict[str, Any]:
    if answer.schema is None:
        return {"type": "object"}
    row = {"type": "object", "properties": {each.name: _column(each) for each in answer.schema} | _ADDED}
    if answer.one:
        return row
    rows = {"type": "array", "items": row}
    if not answer.paged:
        return rows
    count = {"type": "integer", "minimum": 0}
    return {
        "type": "object", "required": ["count", "offset", "rows"],
        "properties": {"count": count, "offset": count, "rows": rows | {"maxItems": MOST_ROWS}},
    }  # fmt: skip


def _column(column: pa.Field) -> dict[str, Any]:
    said = (column.metadata or {}).get(b"description", b"").decode()
    return _type(column.type) | ({"description": said} if said else {})


def _type(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return dict(_ADDRESS)
    if pa.types.is_list(kind):
        return {"type": ["array", "null"], "items": _type(kind.value_type)}
    names = ((pa.types.is_boolean, "boolean"), (pa.types.is_integer, "integer"), (pa.types.is_floating, "number"))
    return {"type": [next((name for test, name in names if test(kind)), "string"), "null"]}
