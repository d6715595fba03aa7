"""The runs of a shelf as an app: their list, and each run below its address."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from actmine.pipeline.atlas.asked_files import static
from actmine.pipeline.atlas.asked_pages import page_of
from actmine.pipeline.atlas.etags import unless_known
from actmine.pipeline.atlas.guarded import guarded_by
from actmine.pipeline.atlas.opened import Current, OpenedRuns
from actmine.pipeline.atlas.request_words import asked, by_program, refusal
from actmine.pipeline.atlas.run_app import Queues, of_run
from actmine.pipeline.atlas.runs_page import no_run_page, runs_page
from actmine.pipeline.atlas.shelf import Shelf
from actmine.pipeline.errors import UserError


def of_runs(
    shelf: Shelf, current: Callable[[Path], Current], queues: Queues, guards: Sequence[Middleware]
) -> Starlette:  # fmt: skip
    """The list of the runs of a shelf, and the pages of each below its address, all within the `guards`."""
    opened = OpenedRuns(shelf, current, lambda its: of_run(its, queues, guards))

    def listed(request: Request) -> Response:
        made = runs_page(shelf, opened, asked(request, "q"), asked(request, "sort"), page_of(request))
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

    def rows(request: Request) -> Response:
        found = [
            {"name": each.name, "page": f"{each.address}/", "api": f"{each.address}/api", "error": each.trouble or None,
             **{word: each.record.get(word) if each.record is not None else None
                for word in ("model", "dataset", "dataset_fingerprint", "fingerprint", "units")}}
            for each in shelf.all()
        ]  # fmt: skip
        return unless_known(request, JSONResponse({"runs": found}))

    routes = [Route("/", listed), Route("/api", rows), Route("/static/{name}", static)]
    own = Starlette(routes=routes, middleware=guards, exception_handlers={404: lost})
    return Starlette(routes=[Mount("/run/{run}", within), Mount("/", own)])
