"""Whose run it is: one that this user has mined may have its code imported and its addresses asked, others may not.

A run is a folder that anyone can have written. Its record names a network, perhaps code of its author's; its tables
name files and addresses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from actmine.pipeline.errors import UserError
from actmine.pipeline.storage.files import is_local, user_cache, write_bytes
from actmine.pipeline.storage.fingerprint import fingerprint

FIX = "If you trust whoever made it, say --trust."


def remember(run: Path, record: Mapping[str, Any], urls: Iterable[str]) -> None:
    """Notes that this user has mined the run with this `record` from shards at `urls`, if the user's folder lets us."""
    note = _note(run, record, urls)
    with suppress(UserError, OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(note, b"")


def is_own(run: Path, record: Mapping[str, Any], urls: Iterable[str]) -> bool:
    """Whether `remember` was called for the same folder, network and shards."""
    return _note(run, record, urls).is_file()


def _note(run: Path, record: Mapping[str, Any], urls: Iterable[str]) -> Path:
    where = os.path.realpath(run) if is_local(run) else str(run)
    known = {"run": where, "model": record.get("model"), "asked": record.get("asked"), "urls": [*urls]}
    return user_cache() / "mined" / fingerprint(known)
