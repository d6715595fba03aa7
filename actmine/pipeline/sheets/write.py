"""Draws the chosen sheets of a run and writes them below `RUN/sheets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

from actmine.pipeline.choose import choose_layers, choose_units
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.run import Run, picture
from actmine.pipeline.sheets.cell_map import cell_map
from actmine.pipeline.sheets.drawing import Drawing
from actmine.pipeline.sheets.drawn import Drawn
from actmine.pipeline.sheets.material import (
    Wholes,
    about,
    best_crops,
    exemplars_with_views,
    method_of,
    visualizations,
    with_crops,
    with_maps,
)
from actmine.pipeline.sheets.overview import overview_pages
from actmine.pipeline.sheets.raster import pixels
from actmine.pipeline.sheets.region import what_is_shown
from actmine.pipeline.sheets.unit_sheet import Look, unit_sheet
from actmine.pipeline.sheets.vector import DENSITY, check_vector, write_vector
from actmine.pipeline.sheets.view_grids import SIDE, Of, grid_pages
from actmine.pipeline.spoken import LEFT_OPEN, command
from actmine.pipeline.storage.files import safe_name, written_aside
from actmine.pipeline.words import Format, Paper, Shown
from actmine.schemas.activation_atlas import NOTED

_RLE = 3  # zlib's strategy that is both quickest and smallest on photographs beside plain paper


_HARDEST = {
    None: "the image that drives each unit hardest",
    Shown.box: "the image region that drives each unit hardest",
    Shown.focus: "the image region that drives each unit hardest, and of it the part that matters, where measured",
}


def write_sheets(
    run: Run,
    layers: Sequence[str],
    units: Sequence[int] | None = None,
    *,
    most: int | None = None,
    shown: Shown = Shown.box,
    views: bool = True,
    method: str = "",
    maps: bool = True,
    preset: str = "",
    look: Look = Look(),
    kind: Format = Format.png,
    paper: Paper = Paper.a4,
    progress: Progress = Silent(),
) -> list[Path]:
    """Writes one contact sheet per unit, `RUN/sheets/LAYER/UNIT.png` (or what `kind` says), and returns the files.

    `layers` are names or globs (empty: all), `units` numbers (None: all), `most` keeps only so many of each layer:
    those that fire and have the highest label purity, then activation. `shown` is what crops show: the whole receptive
    field, or its focus where that was measured; `views` by `method` (empty: whichever there are) and heat `maps` go
    below them. Visualizations are those by `preset` (empty: of the units table); `look` says how many crops there are;
    a PDF has pages of `paper`. A sheet whose original images have gone is drawn without them.
    Raises `UserError` for unknown layers and units, a preset that drew nothing, for a kind of file that cannot be made
    here and where nothing can be written.
    """
    _check(kind)
    chosen = choose_units(run, choose_layers(run, layers), units, most)
    drawn = Drawn(run, list(chosen), preset)
    tasks = [(layer, unit) for layer, its_units in chosen.items() for unit in its_units]
    written, known = [], what_is_shown(run, shown)
    wholes = _wholes(run, look, kind)
    methods = {layer: method_of(run, layer, method) if views else "" for layer in chosen}

    def draw(task: tuple[str, int]) -> Path:
        layer, unit = task
        row = drawn.row(layer, run.units(layer, unit).iloc[0].to_dict())
        sheet = _sheet(run, row, wholes, known, methods[layer], look, kind is not Format.png, maps)
        return _write(sheet, run, layer, str(unit), kind, paper)

    # Decoding, resampling and encoding all let go of the interpreter, so threads are enough.
    with progress.stage("sheets", len(tasks), "sheets") as advance, ThreadPoolExecutor(usable_cores()) as pool:
        try:
            for path in pool.map(draw, tasks):
                written.append(path)
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if wholes.gone:
        example = next(iter(wholes.gone.values()))
        progress.say(f"{len(wholes.gone):,} original images are gone, so the sheets lack them. {example}")
    return written


def write_overviews(
    run: Run, layers: Sequence[str], *, shown: Shown = Shown.box, preset: str = "", kind: Format = Format.png,
    paper: Paper = Paper.a4, progress: Progress = Silent(),
) -> list[Path]:  # fmt: skip
    """Writes `RUN/sheets/LAYER/overview.png` of each layer, and `overview-2.png`, … of a large one; returns the files.

    `layers` are names or globs (empty: all). Units without a visualization by `preset` (empty: in the units table) show
    their best crop, and of it what is `shown`.
    Raises `UserError` for unknown layers, a preset that drew nothing, for a kind of file that cannot be made here and
    where nothing can be written.
    """
    _check(kind)
    chosen, known = choose_layers(run, layers), what_is_shown(run, shown)
    drawn, written = Drawn(run, chosen, preset), []
    with progress.stage("overviews", len(chosen), "layers") as advance:
        for layer in chosen:
            by = f" (preset {preset})" if preset else ""
            cells = visualizations(run, layer, known, drawn)
            what = f"what each unit prefers{by}; crop: not drawn, its strongest"
            if cells is None:
                cells, what = best_crops(run, layer, known), _HARDEST[known]
            units = int(run.layers["units"].iloc[run.at(layer)])
            legend = f"{what}; number of the unit, its maximum activation"
            pages = overview_pages(layer, units, cells, legend, about(run, layer, known))
            for page, drawing in enumerate(pages, start=1):
                name = "overview" if page == 1 else f"overview-{page}"
                written.append(_write(drawing, run, layer, name, kind, paper))
            advance(1, layer)
    return written


def write_grids(
    run: Run,
    layers: Sequence[str],
    units: Sequence[int] | None = None,
    *,
    most: int | None = None,
    shown: Shown = Shown.box,
    method: str = "",
    kind: Format = Format.png,
    paper: Paper = Paper.a4,
    progress: Progress = Silent(),
) -> list[Path]:
    """Writes `RUN/sheets/LAYER/views.png`, and `views-2.png`, …: views of units beside patches; returns the files.

    `layers`, `units`, `most` and `shown` as in `write_sheets`. Layers without views by `method` (empty: by any) are
    left out. Raises `UserError` where none has any, for unknown layers and units, for a kind of file that cannot be
    made here and where nothing can be written.
    """
    _check(kind)
    chosen, known = choose_units(run, choose_layers(run, layers), units, most), what_is_shown(run, shown)
    methods = {layer: found for layer in chosen if (found := method_of(run, layer, method))}
    if not methods:
        fix = command("views", run=run.path, layers=",".join(layers), method=method)
        raise UserError(f"{run.path} has no such views yet. {fix}")
    written = []
    with progress.stage("grids of views", sum(len(chosen[layer]) for layer in methods), "units") as advance:
        for layer, its in methods.items():

            def each(layer: str = layer, its: str = its) -> Iterator[Of]:
                for unit in chosen[layer]:
                    rows = exemplars_with_views(run, layer, unit, its)
                    some = with_crops(run, [row for row in rows if row["view"]][: SIDE * SIDE], known, SIDE * SIDE)
                    yield run.units(layer, unit).iloc[0].to_dict(), some
                    advance(1, layer)

            pages = grid_pages(layer, len(chosen[layer]), each(), its, about(run, layer, known), known)
            for page, drawing in enumerate(pages, start=1):
                name = "views" if page == 1 else f"views-{page}"
                written.append(_write(drawing, run, layer, name, kind, paper))
    return written


def write_cell_maps(
    run: Run, layers: Sequence[str], *, kind: Format = Format.png, paper: Paper = Paper.a4,
    progress: Progress = Silent(),
) -> list[Path]:  # fmt: skip
    """Writes `RUN/sheets/LAYER/cells-SIDE.png` of each level of the activation atlases of layers; returns the files.

    `layers` are names or globs (empty: all); those without an atlas are left out. Raises `UserError` where none has
    one, for unknown layers, for a kind of file that cannot be made here and where nothing can be written.
    """
    _check(kind)
    known = run.record.get(NOTED, {})
    mapped = [layer for layer in choose_layers(run, layers) if layer in known]
    if not mapped:
        fix = command("activation-atlas", run=run.path, layer=",".join(layers) or LEFT_OPEN)
        raise UserError(f"{run.path} has no such activation atlas yet. {fix}")
    written = []
    with progress.stage("maps of activation atlases", len(mapped), "layers") as advance:
        for layer in mapped:
            for side, rows in run.activation_atlas(layer).cells.groupby("side"):
                cells = [(row, picture(row["picture"])) for row in rows.to_dict("records")]
                drawing = cell_map(layer, int(side), cells, known[layer]["least"], about(run, layer, None))
                written.append(_write(drawing, run, layer, f"cells-{side}", kind, paper))
            advance(1, layer)
    return written


def sheet(
    run: Run, layer: str, unit: int, *, shown: Shown = Shown.box, preset: str = "", method: str = "",
    maps: bool = True, look: Look = Look(),
) -> Image.Image:  # fmt: skip
    """The contact sheet of one unit as a picture, as `write_sheets` would write it.

    Raises `UserError` for a unit that the run does not have and a preset that drew nothing.
    """
    return pixels(_one(run, layer, unit, Format.png, shown, preset, method, maps, look))


def write_sheet(run: Run, layer: str, unit: int, path: Path, kind: Format = Format.png) -> Path:
    """Writes the contact sheet of one unit as `write_sheets` does, but to `path`. Raises `UserError` as it does."""
    _check(kind)
    _save(_one(run, layer, unit, kind), path, kind, f"{run.path.name}, {layer}, unit {unit}")
    return path


def _one(
    run: Run, layer: str, unit: int, kind: Format, shown: Shown = Shown.box, preset: str = "", method: str = "",
    maps: bool = True, look: Look = Look(),
) -> Drawing:  # fmt: skip
    row = Drawn(run, [layer], preset).row(layer, run.units(layer, unit).iloc[0].to_dict())
    known, its = what_is_shown(run, shown), method_of(run, layer, method)
    return _sheet(run, row, _wholes(run, look, kind), known, its, look, kind is not Format.png, maps)


def _wholes(run: Run, look: Look, kind: Format) -> Wholes:
    """Whole images in as many pixels as files of a kind show."""
    dense = 1.0 if kind is Format.png else DENSITY
    return Wholes(run, round(look.large_cell * dense), round(look.whole_height * dense))


def _check(kind: Format) -> None:
    if kind is not Format.png:
        check_vector(kind)


def _sheet(
    run: Run, row: dict[str, Any], wholes: Wholes, shown: Shown | None, method: str, look: Look, sharp: bool, maps: bool
) -> Drawing:
    layer, unit = row["layer"], int(row["unit"])
    exemplars = with_crops(run, exemplars_with_views(run, layer, unit, method), shown, look.crops, sharp)
    exemplars = with_maps(run, layer, unit, exemplars) if maps else exemplars
    firing = [exemplar["image_id"] for exemplar in exemplars[: look.large] if exemplar["activation"] > 0]
    whole = [wholes.of(image) for image in firing]
    return unit_sheet(row, exemplars, whole, about(run, layer, shown), shown, method, look)


def _write(drawing: Drawing, run: Run, layer: str, name: str, kind: Format, paper: Paper) -> Path:
    path = run.path / "sheets" / safe_name(layer) / f"{name}.{kind}"
    with written_aside(path) as aside:
        what = f"unit {name}" if name.isdigit() else name.replace("-", " ")
        _save(drawing, aside, kind, f"{run.path.name}, {layer}, {what}", paper)
    return path


def _save(drawing: Drawing, path: Path, kind: Format, title: str, paper: Paper = Paper.a4) -> None:
    if kind is Format.png:
        pixels(drawing).save(path, "PNG", compress_type=_RLE)
    else:
        write_vector(drawing, path, kind, title, paper)
