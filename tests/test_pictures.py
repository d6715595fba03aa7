"""What a run keeps of its images: one picture each, crops only where they show more, and every box still to be seen."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.ascent.own_exemplars import originals_gone, read_exemplars
from pipeline.datasets.sources import find_dataset
from pipeline.engines.local import LocalEngine
from pipeline.errors import UserError
from pipeline.exemplars.crops import encode, parse_pictures
from pipeline.exemplars.pictures import scaled
from pipeline.network.layers import Traced
from pipeline.network.models import load_network
from pipeline.readings.keep import Keep
from pipeline.run import Run, open_run
from pipeline.run import picture as cell_picture
from pipeline.sheets.region import Shown
from pipeline.sheets.write import write_overviews, write_sheets
from pipeline.stages.check_crops import check_crops
from pipeline.stages.mine import MineSettings, mine
from pipeline.storage.parquet import BYTES_OF_ONE_IMAGE
from tests.making import encoded, picture
from tests.older import as_before
from tests.test_sheets import Said

CPU = torch.device("cpu")
BOX = ["left", "top", "right", "bottom"]
LAYERS = "stem.relu,block2.relu,block5.relu,classifier"
SIDE = 64
"""Of pictures (pixels). The first two layers see less than half of an image, the last two all of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy photographs of odd sizes in files too large to be kept, two of which are small and two short files."""
    root = tmp_path_factory.mktemp("photographs")
    random = np.random.default_rng(5)
    for number in range(30):
        width, height = (int(side) for side in random.integers(200, 330, 2))
        if number in (4, 9):
            width, height = 80, 60  # the shorter side is no longer than a picture's
        image = np.asarray(picture(width, height, number), np.int16)
        noisy = Image.fromarray((image + random.integers(-40, 40, image.shape)).clip(0, 255).astype(np.uint8))
        short = number in (11, 12)
        data = encoded(picture(width, height, number), quality=40) if short else encoded(noisy, "PNG")
        (root / f"{number:02d}.{'jpg' if short else 'png'}").write_bytes(data)
    return root


def mined(folder: Path, run: Path, pictures: str = str(SIDE), workers: int = 2, layers: str = LAYERS) -> Run:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    settings = MineSettings(Keep(6), workers=workers, pictures=pictures)
    mine(find_dataset(str(folder)), network, traced, traced.choose(layers), run, CPU, settings)
    return open_run(run)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mined(folder, tmp_path_factory.mktemp("run") / "run")


def check(run: Run, said: Said | None = None) -> pd.DataFrame:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    check_crops(run.path, network, traced, traced.choose(LAYERS), LocalEngine(CPU, 1), said or Said(), 3)
    return pd.read_parquet(run.path / "exemplars")


def copied(run: Run, to: Path) -> Run:
    return open_run(shutil.copytree(run.path, to))


def without_originals(run: Run, folder: Path, to: Path) -> Run:
    """A copy of a run that looks for its images where there are none."""
    path = copied(run, to).path / "shards.parquet"
    table = pq.read_table(path)
    urls = [str(folder.parent / "gone")] * len(table)
    pq.write_table(table.set_column(table.schema.get_field_index("url"), "url", [urls]), path)
    return open_run(to)


def original_of(run: Run, folder: Path, image_id: int) -> Image.Image:
    return Image.open(folder / run.images.loc[image_id, "path"]).convert("RGB")


def test_every_winning_image_has_one_picture_no_larger_than_asked_or_its_own_file(run, folder):
    pictures = pd.read_parquet(run.path / "pictures.parquet")
    assert pictures.image_id.tolist() == sorted(set(pd.read_parquet(run.path / "exemplars").image_id))
    exemplars = pd.read_parquet(run.path / "exemplars")
    own = reduced = 0
    for row in pictures.itertuples():
        file = folder / run.images.loc[row.image_id, "path"]
        original, kept = Image.open(file), cell_picture(row.picture)
        assert kept.size == (row.width, row.height)
        if row.picture["bytes"] == file.read_bytes():
            own += 1
            boxes = exemplars[exemplars.image_id == row.image_id][BOX].drop_duplicates()
            small = boxes[(boxes.right - boxes.left <= 0.55 * original.width) & (boxes.right > boxes.left)]
            crops = sum(len(encode(original.convert("RGB").crop(tuple(box)))) for box in small.itertuples(index=False))
            assert min(original.size) <= SIDE or crops + 3 * SIDE * SIDE > 0.5 * file.stat().st_size
            continue
        reduced += 1
        assert min(kept.size) == SIDE and abs(kept.width / kept.height - original.width / original.height) < 0.03
        wanted = original.convert("RGB").resize(kept.size, Image.Resampling.BOX)
        assert np.abs(np.asarray(kept, int) - np.asarray(wanted, int)).mean() < 6
    assert own >= 3 and reduced > 15


def test_small_boxes_have_the_original_pixels_and_equal_ones_share_them(run, folder):
    crops = pd.read_parquet(run.path / "crops.parquet")
    keys = [tuple(row) for row in crops[["image_id", *BOX]].itertuples(index=False)]
    assert keys == sorted(set(keys)) and len(keys) > 50
    for row in crops.iloc[::3].itertuples():
        wanted = original_of(run, folder, row.image_id).crop((row.left, row.top, row.right, row.bottom))
        crop = np.asarray(cell_picture(row.crop), int)
        difference = np.abs(crop - np.asarray(wanted, int))
        assert difference.max() == 0 if max(wanted.size) <= 64 else difference.mean() < 8
    exemplars = pd.read_parquet(run.path / "exemplars")
    small = exemplars[exemplars.layer.isin(["stem.relu", "block2.relu"])]
    shared = small.merge(crops, on=["image_id", *BOX], suffixes=("_before", ""))
    assert len(shared) > len(crops) and set(exemplars[~exemplars.index.isin(small.index)].layer) == {
        "block5.relu", "classifier",
    }  # fmt: skip
    lacking = set(small.image_id) - set(crops.image_id)
    pictures = pd.read_parquet(run.path / "pictures.parquet").set_index("image_id")
    assert all(pictures.width[image] == run.images.width[image] for image in lacking)
    large = exemplars[exemplars.layer == "classifier"].merge(crops, on=["image_id", *BOX])
    assert large.empty and exemplars.crop.isna().all()


def test_what_an_exemplar_shows_is_its_box_of_the_original_as_sharp_as_it_is_kept(run, folder):
    exact = coarse = 0
    crops = pd.read_parquet(run.path / "crops.parquet").set_index(["image_id", *BOX]).index
    for _, row in pd.read_parquet(run.path / "exemplars").iloc[::7].iterrows():
        box = tuple(row[BOX])
        wanted = original_of(run, folder, row.image_id).crop(box)
        shown, sharp = run.crop(row), run.crop(row, sharp=True)
        assert sharp.size == wanted.size
        if (row.image_id, *box) not in crops:
            assert np.array_equal(np.asarray(sharp), np.asarray(wanted))
        if shown.size == wanted.size:
            exact += 1
        else:
            coarse += 1
            assert row.layer in ("block5.relu", "classifier") and min(shown.size) <= SIDE
            smooth = np.asarray(wanted.resize(shown.size, Image.Resampling.BOX), int)
            assert np.abs(np.asarray(shown, int) - smooth).mean() < 10
    assert exact > 50 and coarse > 20


@pytest.mark.parametrize("size", [(100, 60), (37, 91)])
def test_a_box_in_a_reduced_picture_lies_where_it_lay_and_is_never_empty(size):
    for box in ((0, 0, *size), (3, 5, 4, 6), (size[0] - 1, size[1] - 1, *size), (10, 20, 30, 50)):
        left, top, right, bottom = scaled(box, size, (25, 15))
        assert 0 <= left < right <= 25 and 0 <= top < bottom <= 15
        assert abs(left - box[0] * 25 / size[0]) <= 1 and abs(bottom - box[3] * 15 / size[1]) <= 1
    assert scaled((0, 0, *size), size, (25, 15)) == (0, 0, 25, 15)


def test_original_keeps_the_files_and_needs_no_crops(folder, tmp_path):
    run = mined(folder, tmp_path / "run", "original")
    for row in pd.read_parquet(run.path / "pictures.parquet").itertuples():
        assert row.picture["bytes"] == (folder / run.images.loc[row.image_id, "path"]).read_bytes()
    assert pd.read_parquet(run.path / "crops.parquet").empty and run.record["pictures"] == "original"


def test_none_keeps_nothing_and_crops_come_from_the_images_while_they_are_there(folder, run, tmp_path):
    bare = mined(folder, tmp_path / "run", "none")
    assert not (bare.path / "pictures.parquet").exists() and not (bare.path / "crops.parquet").exists()
    row = bare.exemplars("classifier", 3).iloc[0]
    wanted = original_of(bare, folder, row.image_id).crop(tuple(row[BOX]))
    assert bare.picture(row.image_id) is None and np.array_equal(np.asarray(bare.crop(row)), np.asarray(wanted))
    gone = without_originals(bare, folder, tmp_path / "gone")
    assert gone.crop(row) is None
    assert write_sheets(gone, ["classifier"], [3]) and check(gone).crop_activation.isna().all()
    assert check(bare).crop_activation.notna().any()


@pytest.mark.parametrize("word", ["", "0", "-3", "big", "256px", "99999", "٣"])
def test_a_word_that_is_no_size_is_refused(word):
    with pytest.raises(UserError, match="--pictures"):
        parse_pictures(word)
    assert parse_pictures("0128") == "128" and parse_pictures("none") == "none"


def test_other_pictures_are_other_settings(folder, run, tmp_path):
    again = copied(run, tmp_path / "run")
    with pytest.raises(UserError, match='pictures was "64", now "65"'):
        mined(folder, again.path, "65")


def test_any_number_of_workers_and_parts_gives_the_same_bytes(folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.exemplars.crops._BYTES_A_PART", 40_000)
    monkeypatch.setattr("pipeline.exemplars.crops._BYTES_A_BATCH", 9_000)
    other = mined(folder, tmp_path / "other", workers=4)
    for name in ("pictures", "crops"):
        assert (other.path / f"{name}.parquet").read_bytes() == (run.path / f"{name}.parquet").read_bytes()


def test_one_image_is_found_in_a_row_group_of_few_bytes(folder, tmp_path):
    path = mined(folder, tmp_path / "run", "original").path / "pictures.parquet"
    metadata = pq.ParquetFile(path).metadata
    last = -1
    assert metadata.num_row_groups > 3
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
        span = columns["image_id"].statistics
        assert last < span.min <= span.max and columns["picture.bytes"].statistics is None
        assert group.num_rows == 1 or columns["picture.bytes"].total_uncompressed_size < BYTES_OF_ONE_IMAGE + 1000
        last = span.max


def test_a_run_of_the_version_before_shows_the_same(run, tmp_path):
    before = open_run(as_before(run.path, tmp_path / "run"))
    for layer in LAYERS.split(","):
        for (_, row), (_, old) in zip(*(its.exemplars(layer, 5).iterrows() for its in (run, before)), strict=True):
            shown, wanted = run.crop(row, sharp=True), before.crop(old)
            assert shown.size == wanted.size
            assert np.abs(np.asarray(shown, int) - np.asarray(wanted, int)).mean() < 8
    assert before.picture(row.image_id) is None and before.whole(row.image_id).size == run.whole(row.image_id).size
    assert write_overviews(before, []) and write_sheets(before, [], [1], shown=Shown.focus)


def test_sheets_show_small_fields_as_before_to_the_pixel_and_large_ones_alike(run, tmp_path):
    before = open_run(as_before(run.path, tmp_path / "run"))
    for layer, most in (("stem.relu", 0.0), ("block2.relu", 1.0), ("classifier", 4.0)):
        units = run.units(layer)
        unit = int(units[units.activation_max > 0].unit.iloc[3])
        (new,), (old,) = (write_sheets(its, [layer], [unit]) for its in (run, before))
        difference = np.abs(np.asarray(Image.open(new), int) - np.asarray(Image.open(old), int))
        assert difference.shape[0] > 400 and difference.mean() <= most, layer


def test_crop_checks_are_of_original_pixels_and_of_pictures_where_these_have_gone(run, folder, tmp_path):
    new, gone = copied(run, tmp_path / "new"), without_originals(run, folder, tmp_path / "gone")
    before = open_run(as_before(run.path, tmp_path / "before"))
    said = Said(), Said()
    found, lacking, wanted = check(new, said[0]), check(gone, said[1]), check(before)
    some = found.crop_activation.notna() & (found.activation > 0)
    assert some.sum() > 100 and (found.crop_activation.notna() == wanted.crop_activation.notna()).all()
    np.testing.assert_allclose(found.crop_activation[some], found.activation[some], rtol=0.15, atol=0.05)
    large = some & (found.layer == "classifier")
    np.testing.assert_allclose(found.crop_activation[large], found.activation[large], rtol=1e-3)  # nothing was encoded
    assert not any("gone" in sentence for sentence in said[0].sentences)
    assert any("out of reduced pictures" in sentence for sentence in said[1].sentences)
    assert open_run(gone.path).record["crop_check"]["reduced"] > 50
    assert lacking.crop_activation[large].notna().all() and lacking.crop_activation[large].corr(
        found.crop_activation[large]
    ) > 0.5  # fmt: skip


def test_references_are_the_bytes_that_they_were(run, folder, tmp_path):
    before = open_run(as_before(run.path, tmp_path / "run"))
    for layer in ("stem.relu", "classifier"):
        found, wanted = (read_exemplars(its, layer, [3, 8], 5) for its in (run, before))
        assert found == wanted and all(found.values())
    gone = without_originals(run, folder, tmp_path / "gone")
    assert originals_gone(gone) and not originals_gone(run)
    for unit, rows in read_exemplars(gone, "classifier", [3, 8], 5).items():
        sizes = [Image.open(io.BytesIO(its.crop)).size for its in found[unit]]
        assert [Image.open(io.BytesIO(its.crop)).size for its in rows] == sizes


def test_whole_images_are_the_originals_while_they_are_there_and_pictures_afterwards(run, folder, tmp_path):
    gone = without_originals(run, folder, tmp_path / "gone")
    for image_id in run.images.image_id:
        size = original_of(run, folder, image_id).size
        assert run.whole(image_id).size == size and gone.whole(image_id).size == run.picture(image_id).size
    with pytest.raises(UserError, match="can no longer be read"):
        gone.original(int(run.images.image_id.iloc[0]))
