"""A form with a picture, as a browser sends it: read into memory alone, bounded in bytes and in time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from starlette.requests import ClientDisconnect, Request

from actmine.pipeline.errors import UserError

SECONDS = 60.0
"""How long a form may take to come."""
_MOST_PARTS = 8
_MOST_HEAD = 4096
_LONGEST = 120


class Refused(Exception):
    """A form that is not taken: with what status, and why in a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(frozen=True, slots=True)
class Part:
    """A field of a form: its bytes, and the name of a file without its folder, if it is one."""

    data: bytes
    filename: str = ""

    @property
    def text(self) -> str:
        """What is written in it."""
        return self.data.decode("utf-8", "replace")


async def received(request: Request, most: int, seconds: float = SECONDS) -> dict[str, Part]:
    """The fields of a form (multipart/form-data, RFC 7578) of at most so many bytes. Raises `Refused`."""
    said = request.headers.get("content-length", "0")
    if not said.isascii() or not said.isdigit() or int(said) > most:
        raise Refused(413, f"A picture has at most {most >> 20} MB. Make it smaller, or send another.")
    data = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                data += part
                if len(data) > most:
                    raise Refused(413, f"A picture has at most {most >> 20} MB. Make it smaller, or send another.")
    except TimeoutError as error:
        raise Refused(408, f"The picture did not come within {seconds:g} seconds. Send it again.") from error
    except ClientDisconnect as error:
        raise Refused(400, "The picture did not come whole. Send it again.") from error
    try:
        return parts_of(request.headers.get("content-type", ""), bytes(data))
    except UserError as error:
        raise Refused(400, str(error)) from error


def parts_of(content_type: str, data: bytes) -> dict[str, Part]:
    """The fields of a form by name, the first of each. Raises `UserError` for what is none."""
    kind = Message()
    kind["content-type"] = content_type.replace("\r", "").replace("\n", "")
    boundary = kind.get_boundary("")
    if kind.get_content_type() != "multipart/form-data" or not boundary or len(boundary) > 70:
        raise UserError("This is no form with a picture.")
    chunks = (b"\r\n" + data).split(b"\r\n--" + boundary.encode("utf-8", "replace"), _MOST_PARTS + 2)
    if len(chunks) < 3 or chunks[0].strip() or not chunks[-1].startswith(b"--"):
        raise UserError("This form is not whole, or has too many fields.")
    found: dict[str, Part] = {}
    for chunk in chunks[1:-1]:
        head, gap, content = chunk.partition(b"\r\n\r\n")
        if not gap or not head.startswith(b"\r\n") or len(head) > _MOST_HEAD:
            raise UserError("This form is not whole.")
        said = HeaderParser().parsestr(head[2:].decode("utf-8", "replace"))
        name = said.get_param("name", "", "content-disposition")
        if said.get_content_disposition() == "form-data" and isinstance(name, str) and name:
            found.setdefault(name, Part(content, _plain(said.get_filename(""))))
    return found


def _plain(name: str) -> str:
    """A file's name without its folder, in characters that are seen."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(each for each in last if each.isprintable())[-_LONGEST:]
