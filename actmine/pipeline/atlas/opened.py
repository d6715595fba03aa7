"""A run as the atlas has it open, and open again when it has changed; those of several that are open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.types import ASGIApp

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.extent import of_run
from actmine.pipeline.atlas.images import Topping, topping
from actmine.pipeline.atlas.links import Paths, segments
from actmine.pipeline.atlas.looking import Looking
from actmine.pipeline.atlas.maps import Maps
from actmine.pipeline.atlas.others import Others
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.atlas.pictures import Wholes
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.shelf import Shelf
from actmine.pipeline.notes import Notes
from actmine.pipeline.run import open_run


@dataclass(frozen=True, slots=True)
class Ways:
    """How a run is shown: whether it is trusted, at which `desk` notes are taken, who is `looking` at pictures that are
    sent, and below which address the run at a place stands, where several are on a `shelf`."""

    trust: bool = False
    desk: Desk | None = None
    looking: Looking | None = None
    shelf: Callable[[str], str] | None = None


_OPEN = 24
"""How many of several runs are kept open."""


class Opened:
    """A run with what was read of it, one state of it: when run.json is written anew, all is read anew."""

    def __init__(self, path: str | Path, ways: Ways = Ways()) -> None:
        self.queries = Queries(open_run(path, ways.trust))
        self.layers = segments(self.queries.layers)
        self.names = {address: name for name, address in self.layers.items()}
        self.wholes = Wholes(self.queries)
        self.others = Others(self.queries)
        self.notes = Notes(self.queries.run.path)
        self._links = Paths(
            self.layers, self.queries.version, shelf=ways.shelf, looks=ways.looking is not None
        )  # fmt: skip
        self.atlas = Atlas(
            self.queries, self.wholes, self.others, self._links, self.notes,
            desk=ways.desk if self.notes.writable else None, extent=of_run(self.queries.run.record),
            looking=ways.looking,
        )  # fmt: skip
        self.maps = Maps(self.queries)
        self._topping: list[Topping] = []
        self._lock = threading.Lock()

    def below(self, base: str) -> Opened:
        """The same where addresses of the server begin with `base`, such as `/run/NAME`; what was read is shared."""
        links = self._links.below(base)
        if links is self._links:
            return self
        made = copy(self)
        made.atlas = replace(self.atlas, links=links)
        return made

    def topping(self) -> Topping:
        """Which image tops which units: read once, when it is first asked for."""
        with self._lock:
            if not self._topping:
                names = list(self.queries.layers)
                self._topping.append(topping(self.queries.run.path, self.queries.reading, names, self.queries.end))
            return self._topping[0]


class Current:
    """The run as it is now; `last` is how it was when it was last whole."""

    def __init__(self, path: str | Path, ways: Ways = Ways()) -> None:
        self._path, self._ways = path, ways
        self._lock = threading.Lock()
        self.last = Opened(path, ways)

    @property
    def looking(self) -> Looking | None:
        """Who looks at pictures that are sent."""
        return self._ways.looking

    def __call__(self) -> Opened:
        """The run opened, again if it has changed. Raises `UserError` where it has gone or is damaged."""
        with self._lock:
            if Queries(open_run(self._path)).version != self.last.queries.version:
                self.last = Opened(self._path, self._ways)
            return self.last


class OpenedRuns:
    """The runs of a shelf that were asked for last, each with the app that answers below its address."""

    def __init__(self, shelf: Shelf, current: Callable[[Path], Current], app: Callable[[Current], ASGIApp]) -> None:
        self._shelf, self._current, self._app = shelf, current, app
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[str, Current, ASGIApp]] = OrderedDict()

    def app(self, name: str) -> ASGIApp | None:
        """The app of the run of that address; None where there is none. Raises `UserError` as `open_run` does."""
        found = self._of(name)
        return found[2] if found else None

    def opened(self, name: str) -> Opened | None:
        """The run of that address as it is now, see `app`."""
        found = self._of(name)
        return found[1]().below(f"/run/{name}") if found else None

    def _of(self, name: str) -> tuple[str, Current, ASGIApp] | None:
        path = self._shelf.runs().get(name)
        with self._lock:
            known = self._open.get(name)
            if path is None:
                return None
            if known is None or known[0] != str(path):
                current = self._current(path)
                known = self._open[name] = (str(path), current, self._app(current))
                while len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return known
