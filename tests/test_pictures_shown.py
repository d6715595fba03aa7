"""What is shown and measured out of pictures: as before, and without the originals as well as it goes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from actmine.pipeline.ascent.own_exemplars import originals_gone, read_exemplars
from actmine.pipeline.atlas.export import export
from actmine.pipeline.atlas.links import segments
from actmine.pipeline.atlas.server import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.storage.parquet import image_column, write_table
from actmine.pipeline.words import Shown
from tests.older import as_before
from tests.pictured import BOX, LAYERS, check, copied, mined, noisy_photographs, original_of, without_originals
from tests.test_sheets import Said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noisy_photographs(tmp_path_factory.mktemp("noisy") / "photographs")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return mined(folder, tmp_path_factory.mktemp("run") / "run")


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


def test_the_atlas_shows_crops_and_whole_images_out_of_pictures(run, folder, tmp_path):
    gone = without_originals(run, folder, tmp_path / "gone")
    crops = pd.read_parquet(run.path / "crops.parquet").set_index(["image_id", *BOX]).crop
    client = TestClient(application(gone.path), base_url="http://127.0.0.1")
    stored = cut = 0
    for layer in ("block2.relu", "classifier"):
        address = f"/picture/{segments(LAYERS.split(','))[layer]}"
        for row in run.exemplars(layer, 5).to_dict("records"):
            answer = client.get(f"{address}/5/crop/{row['rank']}")
            its = (row["image_id"], *(row[side] for side in BOX))
            if its in crops.index:
                stored += 1
                assert answer.content == crops[its]["bytes"]
            else:
                cut += 1
                assert Image.open(io.BytesIO(answer.content)).size == run.crop(row).size
    assert stored > 2 and cut > 2
    image_id = int(row["image_id"])
    assert Image.open(io.BytesIO(client.get(f"/whole/{image_id}").content)).size == run.picture(image_id).size
    page = client.get("/layer/classifier/5").text
    assert "crop of" in page and f"/whole/{image_id}" in page and "no longer where" not in page
    assert client.get(f"/image/{image_id}").text.count("crop of") > 3


def test_an_export_of_the_atlas_writes_them_as_files(run, folder, tmp_path):
    gone = without_originals(run, folder, tmp_path / "gone")
    export(gone, str(tmp_path / "site"), ["classifier"])
    wholes = list((tmp_path / "site" / "whole").iterdir())
    assert len(wholes) == len(set(gone.exemplars("classifier").image_id))
    assert {path.suffix for path in wholes} <= {".jpg", ".png", ".webp"}
    assert not (tmp_path / "site" / "picture").exists(), "its crops are parts of them, and nothing is drawn"


@pytest.mark.parametrize("name", ["pictures", "crops"])
def test_a_damaged_table_of_pictures_is_named_and_a_damaged_picture_said(name, run, tmp_path):
    spoiled = copied(run, tmp_path / "run")
    path = spoiled.path / f"{name}.parquet"
    rows, column = pq.read_table(path), "picture" if name == "pictures" else "crop"
    broken = image_column([b"broken"] * len(rows))
    write_table(path, rows.schema, [rows.set_column(rows.schema.get_field_index(column), column, broken)])
    with pytest.raises(UserError, match=r"picture of the run is damaged .*mine it again"):
        write_sheets(open_run(spoiled.path), ["block2.relu", "classifier"])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=f"{name}.parquet cannot be read.*mine it again"):
        write_sheets(open_run(spoiled.path), ["block2.relu", "classifier"])


def test_a_run_that_has_lost_its_pictures_reads_the_images_again(run, folder, tmp_path):
    lost = copied(run, tmp_path / "run")
    (lost.path / "pictures.parquet").unlink()
    row = lost.exemplars("classifier", 5).iloc[0]
    wanted = original_of(run, folder, row.image_id).crop(tuple(row[BOX]))
    assert np.array_equal(np.asarray(lost.crop(row)), np.asarray(wanted))
