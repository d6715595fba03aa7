"""Decoding: every kind of picture people have, and the same pixels as torchvision on PIL images."""

from __future__ import annotations

import contextlib
import io
import struct

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features
from torchvision.models import ResNet50_Weights, SqueezeNet1_1_Weights, ViT_B_16_Weights

from actmine.pipeline.preprocessing.images import MAX_PIXELS, ImageError, Preprocessing, decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from tests.making import encoded, jpeg, picture, png

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # pytest undoes the module's own filter


def preprocessing(weights: torchvision.models.WeightsEnum) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing.usual(
        preset.resize_size[0],
        (preset.crop_size[0], preset.crop_size[0]),
        preset.interpolation.value,
        tuple(preset.mean),
        tuple(preset.std),
    )


def network_input(data: bytes, how: Preprocessing) -> torch.Tensor:
    return Normalize(how, CPU)(torch.from_numpy(network_pixels(decode(data), how))[None])[0]


WEIGHTS = [ResNet50_Weights.DEFAULT, SqueezeNet1_1_Weights.DEFAULT, ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1]
SIZES = [(224, 224), (232, 232), (500, 375), (375, 500), (333, 251), (257, 1001), (97, 61), (1, 1), (3, 200), (640, 17)]


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_network_sees_what_torchvisions_own_transforms_make(
    weights: torchvision.models.WeightsEnum, width: int, height: int
) -> None:
    data = jpeg(width + height, width, height)
    expected = weights.transforms()(Image.open(io.BytesIO(data)).convert("RGB"))
    assert torch.equal(network_input(data, preprocessing(weights)), expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 70), st.integers(1, 90), st.integers(1, 90))
def test_any_size_resizes_and_crops_as_torchvision_does(
    width: int, height: int, resize: int, crop_height: int, crop_width: int
) -> None:
    how = Preprocessing.usual(resize, (crop_height, crop_width))
    image = picture(width, height, 3)
    chain = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(resize), torchvision.transforms.CenterCrop((crop_height, crop_width))]
    )
    assert np.array_equal(network_pixels(image, how), np.asarray(chain(image)))
    resized = torchvision.transforms.functional.resize(image, [resize])
    assert how.sizes((width, height))[1] == resized.size


def test_a_smaller_image_is_padded_with_black_where_nothing_resizes_it() -> None:
    pixels = network_pixels(picture(10, 8), Preprocessing.usual(None, (16, 16)))
    assert pixels.shape == (16, 16, 3)
    assert not pixels[0].any()


def test_cmyk_is_seen_as_pil_converts_it() -> None:
    data = encoded(picture(mode="CMYK"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
        assert np.array_equal(decode(data), image.convert("RGB"))


def test_the_name_of_a_file_says_nothing_of_its_contents() -> None:
    assert np.array_equal(decode(encoded(picture(), "PNG")), picture())


def test_grey_of_16_bits_keeps_its_upper_eight() -> None:
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    for kind in ("PNG", "TIFF"):
        seen = np.asarray(decode(encoded(Image.fromarray(values), kind)))
        assert seen.shape == (64, 64, 3)
        assert np.array_equal(seen, np.stack([values >> 8] * 3, 2)), kind


def test_colour_of_16_bits_keeps_its_upper_eight() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(">u2")
    data = png(struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0), b"".join(b"\0" + row.tobytes() for row in values))
    assert np.array_equal(decode(data), values >> 8)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_every_common_png_is_seen_as_pil_converts_it(mode: str) -> None:
    image = picture(mode="RGB").convert(mode)
    data = encoded(image, "PNG")
    assert np.array_equal(decode(data), image.convert("RGB"))


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = picture().convert("P", palette=Image.Palette.ADAPTIVE)
    data = encoded(image, "PNG", transparency=bytes(range(256)))
    assert np.array_equal(decode(data), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_seen(kind: str) -> None:
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    frames = [Image.new("RGB", (24, 18), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.array_equal(decode(data), frames[0])


def test_stored_orientation_counts_not_exif() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(picture(40, 30), exif=exif)).size == (40, 30)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_refused_wherever_it_ends(kind: str) -> None:
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    data = encoded(picture(), kind)
    for end in range(1, len(data) - len(data) // 4, max(1, len(data) // 23)):
        with pytest.raises(ImageError):
            decode(data[:end])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_at_every_byte_of_its_picture(progressive: bool) -> None:
    data = encoded(picture(), quality=90, progressive=progressive)
    for end in range(2, len(data) - 2, 11):
        with pytest.raises(ImageError):
            decode(data[:end])


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(ImageError, match="empty file"):
        decode(b"")


@pytest.mark.parametrize("data", [b"not a picture", b"\0" * 4096, b"<html></html>", b"%PDF-1.7 ..."])
def test_bytes_that_are_no_picture_get_the_same_reason_every_time(data: bytes) -> None:
    reasons = set()
    keep = []  # so that the next one lies at another address
    for _ in range(3):
        with pytest.raises(ImageError) as caught:
            decode(data)
        reasons.add(str(caught.value))
        keep.append(caught)
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


def test_a_program_in_a_picture_is_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", lambda *args, **kwargs: pytest.fail("something was started"))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    with pytest.raises(ImageError, match="cannot identify"):
        decode(postscript)


def test_a_decompression_bomb_is_refused_before_it_goes_off() -> None:
    side = int(MAX_PIXELS**0.5) + 2
    for width, height in ((side, side), (2**31 - 1, 2**31 - 1)):
        with pytest.raises(ImageError, match=r"pixels|size"):
            decode(png(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"\0"))


@pytest.mark.parametrize(("width", "height"), [(1, 20000), (20000, 1)])
def test_an_absurdly_narrow_image_is_refused_instead_of_blown_up(width: int, height: int) -> None:
    image = decode(encoded(Image.new("RGB", (width, height)), "PNG"))
    with pytest.raises(ImageError, match="too narrow to resize"):
        network_pixels(image, Preprocessing.usual(256, (224, 224)))


def test_floating_point_pixels_are_refused() -> None:
    data = encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    with pytest.raises(ImageError, match="floating-point"):
        decode(data)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "TGA"])
)
def test_a_flipped_byte_gives_pixels_or_a_reason(place: int, value: int, kind: str) -> None:
    data = bytearray(encoded(picture(), kind))
    data[place % len(data)] = value
    with contextlib.suppress(ImageError):
        assert decode(bytes(data)).mode == "RGB"
