"""The one exception that a user sees as a sentence instead of a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

GO_ON = "the same command then goes on where it stopped."
"""How a sentence about a passing trouble ends."""
_FULL = (
    "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED",
    "unable to find an engine",  # what cuDNN says where there is no room for its workspace
)  # fmt: skip
_BEGIN = r"([A-Za-z][\w+.-]*:[/\\]+)"
_AT = "(?:@|%40)"
_SECRETS = (  # whatever is typed wrongly, more is taken for a secret than is one
    (re.compile(rf"{_BEGIN}[^/\\\s]*?:.*{_AT}", re.DOTALL), r"\1…@"),  # until the last @: a password may hold anything
    (re.compile(rf"{_BEGIN}[^/\\\s?#]*{_AT}"), r"\1…@"),
    (re.compile(rf"[^\s'\"/\\@:…]+:(?![/\\])[^\s'\"]*{_AT}"), "…@"),
    (re.compile(rf"{_BEGIN}([^/\\\s'\":@\[]*):(?!\d*(?:[/\\?#\s'\",.);:]|$))[^\s'\"]*"), r"\1\2:…"),
    (re.compile(r"([?&#;][\w.~%-]+=)[^\s'\"&#;]+"), r"\1…"),
)  # fmt: skip


class UserError(Exception):
    """Something the user can mend: says what was wrong, where (shard, key), and what to do.

    `jobs` prints its text and exits with 1. Anything else that escapes is a defect and keeps its traceback. No text of
    it holds the password or signature of an address, however malformed that is.
    """

    def __init__(self, *words: object) -> None:
        super().__init__(*(without_secrets(word) if isinstance(word, str) else word for word in words))


class Damaged(Exception):
    """A file that is not, or no longer, what was written; says how."""


class MemoryFull(UserError):
    """A GPU's memory that had no room left, of which somebody else may have most: the same command goes on later."""


def is_memory_full(error: BaseException) -> bool:
    """Whether an error of torch, Triton or CUDA says that a GPU's memory had no room left."""
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _FULL)


def memory_full(error: BaseException, otherwise: str = "") -> MemoryFull:
    """The sentence that such an error becomes; `otherwise` says what else can be done."""
    return MemoryFull(
        f"The GPU's memory is full ({first_line(error).rstrip('.')}). Whoever else uses it may be done later: {GO_ON} "
        f"{otherwise}".rstrip()
    )


@contextmanager
def sentences() -> Iterator[None]:
    """A block out of which a GPU's full memory comes as a sentence, whatever it was computing."""
    try:
        yield
    except RuntimeError as error:
        if not is_memory_full(error):
            raise
        raise memory_full(error) from error


def without_secrets(text: str) -> str:
    """The same text with "…" for what may be the password or signature of an address, or who it is of."""
    for secret, public in _SECRETS:
        text = secret.sub(public, text)
    return text


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def near_matches(word: str, known: Iterable[str], most: int = 4) -> str:
    """Ends a sentence about an unknown `word` with the known words that look like it, or with nothing."""
    near = difflib.get_close_matches(word, list(known), n=most, cutoff=0.5)
    return f" Did you mean {', '.join(near)}?" if near else ""


def listed(words: list[str], comma: str = ", ", most: int = 6) -> str:
    """Words for a sentence, of very many the first."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return comma.join(words[:most]) + more
