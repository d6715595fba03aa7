"""Contact sheets: the promised files, true pixels in them, the outline in its place, and nothing that breaks them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.choose import choose_units, parse_units
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Silent
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.sheets import drawing
from actmine.pipeline.sheets.overview import page_sizes
from actmine.pipeline.sheets.unit_sheet import Look
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.storage.parquet import write_table
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.images import IMAGES
from actmine.schemas.layers import LAYERS
from actmine.schemas.shards import SHARDS
from actmine.schemas.units import UNITS

CROP, PLAIN, SEEN = (20, 90, 200), (60, 160, 90), (250, 210, 40)
OUTLINE = (232, 71, 29)


class Said:
    """A progress that keeps what it was told."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Any:
        return Silent().stage(name, total, unit, done)


def cell(image: Image.Image | None) -> dict[str, Any] | None:
    if image is None:
        return None
    data = io.BytesIO()
    image.save(data, "PNG")
    return {"bytes": data.getvalue(), "path": None}


def plain(width: int = 30, height: int = 30, colour: tuple[int, int, int] = CROP) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def exemplar(rank: int = 0, activation: float = 10.0, crop: Image.Image | None = None, **more: Any) -> dict[str, Any]:
    row = {
        "layer": "a", "unit": 0, "rank": rank, "band": "top", "activation": activation, "image_id": 0, "key": "key",
        "label": 3, "label_name": "tabby_cat", "y": 1, "x": 2, "left": 100, "top": 50, "right": 180, "bottom": 110,
        "clipped": False, "crop": cell(crop or plain()),
    }  # fmt: skip
    return row | more


def unit_row(unit: int = 0, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(UNITS.names)
    row |= {
        "layer": "a", "unit": unit, "images_seen": 9, "nan_count": 0, "activation_max": 10.0, "activation_mean": 4.0,
        "activation_std": 2.0, "firing_rate": 0.5, "top_label": 3, "top_label_name": "tabby_cat", "label_purity": 1.0,
        "label_purity_chance": 0.25, "label_purity_q": 0.001,
    }  # fmt: skip
    return row | more


def make_run(
    root: Path,
    layers: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]],
    original: Image.Image | None = None,
) -> Run:
    """A run in the folder `root`: for every layer its rows of units and of exemplars."""
    photos = root / "photos"
    photos.mkdir(parents=True)
    if original:
        original.save(photos / "key.png")
    size = original.size if original else (400, 300)
    nbytes = (photos / "key.png").stat().st_size if original else 10
    image = dict(zip(IMAGES.names, [0, "key", 0, "key.png", 0, nbytes, None, *size, 3, "tabby_cat"], strict=True))
    shard = {"shard": 0, "url": str(photos), "members": 1, "seen": 1, "skipped": 0}
    rows: list[dict[str, Any]] = []
    for name, (units, exemplars) in layers.items():
        rows.append(dict.fromkeys(LAYERS.names) | {"layer": name, "kind": "conv2d", "layout": "maps",
                    "units": len(units), "rf_height": 9, "rf_width": 9, "rf_global": False})  # fmt: skip
        for table, schema, records in (("units", UNITS, units), ("exemplars", EXEMPLARS, exemplars)):
            named = [record | {"layer": name} for record in records]
            write_table(
                root / table / f"{name}.parquet", schema, [pa.Table.from_pylist(named, schema)] if named else []
            )
    for table, schema, records in (("layers", LAYERS, rows), ("images", IMAGES, [image]), ("shards", SHARDS, [shard])):
        write_table(root / f"{table}.parquet", schema, [pa.Table.from_pylist(records, schema)])
    (root / "run.json").write_text(json.dumps({"model": "net", "dataset": "photos", "counts": {"seen": 9}}))
    return open_run(root)


def one_sheet(
    root: Path, exemplars: Sequence[dict[str, Any]], original: Image.Image | None = None, **unit: Any
) -> Image.Image:
    run = make_run(root, {"a": ([unit_row(**unit)], list(exemplars))}, original)
    return Image.open(write_sheets(run, [])[0])


