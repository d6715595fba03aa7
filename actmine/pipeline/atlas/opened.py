"""A run as the atlas has it open, and open again when it has changed."""

from __future__ import annotations

import threading
from pathlib import Path

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.images import Topping, topping
from actmine.pipeline.atlas.links import Paths, segments
from actmine.pipeline.atlas.maps import Maps
from actmine.pipeline.atlas.matches import Matches
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.atlas.pictures import Wholes
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.notes import Notes
from actmine.pipeline.run import open_run


class Opened:
    """A run with what was read of it, one state of it: when run.json is written anew, all is read anew."""

    def __init__(self, path: str | Path, trust: bool, desk: Desk | None = None) -> None:
        self.queries = Queries(open_run(path, trust))
        self.layers = segments(self.queries.layers)
        self.names = {address: name for name, address in self.layers.items()}
        self.wholes = Wholes(self.queries)
        self.matches = Matches(self.queries)
        self.notes = Notes(self.queries.run.path)
        links = Paths(self.layers, self.queries.version)
        desk = desk if self.notes.writable else None
        self.atlas = Atlas(self.queries, self.wholes, self.matches, links, self.notes, desk=desk)
        self.maps = Maps(self.queries)
        self._topping: Topping | None = None
        self._lock = threading.Lock()

    def topping(self) -> Topping:
        """Which image tops which units: read once, when it is first asked for."""
        with self._lock:
            if self._topping is None:
                self._topping = topping(
                    self.queries.run.path, self.queries.reading, list(self.queries.layers), self.queries.end
                )
            return self._topping


class Current:
    """The run as it is now; `last` is how it was when it was last whole."""

    def __init__(self, path: str | Path, trust: bool = False, desk: Desk | None = None) -> None:
        self._path, self._trust, self._desk = path, trust, desk
        self._lock = threading.Lock()
        self.last = Opened(path, trust, desk)

    def __call__(self) -> Opened:
        """The run opened, again if it has changed. Raises `UserError` where it has gone or is damaged."""
        with self._lock:
            if Queries(open_run(self._path)).version != self.last.queries.version:
                self.last = Opened(self._path, self._trust, self._desk)
            return self.last
