"""Images that were replaced since they were mined, at equal size: no later reading takes them for what was mined."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from actmine.pipeline.atlas.pictures import Wholes
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.datasets import sources
from actmine.pipeline.datasets.folder_shards import FolderShard
from actmine.pipeline.datasets.shards import Place, Sample, ShardError, read_bytes, read_samples
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.maxima import Collected
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.run import open_run
from actmine.pipeline.stages import mining
from actmine.pipeline.stages.check_crops import check_crops
from actmine.pipeline.stages.exemplar_facets import facet_run
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.views import view_run
from tests.making import encoded, picture, write_folder, write_tar

CPU = torch.device("cpu")
SIDE = 300


def bitmap(seed: int) -> bytes:
    """A picture whose file has the same length for every seed."""
    return encoded(picture(SIDE, SIDE, seed), "BMP")


@pytest.fixture(scope="module", params=["folder", "tar"])
def mined(request, tmp_path_factory) -> Path:
    """A folder with a dataset, its copy `kept`, and a run of it that holds reduced pictures."""
    root = tmp_path_factory.mktemp(request.param)
    files = {f"{n}.bmp": bitmap(n) for n in range(4)}
    if request.param == "folder":
        write_folder(root / "in", files)
    else:
        write_tar(root / "in" / "0.tar", files.items())
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    mine(find_dataset(str(root / "in")), network, traced, traced.choose(LAYER), root / "run", CPU,
         MineSettings(StatisticsOptions(2), workers=1, pictures="64"))  # fmt: skip
    shutil.copytree(root / "in", root / "kept")
    return root


LAYER = "block5.relu"


@pytest.fixture
def replaced(mined):
    """Every image is another one, as long as before."""
    for path in (mined / "in").iterdir():
        data, size = path.read_bytes(), path.stat().st_size
        for seed in range(4):
            data = data.replace(bitmap(seed), bitmap(9 - seed))
        path.write_bytes(data)
        assert path.stat().st_size == size
    yield mined
    shutil.rmtree(mined / "in")
    shutil.copytree(mined / "kept", mined / "in")


def test_the_sum_of_every_image_is_kept(mined):
    images = pd.read_parquet(mined / "run" / "images.parquet")
    assert images.set_index("key").crc32.to_dict() == {f"{n}": zlib.crc32(bitmap(n)) for n in map(int, images.key)}
    (shard,) = find_dataset(str(mined / "in")).shards
    sample = next(each for each in read_samples(shard) if isinstance(each, Sample))
    assert read_bytes(shard, Place.of(images.sort_values("image_id").iloc[0])) == sample.data


@pytest.mark.parametrize("stage", ["views", "focus", "check", "facets"])
def test_no_stage_measures_other_images(replaced, tmp_path, stage):
    shutil.copytree(replaced / "run", tmp_path / "run")
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    layers, engine, run = traced.choose(LAYER), LocalEngine(CPU, 1), open_run(tmp_path / "run")
    begin = {
        "views": lambda: view_run(run.path, run.shards_to_read, network, traced, layers, engine, most=1),
        "focus": lambda: focus_run(run.path, run.shards_to_read, network, traced, layers, engine, most=1),
        "check": lambda: check_crops(run.path, network, traced, layers, engine, most=1),
        "facets": lambda: facet_run(run, network, traced, layers, engine),
    }[stage]
    if stage == "check":  # it takes the pictures that the run holds instead, and counts them
        about = begin()["crop_check"]
        assert about["checked"] == about["reduced"] > 0
        return
    with pytest.raises(UserError, match=r"is not the image that was scanned \(it has other bytes.*Restore it"):
        begin()


def test_pages_show_the_picture_that_was_mined(replaced):
    run = open_run(replaced / "run")
    image = int(run.images.image_id.iloc[0])
    with pytest.raises(ShardError, match="has other bytes"):
        run.original(image)
    shown = np.asarray(run.whole(image).resize((8, 8)), float)
    mined = np.asarray(picture(SIDE, SIDE, int(run.images.key[image])).resize((8, 8)), float)
    assert np.abs(shown - mined).mean() < 12
    assert Wholes(Queries(run)).readable(image)


def test_a_file_that_has_grown_is_another(tmp_path):
    write_folder(tmp_path, {"a.jpg": b"12345"})
    shard = FolderShard(0, str(tmp_path), files=("a.jpg",))
    assert read_bytes(shard, Place("a.jpg", 0, 5)) == b"12345"
    with pytest.raises(ShardError, match="longer than when it was scanned"):
        read_bytes(shard, Place("a.jpg", 0, 4))


def test_names_of_labels_whose_images_never_win_are_kept(tmp_path):
    members = []
    for n in range(12):
        members += [(f"{n:02d}.bmp", bitmap(n)), (f"{n:02d}.json", b'{"label": %d, "label_name": "kind %d"}' % (n, n))]
    for part in range(2):
        write_tar(tmp_path / "in" / f"{part}.tar", members[12 * part : 12 * part + 12])
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.relu")
    mine(find_dataset(str(tmp_path / "in")), network, traced, layers, tmp_path / "run", CPU,
         MineSettings(StatisticsOptions(1), workers=1))  # fmt: skip
    labels = pd.read_parquet(tmp_path / "run" / "labels")
    winners = pd.read_parquet(tmp_path / "run" / "images.parquet")
    assert len(winners) < 12
    assert labels.drop_duplicates("label").set_index("label").label_name.to_dict() == {
        n: f"kind {n}" for n in range(12)
    }


def test_activations_that_half_precision_cannot_hold_are_kept_whole():
    values = torch.tensor([[1.0, 70_000.0], [2.0, 80_000.0], [3.0, -90_000.0]])
    for rows, kind in ((values, np.float32), (values / 100, np.float16), (values * torch.inf, np.float16)):
        collected = Collected(torch.float16)
        for n in range(3):
            collected.update(Readings(rows[n : n + 1], torch.zeros(1, 2)), BatchIndex.of(torch.tensor([n])))
        found = collected.finish(2).values
        assert found.dtype == kind
        assert np.array_equal(np.argsort(found, 0, "stable"), np.argsort(rows.numpy(), 0, "stable"))


@pytest.mark.parametrize(("kind", "images"), [("folder", False), ("tar", False), ("tar", True)])
def test_an_interrupted_scan_reads_again_what_was_replaced_meanwhile(kind, images, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FILES_PER_SHARD", 2)
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)

    def write(first: int) -> None:
        """Four images in two blocks; labels of the first block depend on `first`, and its images if they are to."""
        files = {f"{n}.bmp": bitmap(n + first * (n < 2) * images) for n in range(4)}
        files |= {f"{n}.cls": f"{n + first * (n < 2)}".encode() for n in range(4)}
        if kind == "folder":
            write_folder(tmp_path / "in", files)
        else:
            for block in ("01", "23"):
                write_tar(
                    tmp_path / "in" / f"{block}.tar",
                    [(name, files[name]) for name in sorted(files) if name[0] in block],
                )

    def scan(run: str) -> dict[str, bytes]:
        mine(find_dataset(str(tmp_path / "in")), network, traced, traced.choose(LAYER), tmp_path / run, CPU,
             MineSettings(StatisticsOptions(2), workers=1, pictures="64"))  # fmt: skip
        tables = (tmp_path / run).rglob("*.parquet")
        return {str(path.relative_to(tmp_path / run)): path.read_bytes() for path in tables}

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    write(0)
    with monkeypatch.context() as patched:
        patched.setattr(mining, "merge", interrupt)
        with pytest.raises(KeyboardInterrupt):
            scan("run")
    assert len(list((tmp_path / "run" / "state").glob("block-*"))) == 2
    write(5)
    assert scan("run") == scan("other")
