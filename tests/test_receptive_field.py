"""Receptive fields against published sizes, a NaN probe and perturbation."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from actmine.pipeline.network.layers import Traced
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.receptive_fields import receptive_field
from actmine.pipeline.receptive_fields.receptive_field import Field, receptive_fields


def network(name: str) -> nn.Module:
    slow_start = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **slow_start).eval()


@pytest.mark.parametrize(
    ("name", "layer", "side", "size"),
    [
        ("alexnet", "features.12", 224, 195),
        ("vgg16", "features.30", 224, 212),
        ("inception_v3", "Mixed_7c", 299, 1311),
    ],
)
def test_sizes_agree_with_araujo_norris_and_sim_2019(name, layer, side, size):
    traced = Traced(network(name), (3, side, side))
    field = receptive_fields(traced, traced.choose(layer))[layer]
    assert (field.y.size, field.x.size) == (size, size)


def nan_rows(module: nn.Module, layers: list[str], shape: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """For each layer, which input rows reach which of its rows, bool `[input rows, rows]`: runs NaN through."""
    channels, height, width = shape
    images = torch.ones(height, channels, height, width)
    for row in range(height):
        images[row, :, row, :] = torch.nan
    with torch.inference_mode():
        outputs = create_feature_extractor(module, layers)(images)
    return {name: output.isnan().flatten(3).any(3).any(1) for name, output in outputs.items()}


class Odd(nn.Module):
    """Asymmetric kernels, dilation, ceil_mode, branches of unlike fields, adaptive pooling, chunk and shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, (5, 3), (2, 1), (3, 0), (1, 2))
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.wide = nn.Conv2d(8, 8, 5, padding="same")
        self.narrow = nn.Conv2d(8, 8, 1)
        self.average = nn.AvgPool2d(3, 1, 1)
        self.adaptive = nn.AdaptiveAvgPool2d((3, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.first(x)))
        left, right = (self.wide(x) + self.narrow(x)).chunk(2, dim=1)
        x = torch.cat([self.average(left), right], 1)
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return self.adaptive(x)


@pytest.mark.parametrize("name", ["odd", "alexnet", "squeezenet1_1", "googlenet", "resnet18", "demo"])
def test_every_row_of_every_layer_sees_just_the_rows_a_nan_probe_finds(name):
    module = Odd().eval() if name == "odd" else _demo() if name == "demo" else network(name)
    shape = (3, 41, 37) if name == "odd" else (3, 96, 64)
    traced = Traced(module, shape)
    maps = [layer for layer in traced.unit_bearing() if layer.height is not None]
    if name == "odd":
        maps += traced.choose("pool,average,adaptive")
    fields = receptive_fields(traced, maps)
    probed = nan_rows(module, [layer.name for layer in maps], shape)
    for layer in maps:
        bounds, reached = fields[layer.name].bounds, probed[layer.name]
        assert fields[layer.name].note is None
        for row in range(reached.shape[1]):
            rows = reached[:, row].nonzero().flatten()
            seen = bounds[row, :, 1].min(), bounds[row, :, 3].max()
            assert seen == (int(rows[0]), int(rows[-1]) + 1), (layer.name, row)


def _demo() -> nn.Module:
    from actmine.pipeline.demo.network import demo_network

    return demo_network().eval()


def positive(module: nn.Module) -> nn.Module:
    """All weights positive: every pixel of a field then matters at every position."""
    for name, parameter in module.named_parameters():
        nn.init.constant_(parameter, 0.01 if "weight" in name else 0.0)
    return module


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet"])
def test_pixels_outside_the_box_never_change_a_unit_and_those_on_its_edges_do(name):
    module = positive(network(name)).double()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.weight)
    traced = Traced(module, (3, 96, 96))
    layers = [layer for layer in traced.unit_bearing() if layer.height is not None][4::9]
    fields = receptive_fields(traced, layers)
    extract = create_feature_extractor(module, [layer.name for layer in layers])
    torch.manual_seed(0)
    image = torch.rand(1, 3, 96, 96, dtype=torch.float64)
    with torch.inference_mode():
        plain = extract(image)
        for layer in layers:
            for y, x in ((0, 0), (layer.height // 2, layer.width // 2), (layer.height - 1, 0)):
                box = fields[layer.name].box(y, x)
                outside = image + 1.0
                outside[:, :, box.top : box.bottom, box.left : box.right] = image[
                    :, :, box.top : box.bottom, box.left : box.right
                ]
                # max pooling hands on only the largest pixel: raising all of an edge makes each count
                edges = [
                    (slice(box.top, box.top + 1), slice(box.left, box.right)),
                    (slice(box.bottom - 1, box.bottom), slice(box.left, box.right)),
                    (slice(box.top, box.bottom), slice(box.left, box.left + 1)),
                    (slice(box.top, box.bottom), slice(box.right - 1, box.right)),
                ]
                touched = image.repeat(len(edges), 1, 1, 1)
                for copy, (rows, columns) in zip(touched, edges, strict=True):
                    copy[:, rows, columns] += 1000.0
                there = plain[layer.name][0, :, y, x]
                assert torch.equal(extract(outside)[layer.name][0, :, y, x], there), (layer.name, y, x)
                changed = extract(touched)[layer.name][:, :, y, x] != there
                assert changed.any(1).all(), (layer.name, y, x, changed.any(1))


def test_a_field_that_leaves_the_input_is_clipped_and_says_so():
    traced = Traced(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2)).eval(), (3, 20, 20))
    field = receptive_fields(traced, traced.choose("0"))["0"]
    assert field.box(0, 10).top == 0 and field.box(0, 10).bottom == 3
    assert field.clipped(0, 10) and not field.clipped(10, 10)
    assert field.clipped(10, 19)


