"""How soon does a unit's page show a picture on a slow line? `python -m benchmarks.slow_line runs/demo-demo`.

Chromium with a CPU that is 6 times slower and a line as of 2G: 250 kbit/s down, 50 up, 300 ms for every request. Each
page is opened in a browser that has nothing of it. Needs playwright and Chromium.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from actmine.pipeline.atlas.hosts import LOOPBACK
from actmine.pipeline.atlas.links import segments
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.run import open_run
from benchmarks.atlas import served

BAR_S = 2.0
ROUNDS = 9
LATENCY_MS, DOWN, UP, SLOWER = 300, 250_000 / 8, 50_000 / 8, 6
_LOADED = """
window.atlasShown = [];
document.addEventListener("load", event => {
    if (event.target.tagName === "IMG") window.atlasShown.push(performance.now());
}, true);
"""
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint').map(entry => entry.startTime)[0] || 0"


def main() -> None:
    """Prints when the first picture is there and painted, and how many bytes came until then."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo-demo")
    layers = open_run(run).layers
    mapped = layers[layers["height"].notna()] if layers["height"].notna().any() else layers
    last, units = mapped["layer"].tolist()[-1], int(mapped["units"].iloc[-1])
    print(f"{date.today()}  {usable_cores()} cores; {run}, {last}")
    with served(run) as port, chromium() as browser:
        address = f"http://{LOOPBACK}:{port}/layer/{segments(layers['layer'])[last]}"
        found = [first_picture(browser, f"{address}/{unit}") for unit in range(min(ROUNDS, units))]
        median = statistics.median(found)
        verdict = "reached" if median < BAR_S else "missed"
        print(f"  first picture: median {median:.2f} s, slowest {max(found):.2f} s (bar {BAR_S:g} s: {verdict})")


def first_picture(browser: Any, address: str) -> float:
    """Seconds from the request of a page until its first picture is loaded and something is painted."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(_LOADED)
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    line = {"offline": False, "latency": LATENCY_MS, "downloadThroughput": DOWN, "uploadThroughput": UP}
    session.send("Network.emulateNetworkConditions", line)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    page.goto(address, wait_until="commit", timeout=60_000)
    for _ in range(600):
        loaded, painted = page.evaluate(f"[(window.atlasShown || [])[0] || 0, {_FIRST_PAINT}]")
        if loaded and painted:
            context.close()
            return float(max(loaded, painted)) / 1000
        page.wait_for_timeout(50)
    raise TimeoutError(f"{address} shows no picture")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of this machine, without a screen."""
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.getuid() == 0 else [])
        yield browser
        browser.close()


if __name__ == "__main__":
    main()
