"""Transforms of torchvision, timm and anyone: the same pixels as their own, the right size, or a sentence."""

from __future__ import annotations

import json
import operator
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
import torchvision.transforms as v1
import torchvision.transforms.v2 as v2
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision.transforms import InterpolationMode

from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import ImageError, Preprocessing, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.transforms import follow
from tests.making import picture

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(333, 251), (90, 141), (47, 33), (224, 224), (300, 31)]


def network_input(image: Image.Image, how: Preprocessing) -> torch.Tensor:
    return Normalize(how, CPU)(torch.from_numpy(network_pixels(image, how))[None])[0]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def same(transform: Callable, how: Preprocessing, sizes: list[tuple[int, int]] = SIZES) -> bool:
    """Whether the network sees, bit for bit, what the transform makes."""
    return all(torch.equal(network_input(noise(*size), how), transform(noise(*size))) for size in sizes)


class Unheard(nn.Module):
    """A transform of one's own."""

    def forward(self, image: Image.Image) -> torch.Tensor:
        """Half as bright."""
        return v1.functional.to_tensor(v1.functional.center_crop(image, [24, 20])) / 2


class Resize(v1.Resize):
    """Called like torchvision's, but another."""

    def forward(self, image: Image.Image) -> Image.Image:
        """Turned."""
        return super().forward(image.rotate(90))


EVERY_PRESET = {
    repr(weights.transforms()): weights
    for name in torchvision.models.list_models(module=torchvision.models)
    for weights in torchvision.models.get_model_weights(name)
}


@pytest.mark.parametrize("weights", EVERY_PRESET.values(), ids=str)
def test_every_preset_of_torchvisions_weights_is_followed_bit_for_bit(weights) -> None:
    transform = weights.transforms()
    how = follow(transform)
    assert how.followed and how.transform is None
    assert how.size == (transform.crop_size[0],) * 2
    assert same(transform, how, SIZES[:2])


PLAIN = {
    "v1": v1.Compose([v1.Resize(40), v1.CenterCrop(32), v1.ToTensor(), v1.Normalize(MEAN, STD)]),
    "v2": v2.Compose(
        [
            v2.Resize(40, "bicubic"),
            v2.CenterCrop(32),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.ToPureTensor(),
        ]
    ),
    "v2 with Pillow's number": v2.Compose([v2.Resize((28, 36), 3), v2.PILToTensor(), v2.ConvertImageDtype()]),
    "sequential": nn.Sequential(v1.Resize((30, 44)), nn.Sequential(nn.Identity(), v2.PILToTensor()),
                                v1.ConvertImageDtype(torch.float32), v1.Normalize([0.5], [0.25])),
    "nested": v1.Compose([v1.Compose([v1.Resize(50, InterpolationMode.LANCZOS), v1.CenterCrop((32, 48))]),
                          v2.Compose([v1.ToTensor()])]),
    "at most": v1.Compose([v1.Resize(40, max_size=44), v1.CenterCrop(40), v1.ToTensor()]),
    "long side": v2.Compose([v2.Resize(None, max_size=48), v2.CenterCrop(48), v1.ToTensor()]),
    "pads": v1.Compose([v1.Pad((1, 2, 3, 4), fill=(9, 8, 7)), v1.Resize((33, 37)), v1.Pad(2, padding_mode="reflect"),
                        v1.Pad((3, 0), padding_mode="edge"), v1.Pad([1], padding_mode="symmetric"), v1.ToTensor()]),
    "cut off": v1.Compose([v1.Resize((40, 40)), v1.Pad((-3, 2, -5, 0)), v1.ToTensor()]),
    "resized twice": v1.Compose([v1.Resize(60, InterpolationMode.BOX), v1.CenterCrop(60),
                                 v1.Resize((41, 23), InterpolationMode.HAMMING), v1.ToTensor()]),
    "grey": v1.Compose([v1.Resize(40), v1.Grayscale(), v1.CenterCrop(32), v1.ToTensor(), v1.Normalize(0.5, 0.2)]),
    "grey in three channels": v2.Compose([v2.Grayscale(3), v2.Resize(40), v2.CenterCrop(32), v1.ToTensor()]),
    "converted": v1.Compose([operator.methodcaller("convert", "L"), v1.CenterCrop(28), v1.ToTensor()]),
    "32 as they are": v1.Compose([v1.CenterCrop(32), v1.ToTensor()]),
    "never flipped": v1.Compose([v1.RandomHorizontalFlip(0), v1.Resize((32, 32)), v1.ToTensor()]),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_steps_on_pillow_images_are_done_here_and_bit_for_bit_the_same(name: str) -> None:
    how = follow(PLAIN[name])
    assert how.followed and how.transform is None
    assert network_pixels(noise(60, 50), how).dtype == np.uint8
    assert same(PLAIN[name], how)


ON_TENSORS = {
    "v2 on tensors": v2.Compose([v2.ToImage(), v2.Resize(40), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True),
                      v2.Normalize(MEAN, STD)]),
    "v1 without antialiasing": v1.Compose([v1.ToTensor(), v1.Resize((32, 40), antialias=False),
                                           v1.Normalize(MEAN, STD)]),
    "mixed": v1.Compose([v1.Resize(50), v1.ToTensor(), v1.CenterCrop(32), v1.Normalize(MEAN, STD)]),
    "cropped behind normalizing": v1.Compose([v1.ToTensor(), v1.Normalize(MEAN, STD), v1.CenterCrop(32)]),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_TENSORS)
