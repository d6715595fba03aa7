"""Whether the head of a card is what the hub takes: each field's kind and words, before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from actmine.pipeline.publishing.card import LICENSES, MOST_TITLE, SIZES, TASKS

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
_LICENSE_NAME = re.compile(r"[a-z0-9.-]+")
Check = Callable[[Any], bool]


def _words(known: tuple[str, ...] | frozenset[str] | None = None) -> Check:
    return lambda value: (
        isinstance(value, list) and bool(value) and all(isinstance(each, str) and each for each in value)
        and (known is None or {*value} <= {*known})
    )  # fmt: skip


def _word(fits: Callable[[str], Any]) -> Check:
    return lambda value: isinstance(value, str) and bool(fits(value))


def _config(value: Any) -> bool:
    if not isinstance(value, Mapping) or not {*value} <= {"config_name", "data_files", "default"}:
        return False
    files = value.get("data_files")
    named = isinstance(value.get("config_name"), str) and _NAME.fullmatch(value["config_name"])
    return bool(named) and value.get("default") in (None, True) and isinstance(files, list) and all(
        isinstance(each, Mapping) and {*each} == {"split", "path"} and re.fullmatch(r"\w+", str(each["split"]))
        and str(each["path"]).endswith(".parquet") and not str(each["path"]).startswith(("/", "."))
        for each in files
    )  # fmt: skip


def _configs(value: Any) -> bool:
    if not isinstance(value, list) or not value or not all(map(_config, value)):
        return False
    names = [each["config_name"] for each in value]
    return len({*names}) == len(names) and sum("default" in each for each in value) <= 1


FIELDS: Mapping[str, tuple[bool, Check]] = {
    "license": (True, _word(LICENSES.__contains__)),
    "license_name": (False, _word(_LICENSE_NAME.fullmatch)),
    "pretty_name": (
        True,
        _word(lambda name: len(name) <= MOST_TITLE and name and name == name.strip() and "\n" not in name),
    ),
    "annotations_creators": (False, _words()),
    "task_categories": (True, _words(TASKS)),
    "size_categories": (True, _words(SIZES)),
    "tags": (True, _words()),
    "configs": (True, _configs),
}
"""Of each field whether it has to be there, and what says whether its value is one."""


def problems(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with the fields of a card: nothing, if the list is empty."""
    found = [f"{name} is missing" for name, (needed, _) in FIELDS.items() if needed and name not in fields]
    found += [f"{name} is no field of ours" for name in fields if name not in FIELDS]
    found += [
        f"{name} is {fields[name]!r}" for name, (_, fits) in FIELDS.items() if name in fields and not fits(fields[name])
    ]
    if ("license_name" in fields) != (fields.get("license") == "other" and "license_name" in fields):
        found.append("license_name without license: other")
    return found
