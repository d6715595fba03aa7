"""Words of make: `make sheets UNITS=0-9 GRIDS=1` asks for `--units 0-9 --grids`; every option of a command is one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from actmine.pipeline.errors import UserError, near_matches

_ON, _OFF, _OPEN = frozenset(("1", "yes", "true", "on")), frozenset(("0", "no", "false", "off")), "auto"


def flags_of(record: type) -> dict[str, tuple[str, str, bool]]:
    """Of each option of a `record` by its word of make: its flag, the flag that denies it, whether it takes no value.

    The second is empty where there is none.
    """
    hints = get_type_hints(record, include_extras=True)
    found = {}
    for option in fields(record):
        kind, about = get_args(hints[option.name])[:2]
        said = [word for word in (about.default, *(about.param_decls or ())) if str(word).startswith("--")]
        yes, _, no = next(iter(said), f"--{option.name.replace('_', '-')}").partition("/")
        switch = kind is bool or bool in get_args(kind)
        denies = no or (f"--no-{yes[2:]}" if switch and not said else "")
        found[yes[2:].replace("-", "_").upper()] = (yes, denies, switch)
    return found


def as_flags(command: str, record: type, words: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """The `words` of make as flags of a command; one without a value asks for nothing.

    Raises `UserError` for a word that is none of its options, and for a switch that is neither 1 nor 0.
    """
    flags = {**flags_of(record), "HELP": ("--help", "", True)}
    found = []
    for word in words:
        if word not in flags:
            raise UserError(
                f"make {command} knows no {word}.{near_matches(word, list(flags))} Its words are {', '.join(flags)}."
            )
        value, (flag, denies, switch) = values.get(word, ""), flags[word]
        if not switch:
            found += [f"{flag}={value}"] if value else []
        elif value.lower() in _ON:
            found.append(flag)
        elif value.lower() in _OFF:
            found += [denies] if denies else []
        elif value not in ("", _OPEN):
            raise UserError(f"{word}={value}: say {word}=1 or {word}=0.")
    return found


def words_of(environment: Mapping[str, Any], name: str) -> list[str]:
    """The words that were said, in their order by name; none where make did not call."""
    return sorted(str(environment.get(name, "")).split())