def test_steps_on_tensors_are_left_to_the_transform_and_still_followed(name: str) -> None:
    how = follow(ON_TENSORS[name])
    assert how.followed and how.transform is ON_TENSORS[name]
    assert (how.mean, how.std) == (MEAN, STD)
    assert network_pixels(noise(60, 50), how).dtype == how.dtype == np.float32
    assert same(ON_TENSORS[name], how)


def test_pixels_that_are_not_scaled_are_left_to_the_transform() -> None:
    how = follow(v1.Compose([v1.Resize((20, 24)), v1.PILToTensor()]))
    assert how.followed and how.dtype == np.float32
    assert how.mean == (0.0,) * 3 and how.std == pytest.approx((1 / 255,) * 3)
    assert network_input(noise(50, 40), how).max() > 100


UNKNOWN: dict[str, Callable] = {
    "a lambda": lambda image: v1.functional.to_tensor(image.resize((20, 24))),
    "a module of one's own": Unheard(),
    "a lambda inside": v1.Compose([v1.Lambda(lambda image: image.rotate(90)), v1.Resize((24, 20)), v1.ToTensor()]),
    "a class called like a known one": v1.Compose([Resize((24, 20)), v1.ToTensor()]),
    "always flipped": v1.Compose([v1.RandomHorizontalFlip(1), v1.Resize((24, 20)), v1.ToTensor()]),
    "an array": lambda image: np.moveaxis(np.asarray(image.resize((20, 24)), np.float32), 2, 0),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_not_known_is_not_followed(name: str) -> None:
    transform = UNKNOWN[name]
    how = follow(transform)
    assert not how.followed
    assert how.size == (24, 20) and how.channels == 3
    made = torch.as_tensor(transform(noise(70, 80)))
    assert torch.equal(network_input(noise(70, 80), how), made)
    assert how.described()["boxes"] == "network input"


def test_what_an_unknown_transform_normalizes_with_is_found_out() -> None:
    how = follow(
        v1.Compose([v1.Lambda(lambda image: image), v1.Resize((20, 20)), v1.ToTensor(), v1.Normalize(MEAN, STD)])
    )
    assert how.mean == pytest.approx(MEAN, abs=1e-5) and how.std == pytest.approx(STD, abs=1e-5)


def test_a_transform_that_stretches_each_images_contrast_has_no_mean_of_its_own() -> None:
    def stretched(image: Image.Image) -> torch.Tensor:
        values = v1.functional.to_tensor(image.resize((20, 20)))
        return (values - values.mean()) / values.std()

    how = follow(stretched)
    assert (how.mean, how.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_network_of_one_channel_gets_grey_images() -> None:
    digits = v1.Compose([v1.Resize((28, 28)), v1.ToTensor(), v1.Normalize((0.1307,), (0.3081,))])
    how = follow(digits, channels=1)
    assert (how.channels, how.size, how.dtype) == (1, (28, 28), np.uint8)
    assert torch.equal(network_input(noise(40, 50), how), digits(noise(40, 50).convert("L")))

    def strict(image: Image.Image) -> torch.Tensor:
        assert image.mode == "L"
        return digits(image)

    how = follow(strict, channels=1)
    assert how.channels == 1 and not how.followed
    assert torch.equal(network_input(noise(40, 50), how), digits(noise(40, 50).convert("L")))
    own = follow(lambda image: digits(image.convert("L")), channels=1)
    assert torch.equal(network_input(noise(40, 50), own), network_input(noise(40, 50), how))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_an_image_has_one_or_three_channels(channels: int) -> None:
    with pytest.raises(UserError, match=r"1 \(grey\) or 3"):
        follow(v1.ToTensor(), channels)
    with pytest.raises(UserError, match="1 or 3"):
        follow(lambda image: torch.zeros(channels, 8, 8))


@pytest.mark.parametrize(
    "transform",
    [
        v1.Compose([v1.RandomHorizontalFlip(), v1.ToTensor()]),
        v1.RandomApply([v1.Grayscale(3)]),
        v2.Compose([v2.RandomResizedCrop(32), v2.ToImage()]),
        v1.Compose([v1.ColorJitter(0.1), v1.ToTensor()]),
        lambda image: torch.rand(3, 8, 8),
    ],
)
def test_a_transform_that_depends_on_chance_is_refused(transform: Callable) -> None:
    with pytest.raises(UserError, match="evaluated with"):
        follow(transform)


@pytest.mark.parametrize(
    ("transform", "problem"),
    [
        (v1.Resize(32), "gives Image, not a tensor"),
        (lambda image: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda image: {"pixels": image}, "gives dict"),
        (lambda image: torch.zeros(1, 3, 8, 8), r"a tensor \[1, 3, 8, 8\]"),
        (v1.Compose([v1.Resize(40, max_size=30), v1.ToTensor()]), "max_size=30"),
        (v1.Compose([v1.CenterCrop(8), v1.ToTensor(), v1.Normalize([0.5] * 2, [0.5] * 2)]), "2 channels"),
        (v1.Compose([v1.CenterCrop(8), v1.ToTensor(), v1.Normalize([0.5], [0.0])]), "std is above 0"),
    ],
)
def test_a_transform_that_is_no_use_is_refused_when_the_run_starts(transform: Callable, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        follow(transform)


@pytest.mark.parametrize(
    "transform",
    [
        v1.Compose([v1.Resize(32), v1.ToTensor()]),
        v1.ToTensor(),
        v2.Compose([v2.ToImage(), v2.Resize(32), v2.ToDtype(torch.float32, scale=True)]),
        lambda image: v1.functional.to_tensor(image),
    ],
)
def test_where_the_size_would_depend_on_the_image_the_flags_are_named(transform: Callable) -> None:
    how = follow(transform)
    with pytest.raises(UserError, match="--crop"):
        how.size  # noqa: B018


def test_an_image_that_a_transform_refuses_is_no_image_for_the_network() -> None:
    def small(image: Image.Image) -> torch.Tensor:
        if image.width > 400:
            raise RuntimeError(f"too wide {image}")
        return torch.zeros(3, 8, 8 if image.height < 350 else 9)

    how = follow(small)
    with pytest.raises(ImageError, match=r"transform: RuntimeError: too wide <PIL.Image.Image .*401x10>"):
        network_pixels(Image.new("RGB", (401, 10)), how)
    with pytest.raises(ImageError, match=r"comes out as \[8, 9, 3\]"):
        network_pixels(Image.new("RGB", (10, 351)), how)


@pytest.mark.parametrize("name", [*PLAIN, *ON_TENSORS])
def test_a_preprocessing_can_travel_and_be_written_down(name: str) -> None:
    how = follow((PLAIN | ON_TENSORS)[name])
    there = pickle.loads(pickle.dumps(how))
    assert np.array_equal(network_pixels(picture(), there), network_pixels(picture(), how))
    told = how.described()
    assert json.loads(json.dumps(told)) == told == there.described()
    assert told["size"] == list(how.size) and told["boxes"] == "original image"


def test_two_unknown_transforms_are_told_apart_and_one_is_always_the_same() -> None:
    def made(way: int) -> Callable:
        return lambda image: v1.functional.to_tensor(image.resize((20, 24), way))

    one, again, other = (follow(made(way)).described() for way in (2, 2, 3))
    assert one == again
    assert one != other
    assert "0x" not in json.dumps(one)


TIMM = [
    {"crop_pct": 0.875},
    {"crop_pct": 0.95, "interpolation": "bicubic"},
    {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"},
    {"crop_pct": 0.9, "crop_mode": "squash", "input_size": (3, 48, 64)},
    {"crop_pct": 0.95, "crop_mode": "border"},
    {"crop_pct": 1.0, "crop_mode": "border", "input_size": (3, 40, 64), "interpolation": "bicubic"},
    {"crop_pct": 0.875, "input_size": (3, 64, 40)},
    {"crop_pct": 0.9, "crop_border_pixels": 5},
    {"crop_pct": 0.9, "interpolation": "lanczos", "mean": (0.5,) * 3, "std": (0.5,) * 3},
]


@pytest.mark.parametrize("config", TIMM, ids=str)
def test_timms_transforms_are_followed_bit_for_bit(config: dict) -> None:
    data = pytest.importorskip("timm.data")
    full = data.resolve_data_config({"input_size": (3, 64, 64), **config})
    transform = data.create_transform(**full, crop_border_pixels=config.get("crop_border_pixels"))
    how = follow(transform)
    assert how.followed and how.transform is None
    assert how.size == full["input_size"][1:]
    assert (how.mean, how.std) == (tuple(full["mean"]), tuple(full["std"]))
    assert same(transform, how)


def test_timm_without_normalizing_and_in_training() -> None:
    data = pytest.importorskip("timm.data")
    how = follow(data.create_transform(32, normalize=False))
    assert how.followed and how.dtype == np.float32 and how.std == pytest.approx((1 / 255,) * 3)
    with pytest.raises(UserError, match="by chance"):
        follow(data.create_transform(32, is_training=True))


@settings(max_examples=80, deadline=None)
@given(st.data(), st.integers(4, 90), st.integers(4, 90), st.integers(0, 3))
def test_any_chain_is_followed_bit_for_bit(data: st.DataObject, width: int, height: int, length: int) -> None:
    sizes = st.integers(4, 70)
    ways = st.sampled_from(list(InterpolationMode))
    resizes = st.builds(v1.Resize, sizes | st.tuples(sizes, sizes), ways)
    borders = st.lists(st.integers(0, 3), min_size=4, max_size=4)
    pads = st.builds(
        v1.Pad, borders, st.integers(0, 255), st.sampled_from(["constant", "edge", "reflect", "symmetric"])
    )
    crops = st.builds(v1.CenterCrop, sizes | st.tuples(sizes, sizes))
    chain = [data.draw(resizes | pads | crops) for _ in range(length)]
    transform = v1.Compose([*chain, data.draw(crops), v1.ToTensor()])
    assert same(transform, follow(transform), [(width, height)])
