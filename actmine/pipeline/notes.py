"""What people note of a run's units, layers and images: `RUN/notes.jsonl`, to which lines are only ever added.

A line is a JSON object: when, by whom, of what, and one thing that is said: a star, a name, a tag on or off, a note, or
that a note is removed. Files of several people are merged by writing one behind the other: what was said last holds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.storage.files import is_local

FILE = "notes.jsonl"
MOST_NOTE, MOST_WORD, MOST_AUTHOR = 10_000, 120, 80
"""Characters of a note, of a name or a tag, and of who says it."""
MOST_BYTES = 64 << 20
SAYS = ("star", "name", "tag", "note", "remove")


@dataclass(frozen=True, slots=True)
class Target:
    """What is noted of: a unit of a layer, a layer, or an image by its number."""

    layer: str | None = None
    unit: int | None = None
    image_id: int | None = None

    def words(self) -> dict[str, Any]:
        """For a line."""
        return {name: value for name in ("layer", "unit", "image_id") if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Note:
    """A note: what it says, who said it and when; `id` is what a line that removes it names."""

    id: str
    at: str
    by: str
    text: str


@dataclass(frozen=True, slots=True)
class Noted:
    """All that holds of one unit, layer or image."""

    star: bool = False
    name: str = ""
    tags: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return bool(self.star or self.name or self.tags or self.notes)

    @property
    def words(self) -> str:
        """All of it for whoever looks through it; a star is ★."""
        return " | ".join(filter(None, ("★" * self.star, self.name, *self.tags, *(note.text for note in self.notes))))


NOTHING = Noted()


@dataclass
class _Read:
    """What was read of a file, and by what it is told from the same file later."""

    seen: tuple[int, int, int] = (0, 0, 0)
    of: Mapping[Target, Noted] = field(default_factory=dict)
    damaged: int = 0


class Notes:
    """The notes of a run. Many threads and processes may read and write them at once."""

    def __init__(self, run: Path) -> None:
        self.path = run / FILE
        self._read = _Read()
        self._lock = threading.Lock()

    @property
    def writable(self) -> bool:
        """Whether lines can be added: not on S3."""
        return is_local(self.path)

    def all(self) -> Mapping[Target, Noted]:
        """What holds now, by what it is of. Raises `UserError` for a file that cannot be read."""
        if not self.writable:
            return {}
        with self._lock:
            try:
                stat = os.stat(self.path)
            except OSError:
                self._read = _Read()
                return {}
            seen = stat.st_ino, stat.st_size, stat.st_mtime_ns
            if seen != self._read.seen:
                if stat.st_size > MOST_BYTES:
                    raise UserError(
                        f"{self.path} has {stat.st_size:,} bytes, more than {MOST_BYTES:,}: no notes are read."
                    )
                try:
                    of, damaged = folded(_lines(self.path))
                except OSError as error:
                    raise UserError(f"{self.path} cannot be read ({error.strerror or first_line(error)}).") from error
                self._read = _Read(seen, of, damaged)
            return self._read.of

    def of(self, target: Target) -> Noted:
        """What holds of one thing."""
        return self.all().get(target, NOTHING)

    @property
    def mark(self) -> str:
        """Names the state of the notes."""
        self.all()
        return "-".join(map(str, self._read.seen))

    @property
    def damaged(self) -> int:
        """How many lines could not be read."""
        self.all()
        return self._read.damaged

    def say(self, target: Target, by: str, **what: Any) -> None:
        """Adds a line: `star=True`, `name="…"`, `tag="…"` (with `on=False` to take it off), `note="…"` or `remove=id`.

        Raises `UserError` for what is too long, or says nothing, and where the file cannot be written.
        """
        self.add([json.dumps(line(target, by, **what), ensure_ascii=False)])

    def add(self, lines: Iterable[str]) -> int:
        """Adds lines as they are, whole or not at all each; how many there were.

        They are flushed to the disk before this returns; what a killed writer left half is ended first.
        """
        data = "".join(f"{each}\n" for each in lines).encode()
        if not self.writable:
            raise UserError(f"Notes are kept of runs on this machine's disks, not in {self.path}.")
        try:
            with self.path.open("ab+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                size = file.seek(0, os.SEEK_END)
                if size + len(data) > MOST_BYTES:
                    raise UserError(f"{self.path} would have more than {MOST_BYTES:,} bytes. Take lines out of it.")
                if size:
                    file.seek(size - 1)
                    data = data if file.read(1) == b"\n" else b"\n" + data
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror or first_line(error)}).") from error
        return data.count(b"\n")


def line(target: Target, by: str, **what: Any) -> dict[str, Any]:
    """What a line says, checked. Raises `UserError` for what is too long, or says nothing."""
    said = [name for name in SAYS if name in what]
    if len(said) != 1:
        raise UserError(f"A note says one of {', '.join(SAYS)}.")
    kind, value = said[0], what[said[0]]
    if kind == "star":
        value = bool(value)
    else:
        value = _plain(str(value), breaks=kind == "note")
        most = MOST_NOTE if kind == "note" else MOST_WORD
        if len(value) > most:
            raise UserError(f"A {kind} has at most {most:,} characters; this has {len(value):,}.")
        if not value and kind != "name":
            raise UserError(f"The {kind} is empty.")
    found = {"at": datetime.now(UTC).isoformat(timespec="microseconds"), "by": _plain(by)[:MOST_AUTHOR]}
    found |= target.words() | {kind: value}
    return found | ({"on": bool(what.get("on", True))} if kind == "tag" else {})


def _plain(text: str, breaks: bool = False) -> str:
    """Text without control characters, and without what turns the direction of the text behind it."""
    turning = {"\u202a", "\u202b", "\u202c", "\u202d", "\u202e", "\u2066", "\u2067", "\u2068", "\u2069"}
    kept = (each for each in text.replace("\r\n", "\n") if (each.isprintable() or (breaks and each in "\n\t")))
    return "".join(each for each in kept if each not in turning and not 0xD800 <= ord(each) < 0xE000).strip()


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for each in file:
            if each.strip():
                yield each.decode("utf-8", "replace").rstrip("\n")


def folded(lines: Iterable[str]) -> tuple[dict[Target, Noted], int]:
    """What lines come to, in the order of their times, and how many could not be read."""
    known: list[tuple[str, str, dict[str, Any]]] = []
    damaged = 0
    for text in lines:
        try:
            said = json.loads(text)
            target_of(said)
            valid = isinstance(said["at"], str) and isinstance(said["by"], str) and any(name in said for name in SAYS)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            valid = False
        if valid:
            known.append((said["at"], text, said))
        else:
            damaged += 1
    found: dict[Target, Noted] = {}
    for at, text, said in sorted(known, key=lambda each: each[:2]):
        target = target_of(said)
        found[target] = _with(found.get(target, NOTHING), at, text, said)
    return {target: noted for target, noted in found.items() if noted.any}, damaged


def target_of(said: Mapping[str, Any]) -> Target:
    """What a line is of. Raises `ValueError` where it is of nothing."""
    layer, unit, image = said.get("layer"), said.get("unit"), said.get("image_id")
    of_image = type(image) is int and layer is None and unit is None
    of_layer = isinstance(layer, str) and image is None and (unit is None or type(unit) is int)
    if not (of_image or of_layer):
        raise ValueError
    return Target(layer, unit, image)


def _with(noted: Noted, at: str, text: str, said: Mapping[str, Any]) -> Noted:
    if "star" in said:
        return replace(noted, star=said["star"] is True)
    if "name" in said:
        return replace(noted, name=_plain(str(said["name"]))[:MOST_WORD])
    if "tag" in said:
        tag = _plain(str(said["tag"]))[:MOST_WORD]
        others = tuple(each for each in noted.tags if each != tag)
        return replace(noted, tags=tuple(sorted((*others, tag))) if said.get("on", True) is True else others)
    if "remove" in said:
        return replace(noted, notes=tuple(note for note in noted.notes if note.id != said["remove"]))
    number = hashlib.sha256(text.encode()).hexdigest()[:16]
    if any(note.id == number for note in noted.notes):  # the same line twice, of files that were merged
        return noted
    words = _plain(str(said["note"]), breaks=True)[:MOST_NOTE]
    note = Note(number, _plain(at), _plain(said["by"])[:MOST_AUTHOR], words)
    return replace(noted, notes=(*noted.notes, note))