def where(image: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """The box around every pixel of exactly this colour; fails if there is none."""
    rows, columns = np.nonzero((np.asarray(image) == colour).all(-1))
    assert len(rows), f"{colour} is nowhere"
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def shows(image: Image.Image, colour: tuple[int, int, int]) -> bool:
    return bool((np.asarray(image) == colour).all(-1).any())


def test_files_appear_where_they_are_promised(tmp_path):
    units = [unit_row(unit) for unit in range(3)]
    rows = [exemplar(rank, 10 - rank, unit=unit) for unit in range(3) for rank in range(2)]
    run = make_run(tmp_path / "run", {"a.conv": (units, rows), "b.conv": (units, rows)}, plain(400, 300))
    written = write_sheets(run, ["a.*"], [0, 2])
    assert written == [run.path / "sheets" / "a.conv" / f"{unit}.png" for unit in (0, 2)]
    overviews = write_overviews(run, [])
    assert overviews == [run.path / "sheets" / layer / "overview.png" for layer in ("a.conv", "b.conv")]
    for path in written + overviews:
        with Image.open(path) as sheet:
            assert sheet.width == 1400
            assert 200 < sheet.height < 2600
            assert sheet.mode == "RGB"
    assert not list(run.path.rglob("*.part"))


def test_a_sheet_of_a_thousand_exemplars_stays_readable_and_says_what_it_leaves_out(tmp_path):
    sheet = one_sheet(tmp_path / "run", [exemplar(rank, 2000 - rank) for rank in range(1000)])
    assert sheet.height < 2600


def test_a_crops_pixels_are_shown_unstretched_and_in_proportion(tmp_path):
    sheet = one_sheet(tmp_path / "run", [exemplar(crop=plain(200, 100, (37, 38, 39)))])
    left, top, right, bottom = where(sheet, (37, 38, 39))
    assert right - left == Look().large_cell
    assert abs((right - left) / (bottom - top) - 2) < 0.02


def test_pixels_of_a_tiny_crop_become_equal_squares_of_their_own_colours(tmp_path):
    colours = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) * 9 + 1
    sheet = one_sheet(tmp_path / "run", [exemplar(crop=Image.fromarray(colours))])
    boxes = [where(sheet, tuple(colour)) for colour in colours.reshape(-1, 3).tolist()]
    assert {(box[2] - box[0], box[3] - box[1]) for box in boxes} == {(Look().large_cell // 3, Look().large_cell // 3)}


def test_the_outline_is_where_the_box_is_in_its_image(tmp_path):
    original = plain(400, 300, PLAIN)
    original.paste(SEEN, (100, 50, 180, 110))
    sheet = one_sheet(tmp_path / "run", [exemplar(crop=plain())], original)
    seen, outline, whole = where(sheet, SEEN), where(sheet, OUTLINE), where(sheet, PLAIN)
    scale = Look().whole_height / 300
    assert abs((whole[2] - whole[0]) - 400 * scale) <= 1
    assert whole[3] - whole[1] == Look().whole_height
    expected = [whole[0] + 100 * scale, whole[1] + 50 * scale, whole[0] + 180 * scale, whole[1] + 110 * scale]
    assert np.abs(np.subtract(outline, np.add(expected, [-2, -2, 2, 2]))).max() <= 1
    assert (np.sign(np.subtract(outline, seen)) == [-1, -1, 1, 1]).all()


def test_a_box_of_one_pixel_is_still_seen(tmp_path):
    row = exemplar(left=399, top=299, right=400, bottom=300)
    left, top, right, bottom = where(one_sheet(tmp_path / "run", [row], plain(400, 300, PLAIN)), OUTLINE)
    assert right - left >= 9
    assert bottom - top >= 9


def test_a_visualization_is_shown_on_the_sheet_and_in_the_overview(tmp_path):
    drawn = (11, 22, 33)
    units = [unit_row(0, visualization=cell(plain(5, 5, drawn)), visualization_activation=12.0), unit_row(1)]
    run = make_run(tmp_path / "run", {"a": (units, [exemplar(), exemplar(unit=1)])})
    first, second = (Image.open(path) for path in write_sheets(run, []))
    assert shows(first, drawn)
    assert not shows(second, drawn)
    assert shows(second, CROP)
    overview = Image.open(write_overviews(run, [])[0])
    assert shows(overview, drawn)
    assert shows(overview, CROP)  # of the unit that is not drawn


def test_an_overview_without_visualizations_shows_each_units_best_crop(tmp_path):
    units = [unit_row(0), unit_row(1, activation_max=0.0), unit_row(2)]
    best = {0: (1, 2, 3), 1: (4, 5, 6), 2: (7, 8, 9)}
    rows = [
        exemplar(rank, 0.0 if unit == 1 else 9.0 - rank, plain(6, 6, best[unit] if rank == 0 else CROP), unit=unit)
        for unit in best for rank in range(2)
    ]  # fmt: skip
    overview = Image.open(write_overviews(make_run(tmp_path / "run", {"a": (units, rows)}), [])[0])
    assert shows(overview, best[0])
    assert shows(overview, best[2])
    assert not shows(overview, best[1])
    assert not shows(overview, CROP)


def test_a_large_layer_gets_full_pages_that_hold_every_unit_once(tmp_path):
    for units in (1, 64, 65, 144, 145, 256, 512, 2048):
        sizes = page_sizes(units)
        assert sum(sizes) == units
        assert max(sizes) <= 144
        assert min(sizes) > 0
    rows = [exemplar(unit=unit, crop=plain(4, 4, (unit, 100, 101))) for unit in range(150)]
    run = make_run(tmp_path / "run", {"a": ([unit_row(unit) for unit in range(150)], rows)})
    pages = write_overviews(run, [])
    assert [page.name for page in pages] == ["overview.png", "overview-2.png"]
    first, second = map(Image.open, pages)
    last = page_sizes(150)[0]
    assert shows(first, (last - 1, 100, 101))
    assert not shows(first, (last, 100, 101))
    assert shows(second, (last, 100, 101))
    assert shows(second, (149, 100, 101))


def test_a_unit_that_never_fires_shows_no_crops(tmp_path):
    rows = [exemplar(rank, -float(rank)) for rank in range(4)]
    sheet = one_sheet(tmp_path / "run", rows, activation_max=0.0, firing_rate=0.0, label_purity=None)
    assert not shows(sheet, CROP)
    assert sheet.height < 500


def test_exemplars_that_do_not_fire_are_left_out(tmp_path):
    rows = [exemplar(0, 5.0), exemplar(1, 0.0, plain(30, 30, (9, 9, 99))), exemplar(2, -1.0)]
    sheet = one_sheet(tmp_path / "run", rows)
    assert shows(sheet, CROP)
    assert not shows(sheet, (9, 9, 99))


def test_a_moved_dataset_leaves_out_the_whole_images_and_is_told_once(tmp_path):
    units, rows = [unit_row(unit) for unit in range(4)], [exemplar(unit=unit) for unit in range(4)]
    said = Said()
    run = make_run(tmp_path / "run", {"a": (units, rows)})
    sheets = [Image.open(path) for path in write_sheets(run, [], progress=said)]
    assert len(said.sentences) == 1
    assert "gone" in said.sentences[0]
    assert all(shows(sheet, CROP) and not shows(sheet, OUTLINE) for sheet in sheets)


def test_an_image_that_was_replaced_is_not_passed_off_as_the_one_that_was_mined(tmp_path):
    run = make_run(tmp_path / "run", {"a": ([unit_row()], [exemplar()])}, plain(400, 300, PLAIN))
    data = io.BytesIO()
    plain(50, 40, SEEN).save(data, "PNG")
    size = int(run.images.iloc[0]["nbytes"])
    (run.path / "photos" / "key.png").write_bytes(data.getvalue().ljust(size, b"\0")[: max(size, len(data.getvalue()))])
    assert not shows(Image.open(write_sheets(run, [])[0]), SEEN)


@pytest.mark.parametrize("size", [(4000, 1), (1, 4000), (1, 1), (3, 900), (64, 64), (241, 241)])
def test_crops_of_any_shape_fit(tmp_path, size):
    rows = [exemplar(rank, 9.0 - rank, plain(*size)) for rank in range(7)]
    assert shows(one_sheet(tmp_path / "run", rows), CROP)


@pytest.mark.parametrize(
    "label",
    ["long " * 200, "x" * 1000, "<script>alert('x')</script>&amp;", "قط منزلي", "猫", "naïve café, Ångström",
     "a\n\tb\x00c", "\u202eevil\u202c", "👩‍🔬 scientist", "", None],
)  # fmt: skip
def test_labels_of_any_kind_are_drawn_inside_the_margins(tmp_path, label):
    rows = [exemplar(rank, 9.0 - rank, label_name=label, key=str(label)) for rank in range(12)]
    sheet = np.asarray(one_sheet(tmp_path / "run", rows, top_label_name=label))
    paper = sheet[0, 0]
    assert (sheet[:, :40] == paper).all()
    assert (sheet[:, -40:] == paper).all()


def test_numbers_that_are_not_finite_are_drawn(tmp_path):
    rows = [exemplar(0, float("inf")), exemplar(1, 3.0, label=None, label_name=None), exemplar(2, 1e-30)]
    assert one_sheet(tmp_path / "a", rows, activation_max=float("inf"), activation_mean=float("inf"))
    assert one_sheet(tmp_path / "b", [], activation_max=None, activation_mean=None, firing_rate=None)


@pytest.mark.parametrize(
    ("value", "text"),
    [(1070.2, "1,070"), (326.09, "326"), (58.0, "58.0"), (0.03124, "0.0312"), (0.0, "0"), (-3.14159, "-3.14"),
     (4.2e-9, "4.20e-9"), (None, "-"), (float("nan"), "-")],
)  # fmt: skip
def test_numbers_have_three_digits(value, text):
    assert drawing.number(value) == text


def test_shares_round_to_nothing_or_all_only_where_they_are():
    assert [drawing.percent(share) for share in (0, 0.0001, 0.818, 0.02, 0.9999, 1, None)] == [
        "0%", "<0.1%", "81.8%", "2%", ">99.9%", "100%", "-",
    ]  # fmt: skip


def test_unit_lists_are_numbers_and_spans():
    assert parse_units("3,7,10-12") == [3, 7, 10, 11, 12]
    assert parse_units(" 5 - 6 , 5") == [5, 6]


@pytest.mark.parametrize("text", ["", "a", "3,", "-1", "7-3", "1-", "1.5", "0-99999999", "٣x"])
def test_other_unit_lists_are_refused(text):
    with pytest.raises(UserError, match=r"such as 3,7,10-20|smaller number first"):
        parse_units(text)


def test_the_most_selective_units_fire_and_share_labels(tmp_path):
    units = [
        unit_row(0, label_purity=0.5), unit_row(1, label_purity=0.9, activation_max=0.0),
        unit_row(2, label_purity=0.5, activation_max=20.0), unit_row(3, label_purity=0.7),
        unit_row(4, label_purity=None), unit_row(5, label_purity=1.0, label_purity_q=0.2),
    ]  # fmt: skip
    run = make_run(tmp_path / "run", {"a": (units, [])})
    assert choose_units(run, ["a"], None, 2) == {"a": [2, 3]}
    assert choose_units(run, ["a"], [0, 1, 4], 2) == {"a": [0, 4]}


def test_unknown_layers_and_units_are_refused_with_what_there_is(tmp_path):
    layers = {"features.1": ([unit_row(0)], []), "features.12": ([unit_row(unit) for unit in range(3)], [])}
    run = make_run(tmp_path / "run", layers)
    with pytest.raises(UserError, match=r"features\.2'.*Did you mean.*features\.12"):
        write_sheets(run, ["features.2"])
    with pytest.raises(UserError, match=r"features\.1 to features\.12"):
        write_overviews(run, ["zzz*"])
    with pytest.raises(UserError, match=r"no unit 3\. features.12 has the units 0 to 2"):
        write_sheets(run, ["features.12"], [1, 3])
    assert [path.parent.name for path in write_sheets(run, [], [2])] == ["features.12"]


def test_an_unwritable_run_is_one_clear_sentence(tmp_path):
    run = make_run(tmp_path / "run", {"a": ([unit_row()], [exemplar()])})
    (run.path / "sheets").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_sheets(run, [])


def test_the_command_writes_sheets_and_overviews_and_explains_itself(tmp_path):
    run = make_run(
        tmp_path / "run", {"a": ([unit_row(unit) for unit in range(3)], [exemplar(unit=1)])}, plain(400, 300)
    )
    call = CliRunner().invoke
    app = application(["sheets"])
    done = call(app, ["sheets", "--run", str(run.path), "--units", "1"])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in run.path.rglob("*.png") if "sheets" in path.parts) == ["1.png", "overview.png"]
    assert call(app, ["sheets", "--run", str(run.path), "--units", "x"]).exit_code == 1
    assert call(app, ["sheets", "--run", str(tmp_path / "none")]).exit_code == 1
    assert "10-20" in call(app, ["sheets", "--help"]).output
