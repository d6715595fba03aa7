"""EXIF orientations: images are mined as they are stored, or turned if asked, and shown as they were mined."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.preprocessing.images import decode, image_size, jpeg_size, orientation
from actmine.pipeline.run import open_run
from tests.making import picture, write_folder

STORED = {
    1: lambda upright: upright, 2: np.fliplr, 3: lambda upright: np.rot90(upright, 2), 4: np.flipud,
    5: lambda upright: upright.transpose(1, 0, 2), 6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).transpose(1, 0, 2), 8: lambda upright: np.rot90(upright, -1),
}  # fmt: skip
"""How pixels lie in a file of each orientation, by the EXIF standard."""


def tagged(pixels: np.ndarray, tag: int | None, kind: str = "PNG", **more: object) -> bytes:
    exif = Image.Exif()
    if tag is not None:
        exif[0x0112] = tag
        more["exif"] = exif
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, kind, **more)
    return data.getvalue()


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_is_turned_upright_as_its_orientation_says(tag, kind):
    upright = np.asarray(picture(40, 24, 3))
    data = tagged(STORED[tag](upright), tag, kind, **({"lossless": True} if kind == "WEBP" else {"quality": 100}))
    assert orientation(data) == tag
    stored, turned = np.asarray(decode(data), int), np.asarray(decode(data, upright=True), int)
    assert np.abs(turned - upright).max() <= (60 if kind == "JPEG" else 0) and turned.shape == (24, 40, 3)
    assert np.abs(stored - STORED[tag](upright)).max() <= (60 if kind == "JPEG" else 0)
    assert np.array_equal(turned, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")))
    assert image_size(data) == stored.shape[1::-1] and image_size(data, upright=True) == (40, 24)
    if kind == "JPEG":
        assert jpeg_size(data) == stored.shape[1::-1] and jpeg_size(data, True) == ((40, 24) if tag == 1 else None)


def test_the_orientation_of_a_jpeg_is_found_behind_other_headers_and_is_none_where_it_is_odd():
    pixels = np.asarray(picture(8, 8))
    assert orientation(tagged(pixels, 6, "JPEG", comment=b"x" * 60_000, icc_profile=b"y" * 200_000)) == 6
    plain = tagged(pixels, None, "JPEG")
    assert orientation(plain) == orientation(tagged(pixels, 9, "JPEG")) == orientation(b"") == 1
    assert orientation(plain[:-2] + b"Exif\0\0" + plain[-2:]) == 1
    whole = tagged(pixels, 6, "JPEG")
    for end in range(0, len(whole), 7):
        assert orientation(whole[:end]) in (1, 6)


MINE = "--model demo --layers block1.* --topk 3 --no-visualize --no-sheets --device cpu --workers 1".split()
SIZES = [(200, 130), (130, 200), (160, 160), (210, 120), (120, 110), (150, 140)]


def uprights() -> list[np.ndarray]:
    return [np.asarray(picture(*size, seed)) for seed, size in enumerate(SIZES)]


def mined(folder: Path, run: Path, *more: str) -> str:
    done = CliRunner().invoke(
        application(["mine"]), ["mine", "--dataset", str(folder), "--run", str(run), *MINE, *more]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    return " ".join(done.output.split())


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """The same images upright, with an orientation each, and without it."""
    root = tmp_path_factory.mktemp("turned")
    tags = [*STORED][2:]
    write_folder(root / "upright", {f"{n}.png": tagged(each, None) for n, each in enumerate(uprights())})
    for name, with_tag in (("tagged", True), ("stored", False)):
        write_folder(root / name, {
            f"{n}.png": tagged(STORED[tag](each), tag if with_tag else None)
            for n, (each, tag) in enumerate(zip(uprights(), tags, strict=True))
        })  # fmt: skip
    return root


@pytest.mark.parametrize(
    ("more", "same", "said"),
    [
        ([], "stored", "6 images have an EXIF orientation: they are mined as they are stored"),
        (["--orientation", "exif"], "upright", "6 images have an EXIF orientation: they are turned upright"),
    ],
)
@pytest.mark.parametrize("pictures", ["64", "original"])
def test_a_run_is_that_of_images_that_lie_like_that_and_shows_them_so(folders, tmp_path, more, same, said, pictures):
    assert said in mined(folders / "tagged", tmp_path / "run", "--pictures", pictures, *more)
    assert "EXIF" not in mined(folders / same, tmp_path / "same", "--pictures", pictures)
    run, like = open_run(tmp_path / "run"), open_run(tmp_path / "same")
    columns = ["activation", "key", "y", "x", "left", "top", "right", "bottom"]
    for layer in run.layers["layer"]:
        pd.testing.assert_frame_equal(run.exemplars(layer)[columns], like.exemplars(layer)[columns])
        both = (each.exemplars(layer)[:9].to_dict("records") for each in (run, like))
        for row, other in zip(*both, strict=True):
            assert np.array_equal(run.crop(row, sharp=True), like.crop(other, sharp=True))
    for image in run.images.image_id:
        assert np.array_equal(run.original(image), like.original(image))
        assert run.whole(image).size == like.whole(image).size == like.original(image).size
    for cell in pd.read_parquet(tmp_path / "run" / "pictures.parquet").picture:
        assert orientation(cell["bytes"]) == 1, "whoever opens it sees it as it was mined"
    assert json.loads((tmp_path / "run" / "run.json").read_bytes())["counts"]["turned"] == len(SIZES)
    assert run.shards.turned.tolist() == [len(SIZES)] and like.shards.turned.tolist() == [0]


def test_a_run_that_was_turned_is_turned_again_by_what_goes_on_with_it(folders, tmp_path):
    deep = ["--layers", "block4.relu", "--focus", "1"]
    mined(folders / "tagged", tmp_path / "run", "--orientation", "exif", *deep)
    mined(folders / "upright", tmp_path / "same", *deep)
    run, like = (pd.read_parquet(tmp_path / name / "exemplars") for name in ("run", "same"))
    columns = [name for name in run if name.startswith("focus")]
    assert run.focus_left.notna().any()
    pd.testing.assert_frame_equal(run[columns], like[columns])


def test_an_orientation_that_there_is_not_is_refused(folders, tmp_path):
    words = ["--dataset", str(folders / "upright"), "--run", str(tmp_path / "run"), "--orientation", "left"]
    done = CliRunner().invoke(application(["mine"]), ["mine", *words, *MINE])
    assert done.exit_code == 1
    assert "There is no --orientation left. It is stored or exif." in " ".join(done.stderr.split())
