"""What does an activation atlas cost? `python -m benchmarks.activation_atlas [--layers block2.relu,block4.relu]`.

In each round the dataset is mined into a new run and an atlas of each layer is made, with another seed each time.
Prints medians of core-seconds: of reading positions as a multiple of the scan, of a cell, and of all as a multiple.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import torch

import actmine
from actmine.console import Display
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.progress import Silent


class Watched(Silent):
    """Counts the core-seconds of every stage, and what it was of."""

    def __init__(self) -> None:
        self.used: dict[str, float] = defaultdict(float)
        self.count: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
        """Counts while inside."""
        start = time.process_time()
        yield lambda count, note="", total=None: None
        self.used[name] += time.process_time() - start
        self.count[name] = total or 0


@contextmanager
def watching() -> Iterator[Watched]:
    """What commands show goes to the counter while inside."""
    before, counter = Display.stage, Watched()
    Display.stage = lambda self, *words, **more: counter.stage(*words, **more)  # type: ignore[method-assign]
    try:
        yield counter
    finally:
        Display.stage = before  # type: ignore[method-assign]


def main() -> None:
    """Prints what each layer's atlas takes."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--dataset", default="demo")
    words.add_argument("--model", default="demo")
    words.add_argument("--weights", default="")
    words.add_argument("--layers", default="block2.relu,block4.relu")
    words.add_argument("--rounds", type=int, default=3)
    given = words.parse_args()
    print(f"{date.today()}  torch {torch.__version__}, {usable_cores()} cores, {given.model} on {given.dataset}")
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            with watching() as counter:
                run = actmine.mine(
                    given.model, given.dataset, weights=given.weights, layers=given.layers, run=Path(folder) / "run",
                    visualize=False, sheets=False,
                )  # fmt: skip
            scan = counter.used["Scanning"]
            for layer in given.layers.split(","):
                with watching() as counter:
                    about = actmine.activation_atlas(run, layer, seed=number).record["activation_atlases"][layer]
                found[layer, "positions / scan"].append(counter.used["Reading positions"] / scan)
                found[layer, "layout / scan"].append(counter.used["Laying out the map"] / scan)
                found[layer, "core-s a cell"].append(counter.used["Drawing"] / about["cells"])
                found[layer, "cells"].append(about["cells"])
                found[layer, "all / scan"].append(sum(counter.used.values()) / scan)
    for layer in given.layers.split(","):
        its = {what: statistics.median(values) for (of, what), values in found.items() if of == layer}
        print(f"{layer:34} " + "  ".join(f"{what} {value:.3g}" for what, value in its.items()))


if __name__ == "__main__":
    main()
