"""What the network sees is said in one line; images of one size are the input; padding is measured and warned of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.first_images import first_sizes
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.preprocessing.options import PreprocessingOptions as Options
from actmine.pipeline.preprocessing.options import with_overrides
from actmine.pipeline.preprocessing.sight import as_large_as, padding, padding_warning, sight
from actmine.pipeline.preprocessing.steps import Grey, Pad
from actmine.pipeline.preprocessing.transforms import follow
from tests.making import encoded, jpeg, picture, write_folder, write_tar

USUAL = Preprocessing.usual(256, (224, 224))
WHITE = (255, 255, 255)


def said(*words: str) -> str:
    done = CliRunner().invoke(application([words[0]]), [*words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def small(root: Path, sizes: list[tuple[int, int]]) -> Path:
    return write_folder(root, {f"{n}.png": encoded(picture(*size, n), "PNG") for n, size in enumerate(sizes)})


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (USUAL, "224 × 224 pixels in colour: the short side resized to 256 (bilinear), the middle 224 × 224 taken."),
        (
            with_overrides(USUAL, Options(resize="none", crop="28x32", channels=1)),
            "28 × 32 pixels in grey: not resized, made grey, the middle 28 × 32 taken.",
        ),
        (
            with_overrides(USUAL, Options(resize="20x30", crop="none", interpolation="bicubic")),
            "20 × 30 pixels in colour: resized to 20 × 30 (bicubic).",
        ),
        (Preprocessing((Pad(1, 2, 3, 4),), (9, 9)), "9 × 9 pixels in colour: not resized, padded by 1, 2, 3, 4."),
    ],
    ids=str,
)
def test_what_is_seen_is_one_sentence(how, sentence):
    assert sight(how) == f"The network sees {sentence}"


def test_a_transform_of_ones_own_is_named_as_such():
    class Odd:
        def __call__(self, image):
            return v2.functional.to_dtype(v2.functional.to_image(image.resize((8, 8))), scale=True)

    assert sight(follow(Odd())) == (
        "The network sees 8 × 8 pixels in colour: by its own transform, which cannot be followed."
    )


@pytest.mark.parametrize("size", [(32, 32), (100, 300), (300, 100), (224, 224), (500, 375), (1, 1), (225, 223)])
@pytest.mark.parametrize(
    "how",
    [
        with_overrides(USUAL, Options(resize="none")), with_overrides(USUAL, Options(resize="40")),
        with_overrides(USUAL, Options(resize="none", crop="48x80")), USUAL,
        Preprocessing((Pad(3, 4, 5, 60), *with_overrides(USUAL, Options("90x90", "100")).steps), (100, 100)),
        Preprocessing((Grey(), *with_overrides(USUAL, Options("none", "64")).steps), (64, 64), (0.5,), (0.5,)),
    ],
)  # fmt: skip
def test_the_share_of_padding_is_that_of_pixels_that_stay_black_where_the_image_is_white(how, size):
    pixels = network_pixels(Image.new("RGB", size, WHITE), how)
    assert padding(how, size) == pytest.approx(np.mean(pixels[..., 0] < 128), abs=0.03)


def test_more_than_a_tenth_is_warned_of_and_a_tenth_is_not():
    how = with_overrides(USUAL, Options(resize="none", crop="100"))
    assert padding_warning(how, [(90, 100)] * 9) == padding_warning(how, []) == ""
    assert "up to 11% of what the network sees of 2 of the first 3 images is padding" in padding_warning(
        how, [(100, 89), (500, 500), (89, 100)]
    )


def test_images_of_one_size_are_the_input_unless_something_else_is_said():
    none = Options(resize="none")
    assert as_large_as(none, [(32, 28)] * 3).crop == "28x32"
    for overrides, sizes in ((none, [(32, 28), (28, 32)]), (none, []), (Options(), [(32, 28)])):
        assert as_large_as(overrides, sizes) == overrides
    assert as_large_as(Options(resize="none", crop="20"), [(32, 28)]).crop == "20"


def test_the_first_sizes_are_those_of_the_images_whatever_is_between_them(tmp_path):
    write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(1)), ("b.txt", b"x"), ("c.png", encoded(picture(9, 7), "PNG"))])
    write_tar(tmp_path / "1.tar", [("d.png", b"no picture"), ("e.png", encoded(picture(5, 6), "PNG"))])
    sizes = first_sizes(find_dataset(str(tmp_path / "{0..1}.tar")))
    assert sizes[1:] == [(9, 7), (5, 6)] and len(sizes) == 3
    assert first_sizes(find_dataset(str(tmp_path / "{0..1}.tar")), most=2) == sizes[:2]


MINE = ["--model", "demo", "--layers", "stem.relu", "--topk", "2", "--no-visualize", "--no-sheets", "--device", "cpu"]


def test_small_images_that_are_not_resized_are_mined_as_they_are_and_found_again_so(tmp_path):
    folder, run = small(tmp_path / "in", [(32, 28)] * 3), tmp_path / "run"
    told = said("mine", "--dataset", str(folder), "--resize", "none", "--run", str(run), *MINE)
    assert "The network sees 28 × 32 pixels in colour: not resized" in " ".join(told.split()) and "padding" not in told
    record = json.loads((run / "run.json").read_bytes())
    assert record["preprocessing"]["size"] == [28, 32]
    words = ["--image", str(folder / "0.png"), "--run", str(run), "--out", str(tmp_path / "out"), "--no-attention"]
    shown = said("inspect", *words)
    assert "The network sees 28 × 32 pixels in colour" in " ".join(shown.split())


def test_images_of_several_sizes_are_warned_of(tmp_path):
    folder = small(tmp_path / "in", [(32, 28), (30, 30), (300, 300)])
    told = said("mine", "--dataset", str(folder), "--resize", "none", "--run", str(tmp_path / "run"), *MINE)
    most = f"{1 - 32 * 28 / 96**2:.0%}"
    assert f"up to {most} of what the network sees of 2 of the first 3 images is padding" in " ".join(told.split())


def test_layers_says_what_the_network_sees():
    told = " ".join(said("layers", "--model", "demo", "--layers", "stem.relu", "--resize", "20").split())
    assert "The network sees 96 × 96 pixels in colour: the short side resized to 20 (bilinear)" in told
    assert "Warning: up to 94% of what the network sees of an image is padding" in told
