"""Makes the README's pictures from runs: `python -m docs.pictures runs/demo-demo [SQUEEZENET_RUN]`.

Of the demo, whole contact sheets and a strip with crops, and latents of a dictionary where one was mined
(docs/guides/directions.md); of SqueezeNet, visualizations only, since the photographs in its exemplars have licences of
their own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from actmine.pipeline.run import Run, open_run, picture
from actmine.pipeline.sheets.drawing import CONTENT, GREY, INK, Drawing, blank, column, number, stacked
from actmine.pipeline.sheets.raster import pixels
from actmine.pipeline.sheets.write import write_sheets

HERE = Path(__file__).parent / "pictures"
STRIPS = (("block4.relu", 14), ("block5.relu", 94), ("block4.relu", 31))
SHEETS = {"wheel": ("block4.relu", 20), "eye": ("block5.relu", 94), "flower": ("block5.relu", 5)}
GRID = {
    "features.4.expand3x3_activation": 12,
    "features.7.expand3x3_activation": 12,
    "features.9.expand3x3_activation": 10,
    "features.11.expand3x3_activation": 8,
    "features.12.expand1x1_activation": 8,
}
SHEET_WIDTH = 1000
LATENTS, ACROSS = 32, 8


def strip(run: Run, layer: str, unit: int, crops: int = 7) -> Drawing:
    """One unit in one line: its visualization, then its strongest crops."""
    row = run.units(layer, unit).iloc[0]
    exemplars = run.exemplars(layer, unit).head(crops)
    cell = (CONTENT - crops * 14) // (crops + 1)
    block = blank(cell + 44)
    block.put(picture(row.visualization), 0, 0, cell, cell, "")
    block.write(0, cell + 20, f"{layer}, unit {unit}", 15, cell, INK)
    block.write(0, cell + 40, f"drawn: {number(row.visualization_activation)}", 14, cell, GREY)
    for place, (_, exemplar) in enumerate(exemplars.iterrows(), 1):
        left = column(place, crops + 1, cell)
        block.put(run.crop(exemplar), left, 0, cell, cell, "")
        block.write(left, cell + 20, str(exemplar.label_name), 15, cell, INK)
        block.write(left, cell + 40, number(exemplar.activation), 14, cell, GREY)
    return block


def grid(run: Run, layers: dict[str, int]) -> Drawing:
    """Visualizations of the units of some layers that reach furthest beyond the dataset, one line a layer."""
    blocks = []
    for layer, count in layers.items():
        units = run.units(layer).sort_values("visualization_ratio", ascending=False).head(count)
        cell = (CONTENT - (count - 1) * 8) // count
        block = blank(cell + 40)
        block.write(0, 20, layer.removesuffix("_activation"), 15, CONTENT, GREY)
        for place, cells in enumerate(units.visualization):
            block.put(picture(cells), column(place, count, cell), 30, cell, cell, "")
        blocks.append(block)
    return stacked(blocks, 6)


def latents(run: Run, layer: str) -> Drawing:
    """Of each label the latent that tells it best, drawn, with its density and that label."""
    units = run.units(layer)
    units = units[(units.best_label_q < 0.05) & units.visualization.notna()]
    best = units.sort_values("best_label_correlation", ascending=False).drop_duplicates("best_label_name").head(LATENTS)
    cell = (CONTENT - (ACROSS - 1) * 12) // ACROSS
    blocks = []
    for start in range(0, len(best), ACROSS):
        block = blank(cell + 48)
        for place, (_, row) in enumerate(best.iloc[start : start + ACROSS].iterrows()):
            left = column(place, ACROSS, cell)
            block.put(picture(row.visualization), left, 0, cell, cell, "")
            block.write(left, cell + 20, str(row.best_label_name), 15, cell, INK)
            block.write(left, cell + 40, f"{row.unit}: density {row.density:.2%}", 14, cell, GREY)
        blocks.append(block)
    return stacked(blocks, 6)


def sheet(run: Run, layer: str, unit: int, name: str) -> None:
    """A whole contact sheet, as a JPEG that fits a page."""
    (path,) = write_sheets(run, [layer], [unit])
    image = Image.open(path)
    size = SHEET_WIDTH, round(image.height * SHEET_WIDTH / image.width)
    image.resize(size, Image.Resampling.LANCZOS).save(HERE / name, quality=88)


def main() -> None:
    """Writes the pictures beside this file."""
    demo, *others = (open_run(path) for path in sys.argv[1:3])
    HERE.mkdir(exist_ok=True)
    pixels(stacked([strip(demo, layer, unit) for layer, unit in STRIPS], 24)).save(HERE / "units.jpg", quality=92)
    for name, (layer, unit) in SHEETS.items():
        sheet(demo, layer, unit, f"sheet-{name}.jpg")
    for layer in demo.layers.dropna(subset="dictionary").layer:
        pixels(latents(demo, layer)).save(HERE / "latents.jpg", quality=90)
        spiral = demo.units(layer).query("best_label_name == 'spiral'").sort_values("best_label_correlation").iloc[-1]
        sheet(demo, layer, int(spiral.unit), "latent-spiral.jpg")
    for squeezenet in others:
        pixels(grid(squeezenet, GRID)).save(HERE / "squeezenet.jpg", quality=90)


if __name__ == "__main__":
    main()
