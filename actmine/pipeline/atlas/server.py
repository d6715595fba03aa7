"""Serves a run's atlas on this machine: which address shows which page; notes are all that is written."""

from __future__ import annotations

import getpass
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from actmine.pipeline.atlas import pages
from actmine.pipeline.atlas.bounds import Heavy
from actmine.pipeline.atlas.cell_pages import CELL_PAGES
from actmine.pipeline.atlas.compare_pages import comparison_page, pair_page, training_page
from actmine.pipeline.atlas.desk import MOST_BYTES, Desk, fields_of, place_of, said, target_of
from actmine.pipeline.atlas.etags import knows, unless_known
from actmine.pipeline.atlas.guarded import around, guarded_by
from actmine.pipeline.atlas.hosts import LOOPBACK, OWN, PORT, address, is_alone, listening, names
from actmine.pipeline.atlas.interface_routes import for_programs
from actmine.pipeline.atlas.links import SIDES, Came, Choice, Picture, stamp
from actmine.pipeline.atlas.look_routes import look_routes
from actmine.pipeline.atlas.looked import Eye
from actmine.pipeline.atlas.looking import Looking
from actmine.pipeline.atlas.opened import Current, Opened, OpenedRuns, Ways
from actmine.pipeline.atlas.origins import ALL, origins
from actmine.pipeline.atlas.patience import ASKING, server
from actmine.pipeline.atlas.pictures import absence, fitted, kind_of, stored_picture
from actmine.pipeline.atlas.request_words import asked, base, by_program, is_number, refusal
from actmine.pipeline.atlas.runs_page import no_run_page, runs_page
from actmine.pipeline.atlas.shelf import Shelf
from actmine.pipeline.atlas.take_away import FILES
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run

_FOREVER = "private, max-age=31536000, immutable"
_STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_SENTENCES = {405: "Nothing but reading is allowed here.", 404: "The run has nothing at "}
_TYPES = {"png": "image/png", "webp": "image/webp", "jpg": "image/jpeg", "svg": "image/svg+xml"}


