"""Makes docs/ascent.md's pictures and figures: `python -m docs.gallery runs/demo-demo SQUEEZENET_RUN [--presets a,b]`.

Every preset draws the same six units of each run, as `make visualize` does; the runs stay as they are. What a picture
reaches, its rank and the core-seconds it took are kept beside the pictures, so that presets can be drawn one at a time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.ascent.ascend import Visualization
from actmine.pipeline.ascent.generators import load_generator
from actmine.pipeline.ascent.presets import PRESETS
from actmine.pipeline.ascent.presets.gan_prior import with_generator
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.mined_network import mined_network
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.stages.ranking import COLUMNS, Ranking
from actmine.pipeline.stages.spectrum import spectrum_of
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows
from actmine.pipeline.work import AscentBatch, AscentWork

HERE = Path(__file__).parent
PICTURES = HERE / "pictures" / "ascent"
PAGE = HERE / "ascent.md"
BEGIN, END = "<!-- the table: python -m docs.gallery -->", "<!-- end of the table -->"
SQUEEZENET = {"features.12.expand1x1_activation": (0, 1, 3), "features.12.expand3x3_activation": (8, 30, 111)}
DEMO = {"block4.relu": (14, 20, 31), "block5.relu": (5, 7, 94)}
CELL, GAP, QUALITY = 112, 6, 82


def main() -> None:
    """Draws, writes pictures and figures, then the table."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("demo")
    words.add_argument("squeezenet")
    words.add_argument("--presets", default=",".join(PRESETS), help="all if not said")
    words.add_argument("--generator", default="", help="for gan-prior: package.module:factory[,weights]")
    words.add_argument("--weights", default="", help="where SqueezeNet's weights are now")
    given = words.parse_args()
    keep_freed_memory()
    compute_exactly()
    PICTURES.mkdir(parents=True, exist_ok=True)
    runs = [(open_run(given.squeezenet), SQUEEZENET, given.weights), (open_run(given.demo), DEMO, "")]
    for name in given.presets.split(","):
        try:
            figures, pictures = {}, []
            for (run, units, weights), kind in zip(runs, ("squeezenet", "demo"), strict=True):
                preset = PRESETS[name]
                if given.generator:
                    preset = with_generator(preset, load_generator(given.generator))
                figures[kind], drawn = draw(run, units, preset, weights)
                pictures += drawn
        except UserError as error:
            print(f"{name}: left out. {error}")
            continue
        strip(pictures).save(PICTURES / f"{name}.jpg", quality=QUALITY, subsampling=0)
        (PICTURES / f"{name}.json").write_text(json.dumps(figures, indent=1) + "\n")
        print(f"{name}: {figures}", flush=True)
        write_table()


def draw(
    run: Run, units: dict[str, tuple[int, ...]], preset: Preset, weights: str
) -> tuple[dict[str, Any], list[Image.Image]]:
    """The pictures of some units, and their ratios, ranks and core-seconds (a unit, in batches of just these)."""
    network = mined_network(run, weights)
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose(",".join(units))
    start = time.process_time()
    spectrum = spectrum_of(run, network.preprocessing) if preset.spectrum else None
    work = AscentWork(Subject(network, traced, layers), receptive_fields(traced, layers), preset, 0, spectrum)
    ratios, ranks, pictures = [], [], []
    batches = [AscentBatch(number, units[layer.name], len(units[layer.name])) for number, layer in enumerate(layers)]
    todo = (work.with_exemplars(batch, run.path) for batch in batches)
    for batch, drawn in LocalEngine(torch.device("cpu")).map(work, todo, lambda tally: None):
        table = read_rows(table_file(run.path, "units", layers[batch.layer].name), [*COLUMNS, "activation_max"])
        ranking, most = Ranking(table), table["activation_max"].to_pylist()
        for item in best(drawn, batch.units):
            ratios.append(round(item.activation / most[item.unit], 2))
            ranks.append(ranking.rank(item.unit, item.readings))
            pictures.append(Image.fromarray(item.picture))
    figures = {"ratio": ratios, "rank": ranks, "seconds": round((time.process_time() - start) / len(pictures), 2)}
    return figures, pictures


def best(drawn: Sequence[Visualization], units: Sequence[int]) -> list[Visualization]:
    """One picture a unit: of its facets the one that drives it hardest."""
    return [max((item for item in drawn if item.unit == unit), key=lambda item: item.activation) for unit in units]


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures side by side, each fitted into a cell: small ones enlarged pixel by pixel, as the sheets do."""
    line = Image.new("RGB", (len(pictures) * (CELL + GAP) - GAP, CELL), "white")
    for place, picture in enumerate(pictures):
        way = Image.Resampling.NEAREST if max(picture.size) * 3 <= CELL else Image.Resampling.LANCZOS
        line.paste(picture.resize((CELL, CELL), way), (place * (CELL + GAP), 0))
    return line


def write_table() -> None:
    """Puts the presets that have been drawn into the page, in the order of `PRESETS`."""
    done = [name for name in PRESETS if (PICTURES / f"{name}.json").is_file()]
    rows = ["| preset | six late units of SqueezeNet 1.1, six units of the demo's network |", "| --- | --- |"]
    rows += [f"| `{name}` | ![Twelve units drawn by {name}](pictures/ascent/{name}.jpg) |" for name in done]
    rows += ["", "| preset | ratio, SqueezeNet | rank | core-s | ratio, demo | rank | core-s | source |"]
    rows += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for name in done:
        figures = json.loads((PICTURES / f"{name}.json").read_text())
        cells = [cell for kind in ("squeezenet", "demo") for cell in said(figures[kind])]
        rows.append(f"| `{name}` | {' | '.join(cells)} | {PRESETS[name].source} |")
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(rows) + f"\n\n{END}{after}")


def said(figures: dict[str, Any]) -> tuple[str, str, str]:
    """Median ratio with its range, how many of the units come first, core-seconds a unit."""
    ratios = figures["ratio"]
    first = sum(rank == 0 for rank in figures["rank"])
    spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return spread, f"0 for {first} of {len(ratios)}", f"{figures['seconds']:.1f}"


if __name__ == "__main__":
    main()
