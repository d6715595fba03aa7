"""The runs below a folder: which there are, what each is in a line of a list, and at which address it stands."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from actmine.pipeline.atlas.links import segments
from actmine.pipeline.checked_record import Record, checked, parsed
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.run_tables import absolute
from actmine.pipeline.storage.files import is_local, run_folder

DEEPEST = 4
"""How many folders down runs are looked for."""
_KEPT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Shelved:
    """A run of a shelf: `name` below its folder, its `address` and its record; or why there is none, `trouble`."""

    name: str
    path: Path
    address: str
    record: Record | None = None
    finished: str = ""
    trouble: str = ""

    @property
    def segment(self) -> str:
        """The last part of its address."""
        return self.address.rsplit("/", 1)[-1]

    @property
    def words(self) -> str:
        """What a list is narrowed by, in small letters."""
        return " ".join(map(str, (self.name, *self._of("model", "dataset", "weights")))).casefold()

    def _of(self, *words: str) -> list[object]:
        return [self.record.get(word, "") for word in words] if self.record is not None else []


class Shelf:
    """The runs below a folder, or an `s3://bucket/prefix`; looked for anew when they are asked for after a while."""

    def __init__(self, place: str | Path) -> None:
        self.place = place
        self.path = run_folder(place) if str(place) else Path("runs")
        self._lock = threading.Lock()
        self._found: dict[str, Path] = {}
        self._at = -_KEPT_SECONDS
        self._records: dict[Path, tuple[object, Shelved]] = {}

    @property
    def is_run(self) -> bool:
        """Whether the folder is itself a run."""
        return (self.path / "run.json").is_file()

    def runs(self) -> dict[str, Path]:
        """The runs by the last part of their addresses, in the order of their names."""
        with self._lock:
            if time.monotonic() - self._at > _KEPT_SECONDS:
                names = {self._name(path): path for path in self._paths()}
                of = segments(sorted(names))
                self._found = {of[name]: names[name] for name in of}
                self._at = time.monotonic()
            return dict(self._found)

    def address(self, place: str) -> str:
        """Below which address the pages of the run at a `place` stand; empty where it is not of this shelf."""
        wanted = absolute(place)
        return next((f"/run/{name}" for name, path in self.runs().items() if absolute(path) == wanted), "")

    def all(self) -> list[Shelved]:
        """All runs, by name, as they are now."""
        return [self._shelved(name, path) for name, path in self.runs().items()]

    def _shelved(self, segment: str, path: Path) -> Shelved:
        name, address, file = self._name(path), f"/run/{segment}", path / "run.json"
        try:
            state = (file.stat().st_mtime_ns, file.stat().st_size) if is_local(path) else None
            known = self._records.get(path)
            if state is not None and known and known[0] == state and known[1].address == address:
                return known[1]
            record = checked(parsed(file.read_bytes(), file))
            finished = date.fromtimestamp(file.stat().st_mtime).isoformat() if is_local(path) else ""
        except UserError as error:
            return Shelved(name, path, address, trouble=str(error))
        except OSError as error:
            return Shelved(
                name, path, address, trouble=f"{file} cannot be read ({error.strerror or first_line(error)})."
            )
        made = Shelved(name, path, address, record, finished)
        self._records[path] = (state, made)
        return made

    def _name(self, path: Path) -> str:
        return str(path)[len(str(self.path)) :].strip("/\\").replace("\\", "/") or path.name

    def _paths(self) -> Iterator[Path]:
        if is_local(self.path):
            return _below(self.path, DEEPEST)
        return (file.parent for file in self.path.glob("*/run.json"))


def _below(folder: Path, deepest: int) -> Iterator[Path]:
    """The runs in a folder and in those below; what lies in a run is not looked at, and no link is followed."""
    try:
        entries = sorted(os.scandir(folder), key=lambda each: each.name)
    except OSError:
        return  # whoever may not look into it has no runs there
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False) or entry.name.startswith("."):
            continue
        path = folder / entry.name
        if (path / "run.json").is_file():
            yield path
        elif deepest > 1 and not (path / "state").is_dir():
            yield from _below(path, deepest - 1)
