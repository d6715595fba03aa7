"""Any text as a word of YAML and as text of Markdown, where it means nothing but itself."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")
"""Categories of Unicode of what cannot be seen, or turns the direction of reading."""


def plain(said: str) -> str:
    """Text on one line, of characters that can be seen; nothing turns the direction of reading."""
    return " ".join(visible(" ".join(said.split())).split())


def visible(said: str) -> str:
    """Text without characters that cannot be seen; lines stay."""
    return "".join(each for each in said if each == "\n" or unicodedata.category(each) not in _UNSEEN)


def code(said: str) -> str:
    """Text as a span of code, in which Markdown and HTML mean nothing; a stroke would end a cell of a table."""
    shown = plain(said) or "?"
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def markdown(said: str) -> str:
    """Text on one line in which Markdown and HTML mean nothing."""
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&$])", r"\\\1", plain(said))


def yaml(value: Any, indent: str = "") -> str:
    """Records, lists and words as YAML, every word in quotes."""
    if isinstance(value, Mapping):
        lines = []
        for name, each in value.items():
            if isinstance(each, Mapping | list):
                lines.append(f"{indent}{name}:\n{yaml(each, indent)}")
            else:
                lines.append(f"{indent}{name}: {_scalar(each)}\n")
        return "".join(lines)
    lines = []
    for each in value:
        if isinstance(each, Mapping):
            lines.append(f"{indent}- {yaml(each, indent + '  ').removeprefix(indent + '  ')}")
        else:
            lines.append(f"{indent}- {_scalar(each)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return '"' + "".join(map(_escaped, str(value))) + '"'


def _escaped(each: str) -> str:
    number = ord(each)
    if each in '"\\':
        return f"\\{each}"
    if 0x20 <= number < 0x7F:
        return each
    if 0xD800 <= number < 0xE000:
        return "?"
    return f"\\x{number:02X}" if number < 0x100 else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
