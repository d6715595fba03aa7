"""The words that may stand behind an address of the interface for programs: what they mean, and how they are read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from starlette.datastructures import QueryParams

from actmine.pipeline.atlas.interface import MOST_ROWS, ROWS, NoWord
from actmine.pipeline.atlas.layer_pages import SORTS
from actmine.pipeline.atlas.request_words import is_number

LONGEST = 500
"""Characters of a word."""
_MOST = 10**18 - 1

WORDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "sort": (
        "the column by which units are sorted: numbers ascend, all else descends",
        {"type": "string", "enum": list(SORTS), "default": "unit"},
    ),
    "reverse": ("the other way round", {"type": "boolean", "default": False}),
    "label": (
        "only units with this in their label or name, or whose numbers it lists: 3,7,10-20",
        {"type": "string", "maxLength": LONGEST, "default": ""},
    ),
    "q": ("what to look for", {"type": "string", "maxLength": LONGEST, "default": ""}),
    "layer": ("only what is of this layer, by its name", {"type": "string", "maxLength": LONGEST, "default": ""}),
    "unit": ("only what is of units of this number", {"type": "integer", "minimum": 0, "maximum": _MOST}),
    "image": ("only what is of this image, by its number", {"type": "integer", "minimum": 0, "maximum": _MOST}),
    "limit": ("the most rows of the answer", {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": ROWS}),
    "offset": ("rows before the first one", {"type": "integer", "minimum": 0, "maximum": _MOST, "default": 0}),
    "columns": ("these columns of a row alone, with commas between them", {"type": "array", "uniqueItems": True}),
}
"""Of each word what it says, and its JSON schema; what `columns` may be is what the rows of an answer have."""


def read(said: QueryParams, known: Sequence[str], columns: Collection[str]) -> dict[str, Any]:
    """The value of every `known` word, of rows with such `columns`; its default, or None, where it is not said.

    Raises `NoWord`, which names the word, for one that is unknown, said twice, or none of its kind.
    """
    for name in said:
        if name not in known:
            these = f"; known are {', '.join(known)}" if known else ""
            raise NoWord(f"There is no word {name[:LONGEST]!r} here{these}.")
    return {name: _value(name, said.getlist(name), WORDS[name][1], columns) for name in known}


def _value(name: str, said: Sequence[str], schema: Mapping[str, Any], columns: Collection[str]) -> Any:
    if len(said) > 1:
        raise NoWord(f"{name} is said {len(said)} times; say it once.")
    if not said:
        return schema.get("default")
    text = said[0]
    if schema["type"] == "array":
        wanted = text.split(",") if text else []
        if unknown := [each[:LONGEST] for each in wanted if each not in columns]:
            raise NoWord(f"{name}: the rows have no {unknown[0]!r}; known are {', '.join(columns)}.")
        if len(set(wanted)) < len(wanted):
            raise NoWord(f"{name}: say each once.")
        return wanted
    if schema["type"] == "boolean":
        if text not in ("true", "false"):
            raise NoWord(f"{name} is true or false, not {text[:LONGEST]!r}.")
        return text == "true"
    if schema["type"] == "integer":
        if not is_number(text) or not schema["minimum"] <= int(text) <= schema["maximum"]:
            least, most = schema["minimum"], schema["maximum"]
            raise NoWord(f"{name} is a whole number from {least} to {most:,}, not {text[:LONGEST]!r}.")
        return int(text)
    if len(text) > schema.get("maxLength", LONGEST):
        raise NoWord(f"{name} has at most {LONGEST} characters; this has {len(text):,}.")
    if "enum" in schema and text not in schema["enum"]:
        raise NoWord(f"{name} is one of {', '.join(schema['enum'])}, not {text[:LONGEST]!r}.")
    return text
