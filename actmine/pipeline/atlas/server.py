"""Serves the atlas of a run, or of several, on this machine."""

from __future__ import annotations

import getpass
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.guarded import around
from actmine.pipeline.atlas.hosts import LOOPBACK, OWN, PORT, address, is_alone, listening, names
from actmine.pipeline.atlas.looked import Eye
from actmine.pipeline.atlas.looking import Looking, looking_with
from actmine.pipeline.atlas.opened import Current, Ways
from actmine.pipeline.atlas.origins import ALL, origins
from actmine.pipeline.atlas.patience import server
from actmine.pipeline.atlas.run_app import Queues, of_run
from actmine.pipeline.atlas.runs_app import of_runs
from actmine.pipeline.atlas.shelf import Shelf
from actmine.pipeline.run import Run


def application(
    path: str | Path,
    trust: bool = False,
    names: Collection[str] = OWN,
    open: bool = False,
    desk: Desk | None = None,
    shared: Collection[str] = (),
    looking: Looking | None = None,
) -> Starlette:
    """The atlas of the run in the folder `path`, or of all runs below it, called as `Called` says.

    Runs are opened as `open_run` does. Notes are taken at the `desk`, if there is one. Pages of the origins with which
    it is `shared` may read rows and pictures. Pictures are shown to the network by who is `looking`. It may be mounted
    below any address. Raises `UserError` if there is no run.
    """
    ways = Ways(trust, desk, looking)
    shelf, queues, guards = Shelf(path), Queues(), around(names, open, shared, looking is not None)
    if shelf.is_run or not shelf.runs():
        return of_run(Current(path, ways), queues, guards)
    return of_runs(shelf, lambda run: Current(run, replace(ways, shelf=shelf.address)), queues, guards)


def serve(
    path: str | Path,
    port: int | None,
    say: Callable[[str], None],
    trust: bool = False,
    *,
    host: str = LOOPBACK,
    allowed: Sequence[str] = (),
    shared: Sequence[str] = (),
    note: Callable[[str], None] = lambda sentence: None,
    read_only: bool | None = None,
    author: str = "",
    eye: Callable[[Run], Eye] | None = None,
    for_others: bool = False,
) -> None:
    """Serves the atlas until it is stopped; `say` hears the address, `note` what else is to be known.

    Notes of `author` are taken unless it is `read_only`; where others can reach it only if that is said (False). Pages
    of `shared` origins may read it. Pictures of one's own are shown to the network by the `eye` that is made of a run,
    if there is one; where others can reach it only if it is said to be `for_others`. Raises `UserError` as
    `application`, `listening`, `names` and `origins` do.
    """
    with listening(port, host) as there:
        alone = is_alone(there)
        takes = alone if read_only is None else not read_only
        desk = Desk(author or _user()) if takes else None
        looking = looking_with(eye, host, alone or for_others)
        readers = origins(shared)
        app = application(
            path, trust, names(host, allowed, alone), open=not alone, desk=desk, looking=looking, shared=readers
        )
        at = there.getsockname()[1]
        if port is None and at != PORT:
            note(f"Port {PORT} is taken, so it is {at}.")
        if not alone:
            can = "look at the run and take notes of it" if takes else "look at the run"
            can += ", and send pictures to the network" if looking else ""
            note(f"Everyone who can reach port {at} of this machine can {can}.")
        if ALL in readers:
            note("Every page that a browser here has open, of whatever site, can read the run: its rows and pictures.")
        say(address(host, there))
        server(app).run(sockets=[there])


def _user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


class Serving:
    """An atlas that is served by a thread until `stop`, or until nothing refers to it, or the process ends.

    `address` is what to open in a browser. Raises `UserError` as `serve` does.
    """

    def __init__(self, path: str | Path, port: int | None = None, trust: bool = False, host: str = LOOPBACK) -> None:
        there = listening(port, host)
        try:
            alone = is_alone(there)
            desk = Desk(_user()) if alone else None
            served = server(application(path, trust, names(host, (), alone), open=not alone, desk=desk))
        except BaseException:
            there.close()
            raise
        self.address = address(host, there)
        thread = threading.Thread(target=served.run, args=([there],), name="atlas", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, served, thread, there)

    def stop(self) -> None:
        """Ends it; its address answers no more."""
        self._end()


def _end(served: uvicorn.Server, thread: threading.Thread, there: socket.socket) -> None:
    served.should_exit = True
    thread.join()
    there.close()