class _Number(Convertor[int]):
    """A number in an address, of so many digits that tables can hold it."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Number())


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
    shelf, heavy, guards = Shelf(path), Heavy(), around(names, open, shared, looking is not None)
    if shelf.is_run or not shelf.runs():
        return of_run(Current(path, ways), heavy, guards)
    return of_runs(shelf, lambda run: Current(run, replace(ways, shelf=shelf.address)), heavy, guards)


def of_runs(
    shelf: Shelf, current: Callable[[Path], Current], heavy: Heavy, guards: Sequence[Middleware]
) -> Starlette:  # fmt: skip
    """The list of the runs of a shelf, and the pages of each below its address, all within the `guards`."""
    opened = OpenedRuns(shelf, current, lambda its: of_run(its, heavy, guards))

    def listed(request: Request) -> Response:
        made = runs_page(shelf, opened, asked(request, "q"), asked(request, "sort"), _page(request))
        if made is None:
            raise HTTPException(404)
        return unless_known(request, HTMLResponse(made))

    async def within(scope: Scope, receive: Receive, send: Send) -> None:
        status, title, sentence = 404, "Not found", f"There is no run at {scope['path']}"
        try:
            app = await run_in_threadpool(opened.app, scope["path_params"]["run"])
        except UserError as error:
            app, status, title, sentence = None, 500, "This cannot be shown", str(error)
        if app is None:
            refused = refusal(scope, status, sentence)
            page = HTMLResponse(no_run_page(shelf, title, sentence), status)
            app = guarded_by(guards, refused if by_program(scope) else page)
        await app(scope, receive, send)

    def lost(request: Request, error: Exception) -> Response:
        return HTMLResponse(no_run_page(shelf, "Not found", f"There is nothing at {request.url.path}"), 404)

    routes = [Route("/", listed), Route("/static/{name}", _static)]
    own = Starlette(routes=routes, middleware=guards, exception_handlers={404: lost})
    return Starlette(routes=[Mount("/run/{run}", within), Mount("/", own)])


def of_run(current: Current, heavy: Heavy, guards: Sequence[Middleware]) -> Starlette:
    """The pages of a run, as it is at any time, within the `guards`; what is `heavy` is done in turn."""
    pages.prepare(current().atlas)

    def page(make: Callable[[Opened, Request], str | None]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                made = make(current().below(base(request.scope)), request)
            except UserError as error:
                return troubled(request, "This cannot be shown", str(error), 500)
            if made is None:
                raise HTTPException(404)
            return unless_known(request, HTMLResponse(made))

        return answer

    def picture(request: Request) -> Response:
        opened = current()
        kind, *marks = request.path_params["what"].split("/")
        wanted = Picture(_layer(opened, request), request.path_params["unit"], kind, tuple(marks))
        data = stored_picture(opened.queries, wanted, opened.others)
        if data is None:
            raise HTTPException(404)
        side = asked(request, "side")
        return _pictured(opened, request, fitted(data, int(side)) if side in map(str, SIDES) else data)

    def whole(request: Request) -> Response:
        opened = current()
        size = opened.queries.images.size(request.path_params["image"])
        if size is None:
            raise HTTPException(404)
        data = opened.wholes.of(request.path_params["image"])
        return _pictured(opened, request, absence(size) if data is None else data, keep=data is not None)

    def taken(request: Request) -> Response:
        opened, name = current(), request.path_params["name"]
        layer, unit = _layer(opened, request), request.path_params["unit"]
        if name not in FILES or unit >= opened.queries.layers[layer].units:
            raise HTTPException(404)
        media, make = FILES[name]
        called = f"{request.path_params['layer']}-{unit}-{name}"
        headers = {
            "Cache-Control": "no-cache", "Content-Disposition": f'attachment; filename="{called}"',
            "Content-Security-Policy": "default-src 'none'",
        }  # fmt: skip
        return Response(make(opened.queries.run, layer, unit), headers=headers, media_type=media)

    def lost(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status, sentence = error.status_code, _SENTENCES.get(error.status_code, error.detail)
        sentence += request.scope["path"] if status == 404 else ""
        if status != 404 or by_program(request.scope):
            return refusal(request.scope, status, sentence, dict(error.headers or {}))
        return troubled(request, "Not found", sentence, 404)

    def troubled(request: Request, title: str, sentence: str, status: int) -> Response:
        atlas = current.last.below(base(request.scope)).atlas
        return HTMLResponse(pages.trouble_page(atlas, title, sentence), status)

    def unreadable(request: Request, error: Exception) -> Response:
        return refusal(request.scope, 500, str(error))

    async def noting(request: Request) -> Response:
        data = b""
        with anyio.move_on_after(ASKING) as waited:
            async for part in request.stream():
                data += part
                if len(data) > MOST_BYTES:
                    return troubled(request, "Not noted", f"A form has at most {MOST_BYTES:,} bytes.", 413)
        if waited.cancelled_caught:
            return troubled(request, "Not noted", "The form did not come to its end.", 408)
        try:
            opened = current().below(base(request.scope))
            fields = fields_of(data)
            if opened.atlas.desk is None:
                return troubled(request, "Not noted", "Notes of this run are only shown here.", 403)
            if why := opened.atlas.desk.refused(fields, request.headers.get("origin"), request.headers.get("host", "")):
                return troubled(request, "Not noted", why, 403)
            target = target_of(opened.queries, fields)
            await run_in_threadpool(said, opened.notes, target, opened.atlas.desk.author, fields)
        except UserError as error:
            return troubled(request, "Not noted", str(error), 400)
        return RedirectResponse(f"{place_of(opened.atlas.links, target)}#noted", 303)

    routes = [
        Route("/noted", page(lambda opened, request: pages.noted_page(opened.atlas))),
        Route("/notes", noting, methods=["POST"]),
        Route("/", page(lambda opened, request: pages.run_page(opened.atlas))),
        Route("/layer/{layer}", page(_layer_page)),
        Route("/layer/{layer}/{unit:number}", page(_unit_page)),
        *(Route(f"/cells/{{layer}}{more}", page(make)) for more, make in CELL_PAGES.items()),
        Route("/image/{image:number}", page(_image_page)),
        Route("/search", heavy(page(lambda opened, request: pages.search_page(opened.atlas, asked(request, "q"))))),
        Route("/compare/{name}", page(_comparison_page)),
        Route("/compare/{name}/{layer}/{unit:number}", page(_pair_page)),
        Route("/training", page(_training_page)),
        *look_routes(current),
        Route("/take/{layer}/{unit:number}/{name}", heavy(taken)),
        *for_programs(current, heavy),
        Route("/picture/{layer}/{unit:number}/{what:path}", picture),
        Route("/whole/{image:number}", whole),
        Route("/static/{name}", _static),
    ]
    lost_or_not = {HTTPException: lost, UserError: unreadable}
    return Starlette(routes=routes, middleware=guards, exception_handlers=lost_or_not)


def _layer(opened: Opened, request: Request) -> str:
    name = opened.names.get(request.path_params["layer"])
    if name is None:
        raise HTTPException(404)
    return name


def _layer_page(opened: Opened, request: Request) -> str | None:
    return pages.layer_page(opened.atlas, _layer(opened, request), replace(_chosen(request), page=_page(request)))


def _unit_page(opened: Opened, request: Request) -> str | None:
    image = asked(request, "image")
    came = Came(
        _chosen(request), asked(request, "q"), asked(request, "under"), int(image) if is_number(image) else None
    )
    return pages.unit_page(opened.atlas, _layer(opened, request), request.path_params["unit"], opened.topping, came)


def _image_page(opened: Opened, request: Request) -> str | None:
    at = [asked(request, name) for name in ("at", "x", "y")]
    return pages.image_page(opened.atlas, opened.topping(), request.path_params["image"], _page(request), at)


def _comparison_page(opened: Opened, request: Request) -> str | None:
    layer = opened.names.get(asked(request, "layer"), asked(request, "layer"))
    name = request.path_params["name"]
    return comparison_page(opened.atlas, name, asked(request, "sort"), layer, _page(request))


def _pair_page(opened: Opened, request: Request) -> str | None:
    return pair_page(opened.atlas, request.path_params["name"], _layer(opened, request), request.path_params["unit"])


def _training_page(opened: Opened, request: Request) -> str | None:
    at = asked(request, "at")
    number = int(at) if is_number(at) else None
    return training_page(opened.atlas, number, asked(request, "lost") == "1", _page(request))


def _page(request: Request) -> int:
    """The page that is asked for; 0 for what is no number."""
    page = asked(request, "page") or "1"
    return int(page) if is_number(page) else 0


def _chosen(request: Request) -> Choice:
    return Choice(asked(request, "sort") or "unit", bool(asked(request, "reverse")), asked(request, "label"))


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in pages.STATIC:
        raise HTTPException(404)
    kind = _STATIC_TYPES[Path(name).suffix]
    answer = Response((pages.HERE / "static" / name).read_bytes(), media_type=kind)
    if request.query_params.get("v") == stamp(name):
        answer.headers["Cache-Control"] = _FOREVER
        return answer
    return unless_known(request, answer)


def _pictured(opened: Opened, request: Request, data: bytes, keep: bool = True) -> Response:
    """A picture, to be kept for good where its address names this state of the run."""
    version = opened.queries.version
    tag = f'"{version}"'
    forever = keep and request.query_params.get("v") == version
    headers = {"Cache-Control": _FOREVER if forever else "no-cache", "Content-Security-Policy": "default-src 'none'"}
    if keep:
        headers["ETag"] = tag
        if knows(request, tag):
            return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=_TYPES[kind_of(data)])


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
        if eye is not None and not alone and not for_others:
            raise UserError(
                f"HOST={host} can be reached by others, who could send pictures to the network as well. If they may, "
                "say --upload-by-others; otherwise leave --host or --allow-upload out."
            )
        looking = Looking(eye) if eye is not None else None
        readers = origins(shared)
        app = application(
            path, trust, names(host, allowed, alone), open=not alone, desk=desk, looking=looking, shared=readers
        )
        at = there.getsockname()[1]
        if port is None and at != PORT:
            note(f"Port {PORT} is taken, so it is {at}.")
        if not alone:
            can = "look at the run and take notes of it" if takes else "look at the run"
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
