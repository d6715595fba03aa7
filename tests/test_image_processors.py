"""Image processors of transformers as preprocessings: against what the processors themselves make of pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.geometry import Box, original_box
from actmine.pipeline.preprocessing.images import network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from tests.making import picture

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
from actmine.pipeline.network.image_processors import preprocessing_of  # noqa: E402

SQUARE, SHORT = {"height": 48, "width": 48}, {"shortest_edge": 52}
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTImageProcessor", {"size": SQUARE}),
    "clip": ("CLIPImageProcessor", {"size": SHORT, "crop_size": SQUARE}),
    "siglip": ("SiglipImageProcessor", {"size": SQUARE}),
    "siglip by Pillow": ("SiglipImageProcessorPil", {"size": SQUARE}),
    "beit": ("BeitImageProcessor", {"size": SQUARE, "do_center_crop": False}),
    "deit": ("DeiTImageProcessor", {"size": {"height": 55, "width": 55}, "crop_size": SQUARE}),
    "dinov2": ("BitImageProcessor", {"size": {"shortest_edge": 53}, "crop_size": SQUARE}),
    "dinov3": ("DINOv3ViTImageProcessor", {"size": SQUARE}),
    "convnext": ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.875}),
    "convnext, large": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "levit": ("LevitImageProcessor", {"size": {"shortest_edge": 48}, "crop_size": SQUARE}),
    "mobilevit": ("MobileViTImageProcessor", {"size": SHORT, "crop_size": SQUARE}),
    "efficientnet": ("EfficientNetImageProcessor", {"size": SQUARE}),
    "efficientnet, offset": ("EfficientNetImageProcessor",
                             {"size": SQUARE, "rescale_factor": 1 / 127.5, "rescale_offset": True}),
    "bytes as they are": ("ViTImageProcessor", {"size": SQUARE, "do_rescale": False, "do_normalize": False}),
}  # fmt: skip


def made(name: str) -> Any:
    kind, settings = PROCESSORS[name]
    return getattr(transformers, kind)(**settings)


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_input_is_what_the_processor_makes_and_boxes_are_followed(name):
    processor = made(name)
    how, notices = preprocessing_of("hf/some/model", processor)
    assert how.followed and notices == ()
    for size in ((61, 47), (48, 97), (401, 309), (640, 1021)):
        image = picture(*size, seed=size[0])
        mine = Normalize(how, torch.device("cpu"))(torch.from_numpy(network_pixels(image, how)[None]))
        theirs = processor(images=image, return_tensors="pt")["pixel_values"].float()
        torch.testing.assert_close(mine, theirs, atol=1e-5 * max(1.0, float(theirs.abs().max())), rtol=0)


@pytest.mark.parametrize("name", ["dinov3", "mobilevit", "levit", "efficientnet"])
def test_no_pixel_outside_of_a_box_changes_what_is_in_it(name):
    processor = made(name)
    how, _ = preprocessing_of("hf/some/model", processor)
    image = picture(203, 151, 3)
    before = processor(images=image, return_tensors="pt")["pixel_values"][0]
    for window in (Box(0, 0, 5, 7), Box(17, 20, 30, 28), Box(40, 41, 48, 48)):
        box = original_box(window, *image.size, how)
        outside = picture(203, 151, 9)
        outside.paste(image.crop((box.left, box.top, box.right, box.bottom)), (box.left, box.top))
        after = processor(images=outside, return_tensors="pt")["pixel_values"][0]
        inside = (slice(None), slice(window.top, window.bottom), slice(window.left, window.right))
        assert torch.equal(before[inside], after[inside])
        assert not torch.equal(before, after)


def test_blue_green_red_is_known_for_what_it_is():
    how, _ = preprocessing_of("hf/some/model", made("mobilevit"))
    assert how.order == (2, 1, 0)


def test_a_processor_of_unknown_steps_makes_the_input_itself_and_that_is_said():
    processor = transformers.DonutImageProcessor(size=SQUARE)
    how, notices = preprocessing_of("hf/some/model", processor)
    image = picture(90, 71, 4)
    theirs = processor(images=image, return_tensors="pt")["pixel_values"][0]
    assert not how.followed and "DonutImageProcessor, is used as it is" in notices[0]
    assert torch.equal(torch.from_numpy(network_pixels(image, how)).permute(2, 0, 1), theirs)


@pytest.mark.parametrize("kind", ["VideoMAEImageProcessor", "Siglip2ImageProcessor"])
def test_a_processor_that_makes_no_image_is_refused_in_a_sentence(kind):
    with pytest.raises(UserError, match=r"takes no images: its processor makes tensors \[.*\], not \[C, H, W\]"):
        preprocessing_of("hf/some/model", getattr(transformers, kind)())
