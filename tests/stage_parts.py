"""Watches which parts a stage commits, and interrupts it after some of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actmine.pipeline.storage.stage_store import StageStore


@contextmanager
def committing(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> Iterator[list[str]]:
    """The names of the parts that are committed within; a part beyond the `most` that may be ends it by Ctrl-C."""
    committed: list[str] = []
    commit = StageStore.commit

    def watched(self: StageStore, name: str, rows: Any) -> None:
        if len(committed) == most:
            raise KeyboardInterrupt
        committed.append(name)
        commit(self, name, rows)

    with monkeypatch.context() as patch:
        patch.setattr(StageStore, "commit", watched)
        yield committed


@contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[list[str]]:
    """What is done within ends by Ctrl-C once it has committed `after` parts; their names."""
    with committing(monkeypatch, after) as committed, pytest.raises(KeyboardInterrupt):
        yield committed
