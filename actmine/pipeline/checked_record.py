"""`run.json` as it is read: what is damaged, or lacks a word that is asked for, becomes a sentence for the user."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from actmine.pipeline.errors import UserError, first_line

_FIX = "Mine the run again with the same command: it writes the file anew."
_NEEDED = ("model", "dataset")
_KINDS: dict[str, type] = {
    "model": str, "dataset": str, "fingerprint": str, "weights": str, "weights_hash": str, "preprocessing": dict,
    "layers": list, "bands": list, "counts": dict, "asked": dict, "seconds": dict, "versions": dict,
    "visualizations": dict, "views": dict, "matches": dict, "neighbors": dict, "facets": dict, "published": dict,
    "activation_atlases": dict, "maps_of": dict,
}  # fmt: skip
"""What words of it are, where they are there."""
_OF_ATLASES = ("positions", "without_direction", "cells", "least", "reached", "with_ratio")
"""Numbers that are known of every activation atlas."""
_ENDS = ("max", "min", "both")


class Lacking(UserError, KeyError):
    """A word that a record lacks."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class Record(dict[str, Any]):
    """A record read from `file`, within it too; a word that it lacks raises `Lacking`, a `UserError`."""

    file: Path

    def __missing__(self, word: str) -> Any:
        raise Lacking(f"{self.file} lacks {word!r}: it is damaged, or of another version. {_FIX}")


def parsed(data: bytes, file: Path) -> Record:
    """The record that is the content of `file`. Raises `UserError` if it is not the record of a run."""
    try:
        found = json.loads(data, object_hook=lambda words: _record(words, file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({first_line(error)}). {_FIX}") from error
    if not isinstance(found, Record):
        raise UserError(f"{file} is damaged (it holds no record of a run). {_FIX}")
    return found


def checked(found: Record) -> Record:
    """A record as it was given. Raises `UserError` where words that every run has are missing or are something else."""
    for word in _NEEDED:
        found[word]
    for word, kind in _KINDS.items():
        if word in found and not isinstance(found[word], kind):
            raise UserError(f"{found.file} is damaged ({word} is {type(found[word]).__name__}). {_FIX}")
    for layer, about in found.get("activation_atlases", {}).items():
        if not isinstance(about, dict) or not all(isinstance(about.get(word), int) for word in _OF_ATLASES):
            raise UserError(f"{found.file} is damaged (activation_atlases, {layer}). {_FIX}")
    if found.get("direction", _ENDS[0]) not in _ENDS:
        raise UserError(f"{found.file} is damaged (direction is {found['direction']!r}). {_FIX}")
    return found


def _record(words: dict[str, Any], file: Path) -> Record:
    made = Record(words)
    made.file = file
    return made


def total_seconds(written: Mapping[str, Any]) -> float:
    """How long all that a run holds took together: mining, and every stage that was added to it (seconds)."""
    stages = [
        written.get(name) or {} for name in ("neighbors", "focus", "crop_check", "sheets", "facets", "interpretability")
    ]
    for name in ("visualizations", "views", "maps_of", "activation_atlases"):
        stages += (written.get(name) or {}).values()
    mined = float((written.get("seconds") or {}).get("mine", 0.0))
    return mined + sum(float(each.get("seconds") or 0.0) for each in stages if isinstance(each, dict))
