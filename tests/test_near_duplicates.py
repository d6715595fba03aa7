"""Near-duplicates: planted copies are told from other pictures, and leave a unit's exemplars to the next best."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.preprocessing.signatures import ALIKE, comparable, firsts, signature
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import encoded, picture

CPU = torch.device("cpu")


def rescaled(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)


def recompressed(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, "JPEG", quality=40))).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    across, down = round(image.width * 0.01), round(image.height * 0.01)
    return image.crop((across, down, image.width - across, image.height - down))


COPIES = {"rescaled": rescaled, "recompressed": recompressed, "cropped": cropped}
"""What a copy goes through: another size, another quality, 2% less of its width and height."""


def likeness(one: Image.Image, other: Image.Image) -> float:
    vectors = comparable([signature(one), signature(other)])
    return float(vectors[0] @ vectors[1])


@pytest.mark.parametrize("copy", COPIES)
def test_a_planted_copy_is_told_from_other_pictures(copy):
    for seed in range(40):
        image = picture(200, 150, seed)
        assert likeness(image, COPIES[copy](image)) >= ALIKE
        assert likeness(image, COPIES[copy](picture(200, 150, seed + 1))) < ALIKE


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_photographs_are_found_and_no_two_photographs_are_copies(copy, photographs):
    files = sorted(photographs.rglob("*.*"))[::4]
    images = [Image.open(file).convert("RGB") for file in files]
    vectors = comparable([signature(image) for image in images])
    copies = comparable([signature(COPIES[copy](image)) for image in images])
    alike = vectors @ copies.T >= ALIKE
    assert np.diag(alike).mean() > 0.99 and not (alike & ~np.eye(len(images), dtype=bool)).any()


def test_pictures_of_one_colour_are_alike_and_unlike_all_else():
    black, white = Image.new("RGB", (30, 20)), Image.new("RGB", (50, 50), "white")
    assert likeness(black, white) == 1 and likeness(black, picture()) == 0


def test_the_first_of_each_group_stays_and_order_is_kept():
    one, other, third = (picture(100, 80, seed) for seed in (1, 2, 3))
    pictures = [one, rescaled(one), other, recompressed(other), cropped(one), third]
    vectors = comparable([signature(image) for image in pictures])
    assert firsts(vectors, 10).tolist() == [0, 2, 5] and firsts(vectors, 2).tolist() == [0, 2]
    assert firsts(vectors[:0], 3).tolist() == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures, a third of them with a copy of each kind."""
    root = tmp_path_factory.mktemp("copied")
    for seed in range(60):
        image = picture(120, 100, seed)
        image.save(root / f"{seed:02d}.png")
        for name, made in COPIES.items() if seed % 3 == 0 else ():
            made(image).save(root / f"{seed:02d}-{name}.png")
    return root


def mined(folder: Path, run: Path, **keep: object) -> pd.DataFrame:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    its = MineSettings(StatisticsOptions(**keep), max_skipped=0)  # type: ignore[arg-type]
    mine(find_dataset(str(folder)), network, traced, traced.choose("block5.relu"), run, CPU, its)
    return pd.read_parquet(run / "exemplars")


def test_exemplars_hold_one_of_each_group_and_the_next_best_move_up(folder, tmp_path):
    everything = mined(folder, tmp_path / "all", topk=120)
    unique = mined(folder, tmp_path / "unique", topk=20, unique=True)
    assert (unique.groupby("unit").size() == 20).mean() > 0.9
    for unit, rows in everything.groupby("unit"):
        originals: list[str] = []
        wanted = []
        for row in rows.sort_values("rank").head(60).itertuples():  # three times as many are held as are shown
            if row.key[:2] not in originals:
                originals.append(row.key[:2])
                wanted.append((row.key, row.activation))
        mine_ = unique[unique["unit"] == unit].sort_values("rank")
        assert list(zip(mine_["key"], mine_["activation"], strict=True)) == wanted[:20]
        assert mine_["rank"].tolist() == list(range(len(mine_)))


def test_copies_at_both_ends_go_and_the_plain_run_keeps_them(folder, tmp_path):
    both = mined(folder, tmp_path / "both", topk=10, direction="both", unique=True)
    assert not both.assign(of=both["key"].str[:2]).duplicated(["unit", "band", "of"]).any()
    plain = mined(folder, tmp_path / "plain", topk=10)
    assert plain.assign(of=plain["key"].str[:2]).duplicated(["unit", "of"]).any()


def test_a_run_does_not_mix_both(folder, tmp_path):
    mined(folder, tmp_path, topk=3)
    with pytest.raises(UserError, match="unique was false, now true"):
        mined(folder, tmp_path, topk=3, unique=True)
