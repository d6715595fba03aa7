"""Answers that are not sent twice: an ETag names the state of what is told, and whoever has it is told so (304)."""

from __future__ import annotations

import hashlib
import re

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def knows(request: HTTPConnection, tag: str, any_: bool = True) -> bool:
    """Whether a browser has what `tag`, an ETag, names: it says so in `If-None-Match`, with `*` where `any_` will do.

    Tags are compared weakly, as RFC 9110 (13.1.2) has it.
    """
    said = ",".join(request.headers.getlist("if-none-match"))
    if said.strip() == "*":
        return any_
    return tag.removeprefix("W/") in _TAG.findall(said)


def unless_known(request: Request, answer: Response) -> Response:
    """An answer with an ETag of its bytes, or 304 to who has it. It is weak: bytes may be compressed on their way."""
    headers = {"Cache-Control": "no-cache", "ETag": f'W/"{hashlib.sha256(bytes(answer.body)).hexdigest()[:16]}"'}
    if knows(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    answer.headers.update(headers)
    return answer
