"""How long does it take to find the units alike of a wide network? `python -m benchmarks.neighbors`.

74,496 units as ViT-B/32 has, with sketches of the usual length, of made-up units that have causes in common; or the
units of `--run`. In one process and in turn: the bare product of every pair (each once, in tiles, nothing kept), the
search, what is then said of chance, and with `--faiss` a flat index of faiss, each as seconds and as a multiple of the
product beside it. `--cpu` counts seconds of cores instead, for a machine that others use as well. Then the recall of
the search against an exhaustive sort in float64, of some of the units.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.readings.sketches import LENGTH
from actmine.pipeline.relations.nearest import EXACT, FAISS, Nearest
from actmine.pipeline.relations.neighbors import MOST, Pairs
from actmine.pipeline.relations.unrelated import Unrelated
from actmine.pipeline.run import open_run
from actmine.pipeline.tables.sketch_tables import UnitSketches, UnitVariance, read_sketches, read_variance

UNITS, CAUSES, TILE = 74_496, 300, 2048
BAR_SECONDS, BAR_RECALL = 60, 0.99


def main() -> None:
    """Prints a line for each part."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--units", type=int, default=UNITS)
    words.add_argument("--run", type=Path, help="a mined run, whose units are taken in place of made-up ones")
    words.add_argument("--checked", type=int, default=256, help="units whose nearest are found by a sort as well")
    words.add_argument("--faiss", action="store_true")
    words.add_argument("--cpu", action="store_true")
    given = words.parse_args()
    torch.set_num_threads(usable_cores())
    found, variance = units_of(given.run) if given.run else made_up(given.units)
    clock = time.process_time if given.cpu else time.perf_counter
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{date.today()}  torch {torch.__version__}, {usable_cores()} cores, load {load}")
    print(f"{len(found.unit):,} units, sketches of {found.vectors.shape[1]}; seconds {'of cores' if given.cpu else ''}")
    product = timed("every product, once", lambda: products(found.vectors), clock)
    nearest, chosen = Nearest(found.vectors), list[tuple[np.ndarray, np.ndarray]]()
    seconds = timed("units alike", lambda: chosen.append(nearest.among(MOST)), clock, product)
    product = (product + timed("every product, again", lambda: products(found.vectors), clock)) / 2
    chance = timed("chance", lambda: Pairs.of(chosen[0]).beside(Unrelated(found, variance)), clock, product)
    if given.faiss:
        flat = Nearest(found.vectors, search=FAISS)
        timed("faiss, flat", lambda: chosen.append(flat.among(MOST)), clock, product)
        print(f"  the same table as {EXACT}: {all(map(np.array_equal, *chosen))}")
    verdict = "" if given.cpu else f" (bar {BAR_SECONDS}: {'reached' if seconds + chance <= BAR_SECONDS else 'missed'})"
    print(f"  together {seconds + chance:.1f} s{verdict}")
    reached = recall(found.vectors, chosen[0][0], given.checked)
    verdict = "reached" if reached >= BAR_RECALL else "missed"
    print(f"  recall@{MOST} of {given.checked} units: {reached:.4f} (bar {BAR_RECALL}: {verdict})")


def timed(what: str, call: Callable[[], object], clock: Callable[[], float], product: float = 0.0) -> float:
    """Seconds of a call, printed; as a multiple of the `product` too, if given."""
    start = clock()
    call()
    seconds = clock() - start
    print(f"  {what:<24}{seconds:8.1f} s{f'   {seconds / product:6.2f} of the product' if product else ''}", flush=True)
    return seconds


def products(vectors: np.ndarray) -> None:
    """Multiplies every pair once, tile by tile."""
    parts = torch.from_numpy(vectors).split(TILE)
    for number, part in enumerate(parts):
        for other in parts[number:]:
            part @ other.t()


def recall(vectors: np.ndarray, places: np.ndarray, checked: int) -> float:
    """The share of the true nearest of some units, by products in float64, that are among those found."""
    asked = np.random.default_rng(1).choice(len(vectors), min(checked, len(vectors)), replace=False)
    every = torch.from_numpy(vectors[asked]).double() @ torch.from_numpy(vectors).double().t()
    every[torch.arange(len(asked)), torch.from_numpy(asked)] = -torch.inf
    true = every.topk(places.shape[1], dim=1).indices.numpy()
    return float(np.mean([np.isin(one, other).mean() for one, other in zip(true, places[asked], strict=True)]))


def units_of(run: Path) -> tuple[UnitSketches, UnitVariance]:
    """The units of a mined run."""
    record = open_run(run).record
    found = read_sketches(run, record["layers"], record["sketch"])
    return found, read_variance(run, found)


def made_up(units: int) -> tuple[UnitSketches, UnitVariance]:
    """Units that share causes, each a few of them strongly."""
    random = np.random.default_rng(0)
    causes = random.standard_normal((CAUSES, LENGTH), np.float32)
    vectors = random.standard_normal((units, CAUSES), np.float32) ** 3 @ causes
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.arange(units)
    variance = UnitVariance(np.full(units, 50_000), np.full(units, 1e-3))
    return UnitSketches(("made up",), 0 * numbers, numbers, vectors), variance


if __name__ == "__main__":
    main()
