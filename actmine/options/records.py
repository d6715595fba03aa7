"""Every command and the record of what it may be asked."""

from __future__ import annotations

import importlib

COMMANDS = (
    "mine",
    "visualize",
    "layers",
    "sheets",
    "atlas",
    "atlas-export",
    "publish",
    "shards",
    "views",
    "focus",
    "check",
    "compare",
    "map",
    "score",
    "facets",
    "dictionary",
    "activation-atlas",
    "notes",
    "inspect",
    "demo-model",
)
"""`commands/NAME.py` carries one out (with underscores), `options/NAME.py` says what it may be asked."""


def options_of(command: str) -> type:
    """The record of a command's options."""
    record: type = getattr(importlib.import_module(f"actmine.options.{file_of(command)}"), record_name(command))
    return record


def file_of(command: str) -> str:
    """The file of a command, and its function."""
    return command.replace("-", "_")


def record_name(command: str) -> str:
    """What the record of its options is called."""
    return command.title().replace("-", "")
