"""Serves a run's atlas on this machine: which address shows which page; notes are all that is written."""

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
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from actmine.pipeline.atlas import pages
from actmine.pipeline.atlas.desk import MOST_BYTES, Desk, fields_of, place_of, said, target_of
from actmine.pipeline.atlas.guarded import Guarded
from actmine.pipeline.atlas.hosts import LOOPBACK, OWN, PORT, Called, address, is_alone, listening, names
from actmine.pipeline.atlas.interface_routes import for_programs, no_such
from actmine.pipeline.atlas.links import Came, Choice, Picture
from actmine.pipeline.atlas.opened import Current, Opened
from actmine.pipeline.atlas.pictures import absence, kind_of, stored_picture
from actmine.pipeline.atlas.request_words import asked, is_number
from actmine.pipeline.atlas.take_away import FILES
from actmine.pipeline.errors import UserError
from actmine.pipeline.words import MapOf

_FOREVER = "private, max-age=31536000, immutable"
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "svg": "image/svg+xml"}


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
) -> Starlette:
    """The atlas of the run in the folder `path`, opened as `open_run` does, called as `Called` says.

    Notes are taken at the `desk`, if there is one. Raises `UserError` if there is no run.
    """
    current = Current(path, trust, desk)
    pages.prepare(current().atlas)

    def page(make: Callable[[Opened, Request], str | None]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                made = make(current(), request)
            except UserError as error:
                return troubled("This cannot be shown", str(error), 500)
            if made is None:
                raise HTTPException(404)
            return HTMLResponse(made, headers={"Cache-Control": "no-cache"})

        return answer

    def picture(request: Request) -> Response:
        opened = current()
        kind, *marks = request.path_params["what"].split("/")
        wanted = Picture(_layer(opened, request), request.path_params["unit"], kind, tuple(marks))
        data = stored_picture(opened.queries, wanted, opened.matches)
        if data is None:
            raise HTTPException(404)
        return _pictured(opened, request, data)

    def whole(request: Request) -> Response:
        opened = current()
        size = opened.queries.images.size(request.path_params["image"])
        if size is None:
            raise HTTPException(404)
        data = opened.wholes.of(request.path_params["image"])
        return _pictured(opened, request, absence(size) if data is None else data, keep=data is not None)

    def map_file(request: Request) -> Response:
        opened, kind = current(), request.path_params["kind"]
        by = request.path_params["by"]
        if by not in {*MapOf} or kind not in ("bin", "png"):
            raise HTTPException(404)
        made = opened.maps.picture(MapOf(by)) if kind == "png" else opened.maps.data(MapOf(by), opened.atlas.links)
        if made is None:
            raise HTTPException(404)
        return _versioned(opened, request, made, "image/png" if kind == "png" else "application/octet-stream")

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
        status = error.status_code if isinstance(error, HTTPException) else 500
        if status == 404 and request.url.path.startswith("/api/"):
            return no_such(request)
        if status != 404:
            return Response(f"{status}", status, headers=getattr(error, "headers", None), media_type="text/plain")
        return troubled("Not found", f"The run has nothing at {request.url.path}", 404)

    def troubled(title: str, sentence: str, status: int) -> Response:
        return HTMLResponse(pages.trouble_page(current.last.atlas, title, sentence), status)

    def unreadable(request: Request, error: Exception) -> Response:
        return Response(f"{error}\n", 500, media_type="text/plain")

    async def noting(request: Request) -> Response:
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > MOST_BYTES:
                return troubled("Not noted", f"A form has at most {MOST_BYTES:,} bytes.", 413)
        try:
            opened = current()
            fields = fields_of(data)
            if opened.atlas.desk is None:
                return troubled("Not noted", "Notes of this run are only shown here.", 403)
            if why := opened.atlas.desk.refused(fields, request.headers.get("origin"), request.headers.get("host", "")):
                return troubled("Not noted", why, 403)
            target = target_of(opened.queries, fields)
            await run_in_threadpool(said, opened.notes, target, opened.atlas.desk.author, fields)
        except UserError as error:
            return troubled("Not noted", str(error), 400)
        return RedirectResponse(f"{place_of(opened.atlas.links, target)}#noted", 303)

    routes = [
        Route("/noted", page(lambda opened, request: pages.noted_page(opened.atlas))),
        Route("/notes", noting, methods=["POST"]),
        Route("/", page(lambda opened, request: pages.run_page(opened.atlas))),
        Route("/layer/{layer}", page(_layer_page)),
        Route("/layer/{layer}/{unit:number}", page(_unit_page)),
        Route("/image/{image:number}", page(_image_page)),
        Route("/search", page(lambda opened, request: pages.search_page(opened.atlas, asked(request, "q")))),
        Route("/map/{by}.{kind}", map_file),
        Route("/map", lambda request: RedirectResponse(current().atlas.links.map())),
        Route(
            "/map/{by}",
            page(lambda opened, request: pages.map_page(opened.atlas, opened.maps, request.path_params["by"])),
        ),
        Route("/take/{layer}/{unit:number}/{name}", taken),
        *for_programs(lambda: (current().atlas, current().names)),
        Route("/picture/{layer}/{unit:number}/{what:path}", picture),
        Route("/whole/{image:number}", whole),
        Route("/static/{name}", _static),
    ]
    middleware = [Middleware(Guarded), Middleware(Called, names=names, open=open)]
    return Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: lost, UserError: unreadable}
    )


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
    return pages.image_page(opened.atlas, opened.topping(), request.path_params["image"], _page(request))


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
    return FileResponse(pages.HERE / "static" / name, headers={"Cache-Control": "no-cache"})


