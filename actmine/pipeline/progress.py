"""How long work tells whoever watches: a protocol that jobs implement, and one that shows nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


class Progress(Protocol):
    """Shows stages and says things; implemented in `actmine.console`."""

    def stage(
        self, name: str, total: int | None, unit: str, done: int = 0
    ) -> AbstractContextManager[Callable[..., None]]:
        """A stage of `total` units of work, `done` of them by an earlier start.

        Yields `advance(count, note="", total=None)`, to be called as work gets done; `note` replaces the text beside
        the bar, `total` a total that was not known or has changed.
        """

    def say(self, sentence: str) -> None:
        """One line for the person watching."""


class Silent:
    """A `Progress` that shows nothing; the default of every function that takes one."""

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
        """Yields an `advance` that does nothing."""
        yield lambda count, note="", total=None: None

    def say(self, sentence: str) -> None:
        """Says nothing."""


def duration(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"


def in_bytes(count: float) -> str:
    """A size as people say it."""
    for unit, name in _BYTES:
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} bytes"
