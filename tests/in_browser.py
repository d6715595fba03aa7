"""The atlas in a real browser: Chromium, pages that must not complain, a server under way, screenshots."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.hosts import LOOPBACK, listening
from actmine.pipeline.atlas.looking import Looking
from actmine.pipeline.atlas.server import application

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
IN_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs the browser Chromium: apt-get install chromium"),
]
ARTIFACTS = Path(__file__).parents[1] / "artifacts" / "atlas"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE_MS = 30_000


def is_own(url: str) -> bool:
    """Whether a page asks nobody but its server, or a file."""
    return url.startswith((f"http://{LOOPBACK}:", "file://", "data:"))


def kept(page: Any, name: str) -> None:
    """Keeps a screenshot to look at."""
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=str(ARTIFACTS / f"{name}.png"))


def until(page: Any, expression: str) -> None:
    """Waits until an expression is true; pages forbid the browser what playwright's own waiting needs."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


@contextmanager
def served(run: Path, desk: Desk | None = None, looking: Looking | None = None) -> Iterator[str]:
    """The address of the atlas of a run, under way."""
    with listening(0) as there:
        app = application(run, desk=desk, looking=looking)
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [there]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://{LOOPBACK}:{there.getsockname()[1]}"
        server.should_exit = True
        thread.join(10)
