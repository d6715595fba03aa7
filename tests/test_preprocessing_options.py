"""The flags that change a preprocessing: what they replace, and every sentence about what cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from PIL import Image

from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.transforms import PreprocessingOptions, follow, with_overrides

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL = Preprocessing.usual(256, (224, 224))
OWN = follow(v1.Compose([v1.Lambda(lambda image: image), v1.Resize((20, 24)), v1.ToTensor()]))
UNSETTLED = follow(v1.ToTensor())


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def sees(how: Preprocessing, *chain: object) -> bool:
    """Whether images of any shape come out as `chain` on Pillow images makes them."""
    for size in ((80, 61), (33, 57), (32, 48)):
        wanted = v1.Compose([*chain, v1.ToTensor()])(noise(*size))
        pixels = torch.from_numpy(network_pixels(noise(*size), how))[None]
        bare = Preprocessing((), None, (0.0,) * how.channels, (1.0,) * how.channels)
        if not torch.equal(Normalize(bare, torch.device("cpu"))(pixels)[0], wanted):
            return False
    return True


def test_no_wish_changes_nothing() -> None:
    assert with_overrides(USUAL, PreprocessingOptions()) is USUAL
    assert with_overrides(OWN, PreprocessingOptions()) is OWN


BICUBIC = v1.InterpolationMode.BICUBIC


@pytest.mark.parametrize(
    ("overrides", "chain"),
    [
        (PreprocessingOptions(resize="40"), [v1.Resize(40), v1.CenterCrop(224)]),
        (PreprocessingOptions(resize="40x50"), [v1.Resize((40, 50)), v1.CenterCrop(224)]),
        (PreprocessingOptions(resize="none", crop="32"), [v1.CenterCrop(32)]),
        (PreprocessingOptions(crop="32x48"), [v1.Resize(256), v1.CenterCrop((32, 48))]),
        (PreprocessingOptions(resize="22x30", crop="none"), [v1.Resize((22, 30))]),
        (PreprocessingOptions(interpolation="bicubic"), [v1.Resize(256, BICUBIC), v1.CenterCrop(224)]),
        (PreprocessingOptions("30", "28", "bicubic"), [v1.Resize(30, BICUBIC), v1.CenterCrop(28)]),
        (PreprocessingOptions("30", "28", channels=1), [v1.Grayscale(), v1.Resize(30), v1.CenterCrop(28)]),
    ],
    ids=str,
)
def test_a_wish_replaces_its_part_alone(overrides: PreprocessingOptions, chain: list) -> None:
    assert sees(with_overrides(USUAL, overrides), *chain)


def test_mean_and_std_are_replaced_by_themselves() -> None:
    how = with_overrides(USUAL, PreprocessingOptions(mean="0.5,0.25,0.125"))
    assert (how.mean, how.std, how.steps) == ((0.5, 0.25, 0.125), STD, USUAL.steps)
    how = with_overrides(USUAL, PreprocessingOptions(std="1,2,3e0"))
    assert (how.mean, how.std) == (MEAN, (1.0, 2.0, 3.0))


def test_channels_go_both_ways() -> None:
    grey = with_overrides(USUAL, PreprocessingOptions(channels=1))
    assert grey.mean == pytest.approx((0.449,)) and grey.std == pytest.approx((0.226,))
    assert with_overrides(USUAL, PreprocessingOptions(channels=3, crop="8")).channels == 3
    digits = follow(v1.Compose([v1.Resize(30), v1.Grayscale(), v1.CenterCrop(28), v1.ToTensor()]))
    assert digits.channels == 1
    assert sees(with_overrides(digits, PreprocessingOptions(channels=3)), v1.Resize(30), v1.CenterCrop(28))
    how = with_overrides(USUAL, PreprocessingOptions(channels=1, mean="0.1", std="0.3"))
    assert (how.mean, how.std) == ((0.1,), (0.3,))


def test_a_coloured_frame_becomes_grey_with_the_image() -> None:
    framed = follow(v1.Compose([v1.Resize((20, 20)), v1.Pad(2, fill=(30, 60, 90)), v1.ToTensor()]))
    pixels = network_pixels(noise(40, 40), with_overrides(framed, PreprocessingOptions(channels=1)))
    assert pixels.shape == (24, 24, 1) and pixels[0, 0, 0] == 60


def test_pads_stay_where_they_were() -> None:
    how = follow(v1.Compose([v1.Pad(3), v1.Resize(40, BICUBIC), v1.CenterCrop(32), v1.Pad(1), v1.ToTensor()]))
    assert sees(
        with_overrides(how, PreprocessingOptions("20", "16")),
        v1.Pad(3),
        v1.Resize(20, BICUBIC),
        v1.CenterCrop(16),
        v1.Pad(1),
    )


def test_steps_on_tensors_move_to_pillow_images() -> None:
    how = follow(v2.Compose([v2.ToImage(), v2.Resize(40), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True)]))
    assert sees(with_overrides(how, PreprocessingOptions(crop="24")), v1.Resize(40), v1.CenterCrop(24))
    hard = follow(v1.Compose([v1.ToTensor(), v1.Resize((40, 40), antialias=False), v1.Normalize(MEAN, STD)]))
    with pytest.raises(UserError, match=r"--mean cannot change .* without antialiasing"):
        with_overrides(hard, PreprocessingOptions(mean="0,0,0"))
    how = with_overrides(hard, PreprocessingOptions(resize="20x20"))
    assert sees(how, v1.Resize((20, 20))) and how.mean == MEAN


def test_an_unknown_transform_is_replaced_as_a_whole() -> None:
    assert not OWN.followed
    how = with_overrides(OWN, PreprocessingOptions("30", "28"))
    assert how.followed and (how.mean, how.std) == (MEAN, STD)
    assert sees(how, v1.Resize(30), v1.CenterCrop(28))
    for overrides in (
        PreprocessingOptions(mean="0,0,0"),
        PreprocessingOptions(interpolation="box"),
        PreprocessingOptions(channels=1),
    ):
        with pytest.raises(UserError, match="Say --resize and --crop too"):
            with_overrides(OWN, overrides)


def test_wishes_settle_the_size_of_the_input() -> None:
    assert with_overrides(UNSETTLED, PreprocessingOptions(crop="32")).size == (32, 32)
    assert with_overrides(UNSETTLED, PreprocessingOptions(resize="20x30")).size == (20, 30)
    for how, overrides in [
        (UNSETTLED, PreprocessingOptions()),
        (UNSETTLED, PreprocessingOptions(resize="32")),
        (USUAL, PreprocessingOptions(crop="none")),
        (USUAL, PreprocessingOptions(resize="none", crop="none")),
        (OWN, PreprocessingOptions(resize="20")),
    ]:
        with pytest.raises(UserError, match=r"depend on the image.*--crop"):
            with_overrides(how, overrides)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (PreprocessingOptions(resize="small"), "--resize=small is the short side's pixels, HEIGHTxWIDTH or none"),
        (PreprocessingOptions(resize="-3"), "--resize=-3"),
        (PreprocessingOptions(crop="0"), "--crop=0: sizes are at least 1"),
        (PreprocessingOptions(crop="32x0"), "--crop=32x0"),
        (PreprocessingOptions(crop="32x48x3"), "--crop=32x48x3"),
        (PreprocessingOptions(crop="99999x99999"), "at most"),
        (PreprocessingOptions(interpolation="bicubik"), "Did you mean bicubic"),
        (PreprocessingOptions(mean="0.5"), "1 numbers for 3 channels"),
        (PreprocessingOptions(mean="a,b,c"), "--mean=a,b,c is numbers"),
        (PreprocessingOptions(mean="nan,0,0"), "finite"),
        (PreprocessingOptions(std="1,1"), "2 numbers for 3"),
        (PreprocessingOptions(std="1,0,1"), "above 0"),
        (PreprocessingOptions(std="1,-1,1"), "above 0"),
        (PreprocessingOptions(channels=4), "1 .grey. or 3"),
        (PreprocessingOptions(channels=1, mean="0.5,0.5,0.5"), "3 numbers for 1"),
        (PreprocessingOptions(resize="none", interpolation="box"), "say --resize too"),
    ],
    ids=str,
)
def test_a_wish_that_cannot_be_met_ends_in_a_sentence(overrides: PreprocessingOptions, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        with_overrides(USUAL, overrides)
