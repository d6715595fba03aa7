"""A run as an app: its pages, its rows for programs, its pictures; notes and pictures that are sent to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from actmine.pipeline.atlas import pages
from actmine.pipeline.atlas.asked_files import file_routes
from actmine.pipeline.atlas.asked_pages import PAGES, SEARCHES, Make
from actmine.pipeline.atlas.bounds import Heavy
from actmine.pipeline.atlas.desk import MOST_BYTES, fields_of, place_of, said, target_of
from actmine.pipeline.atlas.etags import unless_known
from actmine.pipeline.atlas.interface_routes import for_programs
from actmine.pipeline.atlas.look_routes import look_routes
from actmine.pipeline.atlas.opened import Current
from actmine.pipeline.atlas.patience import ASKING
from actmine.pipeline.atlas.request_words import base, by_program, refusal
from actmine.pipeline.errors import UserError


@dataclass(frozen=True, slots=True)
class Queues:
    """What is done in turn, in all runs that are served together."""

    searches: Heavy = field(default_factory=Heavy)
    files: Heavy = field(default_factory=Heavy)


def of_run(current: Current, queues: Queues, guards: Sequence[Middleware]) -> Starlette:
    """The run as it is at any time, within the `guards`; what takes long is done in the `queues`."""
    pages.prepare(current().atlas)

    def page(make: Make) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                made = make(current().below(base(request.scope)), request)
            except UserError as error:
                return troubled(request, "This cannot be shown", str(error), 500)
            if made is None:
                raise HTTPException(404)
            return unless_known(request, HTMLResponse(made))

        return answer

    def lost(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        sentences = {
            404: f"The run has nothing at {request.scope['path']}",
            405: f"{request.method} is not allowed here.",
        }
        status, sentence = error.status_code, sentences.get(error.status_code, error.detail)
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
        *(Route(path, page(make)) for path, make in PAGES.items()),
        *(Route(path, queues.searches(page(make))) for path, make in SEARCHES.items()),
        Route("/notes", noting, methods=["POST"]),
        *look_routes(current),
        *for_programs(current, queues.searches),
        *file_routes(current, queues.files),
    ]
    lost_or_not = {HTTPException: lost, UserError: unreadable}
    return Starlette(routes=routes, middleware=guards, exception_handlers=lost_or_not)