def test_a_position_that_sees_nothing_but_padding_has_no_bounds_and_a_box_of_one_pixel():
    traced = Traced(nn.Sequential(nn.Conv2d(3, 4, 1, padding=1)).eval(), (3, 20, 30))
    field = receptive_fields(traced, traced.choose("0"))["0"]
    assert field.bounds[0, 5].tolist() == [30, 20, 0, 0]
    assert field.box(0, 5) == Box(29, 19, 30, 20)
    assert field.bounds[1, 5].tolist() == [4, 0, 5, 1] and field.clipped(0, 5)


def test_an_operation_that_cannot_be_followed_sees_everything_and_says_why():
    class Inverted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.inv(x) + 0.0

    traced = Traced(Inverted().eval(), (3, 8, 8))
    field = receptive_fields(traced, traced.choose("add"))["add"]
    assert field.whole
    assert field.note == "linalg_inv_ex could not be followed"


def test_windows_of_shifted_attention_are_the_true_union():
    network = torchvision.models.swin_t(weights=None).eval()
    traced = Traced(network, (3, 224, 224))
    fields = receptive_fields(traced, traced.choose("features.1.0.add,features.1.1.add"))
    plain, shifted = fields["features.1.0.add"], fields["features.1.1.add"]
    assert plain.bounds[20, 8].tolist() == [28, 56, 56, 84]  # the third window down, the second across, of 7 x 4 pixels
    assert shifted.bounds[20, 8].tolist() == [0, 56, 56, 112]  # the 4 windows that one shifted by 3 overlaps
    assert shifted.bounds[0, 0].tolist() == [0, 0, 28, 28]  # what is rolled in from the other side is masked
    assert shifted.bounds[55, 55].tolist() == [196, 196, 224, 224]


class Small(nn.Module):
    def __init__(self, shift: int = 1) -> None:
        super().__init__()
        self.shift = shift
        self.layer = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).roll(self.shift, 3) + 0.0


def cached(monkeypatch, tmp_path) -> list[int]:
    """Counts how often a network is followed, with a cache of its own."""
    followed: list[int] = []
    found = receptive_field._found
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(receptive_field, "_found", lambda *given: followed.append(1) or found(*given))
    return followed


def fields_of(network: nn.Module, layers: str = "layer,add") -> dict[str, Field]:
    traced = Traced(network, (3, 12, 10))
    return receptive_fields(traced, traced.choose(layers))


def same(one: dict[str, Field], other: dict[str, Field]) -> bool:
    return all(
        (one[name].y, one[name].x, one[name].note) == (other[name].y, other[name].x, other[name].note)
        and np.array_equal(one[name].bounds, other[name].bounds)
        for name in one
    )


def test_fields_are_found_once_for_a_network_whatever_its_weights(monkeypatch, tmp_path):
    followed = cached(monkeypatch, tmp_path)
    first = fields_of(Small())
    assert same(first, fields_of(Small())) and followed == [1]
    assert fields_of(Small(), "roll").keys() == {"roll"} and followed == [1, 1]
    assert fields_of(Small(), "layer,add,roll").keys() == {"layer", "add", "roll"} and followed == [1, 1]


def test_a_setting_that_its_text_does_not_show_makes_it_another_network(monkeypatch, tmp_path):
    followed = cached(monkeypatch, tmp_path)
    one, other = fields_of(Small()), fields_of(Small(shift=3))
    assert followed == [1, 1] and not same(one, other)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "folder"])
def test_a_cache_that_is_damaged_or_cannot_be_written_is_no_error(damage, monkeypatch, tmp_path):
    followed = cached(monkeypatch, tmp_path)
    first = fields_of(Small())
    (file,) = tmp_path.rglob("*.npz")
    data = file.read_bytes()
    if damage == "folder":
        shutil.rmtree(tmp_path / "actmine")
        (tmp_path / "actmine").write_text("in the way")
    else:
        file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "other": b"no fields"}[damage])
    assert same(first, fields_of(Small())) and followed == [1, 1]