def _pictured(opened: Opened, request: Request, data: bytes, keep: bool = True) -> Response:
    """A picture, to be kept for good where its address names this state of the run."""
    return _versioned(opened, request, data, _TYPES[kind_of(data)], keep)


def _versioned(opened: Opened, request: Request, data: bytes, media: str, keep: bool = True) -> Response:
    """What is made of one state of the run, to be kept for good where its address names that."""
    version = opened.queries.version
    tag = f'"{version}"'
    forever = keep and request.query_params.get("v") == version
    headers = {"Cache-Control": _FOREVER if forever else "no-cache", "Content-Security-Policy": "default-src 'none'"}
    if keep:
        headers["ETag"] = tag
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=media)


def serve(
    path: str | Path,
    port: int | None,
    say: Callable[[str], None],
    trust: bool = False,
    *,
    host: str = LOOPBACK,
    allowed: Sequence[str] = (),
    note: Callable[[str], None] = lambda sentence: None,
    read_only: bool | None = None,
    author: str = "",
) -> None:
    """Serves the atlas until it is stopped; `say` hears the address, `note` what else is to be known.

    Notes of `author` are taken unless it is `read_only`; where others can reach it only if that is said (False).
    Raises `UserError` as `application`, `listening` and `names` do.
    """
    with listening(port, host) as there:
        alone = is_alone(there)
        takes = alone if read_only is None else not read_only
        desk = Desk(author or _user()) if takes else None
        app = application(path, trust, names(host, allowed, alone), open=not alone, desk=desk)
        at = there.getsockname()[1]
        if port is None and at != PORT:
            note(f"Port {PORT} is taken, so it is {at}.")
        if not alone:
            can = "look at the run and take notes of it" if takes else "look at the run"
            note(f"Everyone who can reach port {at} of this machine can {can}.")
        say(address(host, there))
        _server(app).run(sockets=[there])


def _user() -> str:
    """Who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _server(app: Starlette) -> uvicorn.Server:
    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    return uvicorn.Server(config)


class Serving:
    """An atlas that is served by a thread until `stop`, or until nothing refers to it, or the process ends.

    `address` is what to open in a browser. Raises `UserError` as `serve` does.
    """

    def __init__(self, path: str | Path, port: int | None = None, trust: bool = False, host: str = LOOPBACK) -> None:
        there = listening(port, host)
        try:
            alone = is_alone(there)
            desk = Desk(_user()) if alone else None
            server = _server(application(path, trust, names(host, (), alone), open=not alone, desk=desk))
        except BaseException:
            there.close()
            raise
        self.address = address(host, there)
        thread = threading.Thread(target=server.run, args=([there],), name="atlas", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, server, thread, there)

    def stop(self) -> None:
        """Ends it; its address answers no more."""
        self._end()


def _end(server: uvicorn.Server, thread: threading.Thread, there: socket.socket) -> None:
    server.should_exit = True
    thread.join()
    there.close()
