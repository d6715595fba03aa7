"""What a request asks for: where below the server's own place, and by which words; how it is refused."""

from __future__ import annotations

from urllib.parse import quote

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Scope

_LONGEST = 500


class _Number(Convertor[int]):
    """A number in an address, of so many digits that tables can hold it."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", _Number())


def asked(request: Request, name: str) -> str:
    """A word, at most so long; empty where it is not said."""
    return request.query_params.get(name, "")[:_LONGEST]


def is_number(text: str) -> bool:
    """Whether a word is a number, of so many digits that tables can hold it."""
    return text.isascii() and text.isdigit() and len(text) < 19


def base(scope: Scope) -> str:
    """What addresses of this server begin with, such as `/run/NAME`; empty where it is mounted nowhere."""
    return quote(_root(scope))


def _root(scope: Scope) -> str:
    return str(scope.get("root_path", "")).rstrip("/")


def place(scope: Scope) -> str:
    """What is asked for, below the `base`."""
    return str(scope["path"]).removeprefix(_root(scope))


def by_program(scope: Scope) -> bool:
    """Whether the interface for programs is asked."""
    return place(scope) == "/api" or place(scope).startswith("/api/")


def refusal(scope: Scope, status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """An answer that says in a sentence why there is no other: to programs in JSON, else as text."""
    if by_program(scope):
        return JSONResponse({"error": sentence}, status, headers)
    return PlainTextResponse(f"{sentence}\n", status, headers)
