"""The words behind an address, as a request says them."""

from __future__ import annotations

from starlette.requests import Request

_LONGEST = 500


def asked(request: Request, name: str) -> str:
    """A word, at most so long; empty where it is not said."""
    return request.query_params.get(name, "")[:_LONGEST]


def is_number(text: str) -> bool:
    """Whether a word is a number, of so many digits that tables can hold it."""
    return text.isascii() and text.isdigit() and len(text) < 19
