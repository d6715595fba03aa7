"""The addresses below `/look`: a picture is sent, and what the run's network makes of it is shown."""

from __future__ import annotations

import asyncio
import io

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from actmine.pipeline.atlas import look_pages, pages
from actmine.pipeline.atlas.desk import refusal
from actmine.pipeline.atlas.looked import Response as OfLayer
from actmine.pipeline.atlas.looking import DONE, FAILED, MOST_BYTES, MOST_PIXELS, Busy, Job, Looking
from actmine.pipeline.atlas.opened import Current, Opened
from actmine.pipeline.atlas.request_words import asked, base, is_number
from actmine.pipeline.atlas.uploads import Part, Refused, received
from actmine.pipeline.datasets.shards import read_bytes
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.heat import heat, overlay
from actmine.pipeline.exemplars.pictures import GONE
from actmine.pipeline.preprocessing.images import image_size

AT_ONCE = 2
"""How many forms are received at a time."""
_BUSY = "Other pictures are being looked at. Send it again in a few seconds."
_LIT = 160
_NOT_KEPT = {"Cache-Control": "no-store"}
_HEADERS = {**_NOT_KEPT, "Content-Security-Policy": "default-src 'none'"}


def look_routes(current: Current) -> list[Route]:
    """The routes, which say how to have them where there is nobody looking."""
    looking = current.looking
    if looking is None:
        return [Route("/look", lambda request: _off(_here(current, request)))]
    receiving = asyncio.Semaphore(AT_ONCE)

    async def offered(request: Request) -> Response:
        opened = await run_in_threadpool(_here, current, request)
        if receiving.locked():
            return _troubled(opened, "Not now", _BUSY, 503, {"Retry-After": "5"})
        async with receiving:
            try:
                fields = await received(request, MOST_BYTES + (1 << 16))
                said = {name: part.text for name, part in fields.items() if name == "token"}
                if why := refusal(looking.token, said, request.headers.get("origin"), request.headers.get("host", "")):
                    raise Refused(403, why)
                name, data = await run_in_threadpool(_picture, opened, fields)
                token = looking.offer(opened.queries.run, opened.queries.version, name, data)
            except Refused as refused:
                return _troubled(opened, "Not looked at", refused.why, refused.status)
            except Busy:
                return _troubled(opened, "Not now", _BUSY, 503, {"Retry-After": "5"})
            except UserError as error:
                return _troubled(opened, "Not looked at", str(error), 400)
        return RedirectResponse(opened.atlas.links.look(token), 303)

    def start(request: Request) -> Response:
        opened = _here(current, request)
        recent = looking.recent(opened.queries.version)
        return HTMLResponse(look_pages.look_page(opened.atlas, recent, looking.ready), headers=_NOT_KEPT)

    def shown(request: Request) -> Response:
        opened = _here(current, request)
        job = _job(opened, request, looking)
        if job is None:
            return _troubled(opened, "No longer here", look_pages.GONE_, 404)
        if job.state == FAILED:
            return _troubled(opened, "Not looked at", job.error, 422)
        at = [asked(request, name) for name in ("at", "x", "y")]
        made = look_pages.looked_page(opened.atlas, job, at, asked(request, "layer"))
        return HTMLResponse(made, 200 if job.state == DONE else 202, headers=_NOT_KEPT)

    def picture(request: Request) -> Response:
        job = _done(_here(current, request), request, looking)
        data = job.looked.picture if job.looked else b""
        return Response(data, headers=_HEADERS, media_type=_media(data))

    def lit(request: Request) -> Response:
        job, layer, unit = _of_unit(_here(current, request), request, looking)
        activations = layer.map(unit)
        if activations is None or job.looked is None:
            raise HTTPException(404)
        if request.path_params["kind"] == "heat":
            return Response(overlay(activations), headers=_HEADERS, media_type="image/png")
        image = Image.open(io.BytesIO(job.looked.picture))
        image.draft("RGB", (2 * _LIT, 2 * _LIT))
        image.thumbnail((_LIT, _LIT))
        data = io.BytesIO()
        heat(image, (0, 0, *job.looked.size), activations).save(data, "JPEG", quality=85)
        return Response(data.getvalue(), headers=_HEADERS, media_type="image/jpeg")

    return [
        Route("/look", offered, methods=["POST"]),
        Route("/look", start),
        Route("/look/{token}", shown),
        Route("/look/{token}/picture", picture),
        Route("/look/{token}/{kind}/{layer}/{unit:number}", lit),
    ]


def _here(current: Current, request: Request) -> Opened:
    """The run as it is now, with addresses that begin where the server is mounted."""
    return current().below(base(request.scope))


def _picture(opened: Opened, fields: dict[str, Part]) -> tuple[str, bytes]:
    """A picture that a form brings, or the original of an image of the run, with its name.

    Raises `Refused` for what is no picture or too large a one, `UserError` where an image has gone.
    """
    number = fields["image"].text if "image" in fields else ""
    if number:
        image = opened.queries.images.get(int(number)) if is_number(number) else None
        if image is None:
            raise Refused(404, "The run has no such image.")
        try:
            at = opened.queries.run.place_of(image.image_id)
            return image.key, read_bytes(at.shard, at.place)
        except GONE:
            raise UserError(f"The original of image {number} is no longer where it was mined.") from None
    sent = fields.get("picture", Part(b""))
    if not sent.data:
        raise Refused(400, "No picture came with the form. Choose a file, or drop one onto the page.")
    size = image_size(sent.data)
    if size is None:
        raise Refused(415, "This is no picture that can be read (JPEG, PNG, WebP, GIF, BMP, TIFF), or far too large.")
    if size[0] * size[1] > MOST_PIXELS:
        most = f"{MOST_PIXELS // 1_000_000} million pixels"
        raise Refused(413, f"{size[0]:,} x {size[1]:,} pixels are more than the {most} one may have. Make it smaller.")
    return sent.filename or "picture", sent.data


def _job(opened: Opened, request: Request, looking: Looking) -> Job | None:
    return looking.get(request.path_params["token"], opened.queries.version)


def _done(opened: Opened, request: Request, looking: Looking) -> Job:
    job = _job(opened, request, looking)
    if job is None or job.looked is None:
        raise HTTPException(404)
    return job


def _of_unit(opened: Opened, request: Request, looking: Looking) -> tuple[Job, OfLayer, int]:
    job = _done(opened, request, looking)
    name = opened.names.get(request.path_params["layer"])
    unit = request.path_params["unit"]
    layer = job.looked.layers.get(name) if job.looked and name is not None else None
    if layer is None or unit >= len(layer.maxima) or request.path_params["kind"] not in ("heat", "lit"):
        raise HTTPException(404)
    return job, layer, unit


def _media(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def _off(opened: Opened) -> Response:
    why = "Pictures of your own are shown to the network where the atlas is started with --allow-upload."
    return _troubled(opened, "Not here", why, 404)


def _troubled(
    opened: Opened, title: str, sentence: str, status: int, headers: dict[str, str] | None = None
) -> Response:  # fmt: skip
    return HTMLResponse(pages.trouble_page(opened.atlas, title, sentence), status, {**_NOT_KEPT, **(headers or {})})
