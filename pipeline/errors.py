"""The one exception that a user sees as a sentence instead of a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

GO_ON = "the same command then goes on where it stopped."
"""How a sentence about a passing trouble ends."""


class UserError(Exception):
    """Something the user can mend: says what was wrong, where (shard, key), and what to do.

    `jobs` prints its text and exits with 1. Anything else that escapes is a defect and keeps its traceback. Passwords
    and signatures of addresses in it are left out, however an address is misspelt.
    """

    def __init__(self, *words: object) -> None:
        super().__init__(*(without_secrets(word) if isinstance(word, str) else word for word in words))


_PASSWORD = re.compile(r"""((?:\b[a-z][a-z0-9+.-]*:)?/{1,3})?[^\s'"(/:]*:[^\s'"]*@""", re.IGNORECASE)
_USER = re.compile(r"""((?:\b[a-z][a-z0-9+.-]*:/+|//))[^\s'"(/]*@""", re.IGNORECASE)
_SIGNATURE = re.compile(r"""([?#&])[^\s'"?#()]*=[^\s'"()]*""")


def without_secrets(text: str) -> str:
    """The same without what may be a password or a signature: what stands before an `@`, and query strings."""
    return _SIGNATURE.sub(r"\1…", _USER.sub(r"\1", _PASSWORD.sub(r"\1", text)))


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
