"""Reads the atlas's pages without a browser."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

from starlette.testclient import TestClient
from starlette.types import ASGIApp

from actmine.pipeline.atlas import patience
from actmine.pipeline.atlas.hosts import listening
from actmine.pipeline.atlas.links import segment, segments
from actmine.pipeline.atlas.server import application
from tests.atlas_tables import (
    NAMES,
    PLAIN,
    TOPK,
    WIDTH,
    WILD,
    number_of,
)  # fmt: skip

LAYERS = segments(NAMES)


def browsing(run: Path) -> TestClient:
    """A browser without a screen, at the atlas of a run."""
    return TestClient(application(run), base_url="http://127.0.0.1:8420", follow_redirects=False)


@contextmanager
def listened(app: ASGIApp) -> Iterator[int]:
    """The port at which an app is served for real, as the command does."""
    with listening(0) as there:
        server = patience.server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [there]})
        thread.start()
        try:
            yield there.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def until(there: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for something, and fails where it does not come about."""
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


class Page(HTMLParser):
    """A page's elements with their attributes, and its text."""

    def __init__(self, client: TestClient, path: str) -> None:
        super().__init__()
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.text[:300])
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, name: str = "", part: str = "") -> list[dict[str, str]]:
        return [attributes for each, attributes in self.tags if each == tag and part in attributes.get(name, "")]

    def addresses(self) -> set[str]:
        return {
            found[name] for _, found in self.tags for name in ("href", "src", "data-whole", "action") if name in found
        }

    def places(self) -> set[str]:
        """Its addresses without marks, those of units without the list that they carry, of images without a place."""
        plain = (re.sub(r"^(/image/\d+)\?at=.*", r"\1", each.split("#")[0]) for each in self.addresses())
        return {re.sub(r"^(/layer/[^/]+/\d+)\?.*", r"\1", each) for each in plain}


def unit_path(layer: str, unit: int) -> str:
    """The address of a unit's page."""
    return f"/layer/{LAYERS[layer]}/{unit}"


def api_path(layer: str, unit: int | None = None) -> str:
    """Where programs have a layer's units, or one unit."""
    return f"/api/layer/{LAYERS[layer]}" + ("" if unit is None else f"/{unit}")


def marks_of(image: int) -> set[str]:
    """The boxes that an image's page must have."""
    return {
        f"{segment(layer)}--{unit}--{rank}"
        for layer in (WILD, PLAIN) for unit in range(WIDTH) for rank in range(TOPK)
        if number_of(unit, rank) == image and unit not in (4, 9)
    }  # fmt: skip


def luminance(colour: Sequence[int]) -> float:
    """The relative luminance of red, green and blue from 0 to 255, as WCAG 2 has it."""
    shares = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
