"""What a run keeps of its images: one picture each, crops only where they show more, and every box still to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.crops import parse_pictures
from actmine.pipeline.exemplars.pictures import encode, scaled
from actmine.pipeline.run import Run
from actmine.pipeline.run import picture as cell_picture
from actmine.pipeline.sheets.write import write_sheets
from actmine.pipeline.storage.parquet import BYTES_OF_ONE_IMAGE
from tests.pictured import BOX, SIDE, check, copied, mined, noisy_photographs, original_of, without_originals


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noisy_photographs(tmp_path_factory.mktemp("noisy") / "photographs")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mined(folder, tmp_path_factory.mktemp("run") / "run")


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
    monkeypatch.setattr("actmine.pipeline.exemplars.crops._BYTES_A_PART", 40_000)
    monkeypatch.setattr("actmine.pipeline.exemplars.winner_pass._BYTES_A_BATCH", 9_000)
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
