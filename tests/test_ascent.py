"""Ascent: what it draws is what the unit wants, whatever the batch, and the network is left as it was."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn

import actmine.pipeline.work
from actmine.pipeline.ascent import ascend
from actmine.pipeline.ascent.ascend import Visualization, check_channels, unit_seed
from actmine.pipeline.ascent.canvas import Normalized
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.cone import cone
from actmine.pipeline.ascent.optimizers import unit_rms
from actmine.pipeline.ascent.presets import DEFAULT, PRESETS, find_preset
from actmine.pipeline.ascent.recipe import Look
from actmine.pipeline.ascent.regularizers import blur, natural_colours, natural_spectrum, quick_length
from actmine.pipeline.ascent.transforms import shift
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.network.rectifiers import leaky, leaky_relu6
from actmine.pipeline.network.shapes import tensor_shapes
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.work import AscentWork

CPU = torch.device("cpu")


class Branches(nn.Module):
    """In-place and functional ReLUs, ReLU6, a sum, a concatenation, strides, paddings, a global gate, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.left = nn.Conv2d(8, 12, 3, padding=1)
        self.right = nn.Conv2d(8, 12, 3, padding=2, dilation=2)
        self.mean = nn.AvgPool2d(3, 1, 1)
        self.clipped = nn.ReLU6(inplace=True)
        self.gate = nn.Conv2d(24, 24, 1)
        self.last = nn.Conv2d(24, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.stem(x))))
        both = torch.cat([self.clipped(self.left(x)), torch.relu_(self.right(self.mean(x)))], 1)
        both = both * torch.sigmoid(self.gate(both.mean((2, 3), keepdim=True)))
        both += nn.functional.relu(both, inplace=False)
        x = nn.functional.relu(self.last(both), inplace=True)
        return self.head(x.mean((2, 3)))


def network_of(module: nn.Module, size: int = 48, channels: int = 3) -> Network:
    how = Preprocessing.usual(None, (size, size), mean=(0.5, 0.45, 0.4)[:channels], std=(0.25,) * channels)
    return Network("small", module.eval(), how, "random", "")


def small() -> Network:
    torch.manual_seed(0)
    return network_of(Branches())


def layer_of(network: Network, name: str) -> tuple[Traced, Layer]:
    traced = Traced(network.module, network.input_shape)
    return traced, traced.choose(name)[0]


def draw(network: Network, name: str, units: list[int], **settings: object) -> list[Visualization]:
    traced, layer = layer_of(network, name)
    field = receptive_fields(traced, [layer])[name]
    check_channels(network)
    work = AscentWork(Subject(network, traced, [layer]), {name: field}, dataclasses.replace(DEFAULT, **settings), 0)
    batches = LocalEngine(CPU, 1).map(work, work.batches(0, CPU, None, units), lambda tally: None)
    return [drawn for _, batch in batches for drawn in batch]


def normalized(network: Network, picture: np.ndarray) -> Tensor:
    how = network.preprocessing
    pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
    pixels = pixels[: len(how.mean)]
    return ((pixels - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None])[None]


def single_filter(size: int, units: int = 6, channels: int = 3) -> nn.Module:
    torch.manual_seed(1)
    smooth = blur(1.2)(torch.randn(units, channels, size, size))
    conv = nn.Conv2d(channels, units, size)
    conv.weight.data = smooth / smooth.square().sum((1, 2, 3), keepdim=True).sqrt()
    conv.bias.data.zero_()
    return nn.Sequential(conv, nn.ReLU())


@pytest.mark.parametrize(("size", "channels"), [(3, 3), (7, 3), (11, 1)])
def test_the_optimum_of_a_linear_filter_is_the_filter(size: int, channels: int) -> None:
    network = network_of(single_filter(size, channels=channels), channels=channels)
    weights = network.module[0].weight.detach()  # type: ignore[index]
    how = network.preprocessing
    best_pixels = (weights > 0).float()
    best = (best_pixels - torch.tensor(how.mean)[:, None, None]) / torch.tensor(how.std)[:, None, None]
    most = (best * weights).sum((1, 2, 3))  # what no picture in the box of valid colours can exceed
    for drawn in draw(network, "1", list(range(6))):
        assert drawn.picture.shape == (size, size, 3)
        picture = drawn.picture[:, :, :channels].transpose(2, 0, 1).astype(float)
        alike = np.corrcoef(picture.ravel(), weights[drawn.unit].numpy().ravel())[0, 1]
        assert alike > 0.7
        assert 0.9 * most[drawn.unit] < drawn.activation <= most[drawn.unit] * 1.0001


@pytest.mark.parametrize("sigma", [0.35, 1.0, 2.2])
def test_a_blur_is_scipys_borders_included(sigma: float) -> None:
    pictures = np.random.default_rng(0).random((2, 3, 30, 41)).astype(np.float32)
    expected = gaussian_filter1d(gaussian_filter1d(pictures, sigma, 2, mode="nearest"), sigma, 3, mode="nearest")
    assert np.allclose(blur(sigma)(torch.from_numpy(pictures)).numpy(), expected, atol=1e-5)


def test_a_shift_and_its_opposite_change_nothing() -> None:
    pictures = torch.rand(2, 3, 9, 7)
    assert torch.equal(shift(-2, 3)(shift(2, -3)(pictures)), pictures)


def test_natural_spectrum_scales_a_wave_by_its_frequency() -> None:
    across = torch.arange(32) / 32
    slow, fast = (torch.sin(2 * torch.pi * cycles * across).expand(1, 3, 32, 32) for cycles in (2, 8))
    change = natural_spectrum(1.0)
    assert torch.allclose(change(slow), slow * 16, atol=1e-4)
    assert torch.allclose(change(fast), fast * 4, atol=1e-4)


@pytest.mark.parametrize(
    ("length", "quick"), [(1, 1), (13, 14), (43, 44), (129, 132), (172, 175), (215, 216), (224, 224)]
)
def test_quick_lengths_have_no_large_prime_factor(length: int, quick: int) -> None:
    assert quick_length(length) == quick


def test_a_canvas_of_an_awkward_length_is_changed_as_if_zeros_lay_around_it() -> None:
    gradients = torch.randn(2, 3, 43, 17)
    padded = torch.nn.functional.pad(gradients, (0, 1, 0, 1))
    assert torch.allclose(natural_spectrum(0.6)(gradients), natural_spectrum(0.6)(padded)[:, :, :43, :17], atol=1e-4)


def test_natural_colours_keep_the_direction_upwards() -> None:
    gradients = torch.randn(8, 3, 5, 5)
    assert ((natural_colours(0.8)(gradients) * gradients).sum((1, 2, 3)) > 0).all()
    single = torch.randn(2, 1, 4, 4)
    assert torch.equal(natural_colours(0.8)(single), single)


def test_steps_are_normalized_image_by_image_and_zero_stays_zero() -> None:
    gradients = torch.randn(3, 3, 4, 4) * torch.tensor([1e-12, 1.0, 0.0]).view(3, 1, 1, 1)
    sizes = unit_rms(gradients).square().mean((1, 2, 3)).sqrt()
    assert torch.allclose(sizes, torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("name", ["relu", "clipped", "add", "last", "relu_2", "head"])
def test_the_subnetwork_with_slope_zero_is_the_network_below_the_layer(name: str) -> None:
    network = small()
    traced, layer = layer_of(network, name)
    images = torch.randn(3, 3, 48, 48)
    plain = subnetwork(traced, layer)(images)
    assert torch.allclose(subnetwork(traced, layer, leaky(0.0))(images), plain, atol=1e-6)
    if name == "head":
        assert torch.allclose(network.module(images), plain, atol=1e-6)


def test_the_network_is_left_as_it_was() -> None:
    network = small()
    before, state = repr(network.module), copy.deepcopy(network.module.state_dict())
    needed = [parameter.requires_grad for parameter in network.module.parameters()]
    output = network.module(torch.ones(1, 3, 48, 48))
    draw(network, "last", [0, 1])
    assert repr(network.module) == before
    assert all(torch.equal(value, state[key]) for key, value in network.module.state_dict().items())
    assert [parameter.requires_grad for parameter in network.module.parameters()] == needed
    assert all(parameter.grad is None for parameter in network.module.parameters())
    assert torch.equal(network.module(torch.ones(1, 3, 48, 48)), output)


def test_a_subnetwork_shares_its_parameters_and_needs_no_gradient_for_them() -> None:
    network = small()
    traced, layer = layer_of(network, "last")
    shared = {tensor.data_ptr() for tensor in network.module.parameters()}
    for parameter in subnetwork(traced, layer, leaky(0.05)).parameters():
        assert parameter.data_ptr() in shared
        assert not parameter.requires_grad


def test_every_relu_leaks_also_those_that_are_functions() -> None:
    traced, layer = layer_of(small(), "last")
    code = subnetwork(traced, layer, leaky(0.05)).code
    assert "relu(" not in code.replace("leaky_relu(", "")
    images = torch.randn(2, 3, 48, 48, requires_grad=True)
    deep = subnetwork(traced, layer, leaky(0.05))(images - 100)
    (gradient,) = torch.autograd.grad(deep.sum(), images)
    assert gradient.abs().sum() > 0


def test_relu6_leaks_on_both_sides() -> None:
    values = torch.tensor([-2.0, 0.0, 3.0, 6.0, 16.0])
    assert torch.allclose(leaky_relu6(values, 0.1), torch.tensor([-0.2, 0.0, 3.0, 6.0, 7.0]))
    assert torch.equal(leaky_relu6(values, 0.0), nn.functional.relu6(values))


@pytest.mark.parametrize("name", ["relu", "pool", "left", "right", "mean", "last", "head"])
@pytest.mark.parametrize("size", [(48, 48), (31, 44)])
def test_the_cone_gives_what_the_whole_maps_give(name: str, size: tuple[int, int]) -> None:
    traced, layer = layer_of(small(), name)
    whole = subnetwork(traced, layer, leaky(0.05))
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = whole(images)
        if expected.dim() == 2:
            assert torch.allclose(cone(whole, (3, *size), None)(images), expected, atol=1e-5)
            return
        rows, columns = expected.shape[2:]
        for row, column in [(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1), (1, columns - 2)]:
            got = cone(whole, (3, *size), (row, column))(images)
            assert got.shape[2:] == (1, 1)
            assert torch.allclose(got[:, :, 0, 0], expected[:, :, row, column], atol=1e-5)


@pytest.mark.parametrize("model", ["squeezenet1_1", "resnet18", "googlenet", "mobilenet_v2"])
def test_the_cone_of_torchvisions_networks_is_exact_and_smaller(model: str) -> None:
    network = load_network(model, "random")
    traced = Traced(network.module, network.input_shape)
    layer = [layer for layer in traced.unit_bearing() if layer.height is not None][-2]
    whole, canvas = subnetwork(traced, layer, leaky(0.05)), (3, 127, 127)
    shapes = tensor_shapes(whole, canvas)
    *_, rows, columns = shapes[next(iter(reversed(whole.graph.nodes))).args[0].name]  # type: ignore[union-attr]
    images = torch.randn(1, *canvas)
    reduced = cone(whole, canvas, (rows // 2, columns // 2))
    with torch.no_grad():
        expected = whole(images)[:, :, rows // 2, columns // 2]
        assert torch.allclose(reduced(images)[:, :, 0, 0], expected, atol=1e-3 * float(expected.abs().max()))


def test_a_finished_picture_is_measured_through_the_untouched_network() -> None:
    network = small()
    for drawn in draw(network, "left", [0, 3, 7]):
        with torch.no_grad():
            stem = network.module.relu(network.module.norm(network.module.stem(normalized(network, drawn.picture))))
            value = network.module.left(network.module.pool(stem))[0, drawn.unit].max()  # type: ignore[operator]
        assert drawn.activation == pytest.approx(float(value), rel=1e-5, abs=1e-6)


def test_a_unit_does_not_depend_on_its_batch_mates() -> None:
    # All batches of a layer have one size, so on a CPU nothing differs. Where a kernel treats places of a batch
    # differently, sixty steps carry the rounding on: 1% in activation, one level of 255 in the mean of a picture.
    together = draw(small(), "last", list(range(12)))
    for units in ([11, 3, 0, 7], [5], [2, 2]):
        for drawn in draw(small(), "last", units):
            mate = together[drawn.unit]
            assert drawn.seed == mate.seed
            assert drawn.activation == pytest.approx(mate.activation, rel=0.01)
            assert np.abs(drawn.picture.astype(int) - mate.picture.astype(int)).mean() < 1


def test_two_runs_give_the_same_bytes_and_another_seed_others() -> None:
    network = small()
    first, second = draw(network, "last", [0, 5, 9]), draw(network, "last", [0, 5, 9])
    assert [drawn.picture.tobytes() for drawn in first] == [drawn.picture.tobytes() for drawn in second]
    assert [drawn.activation for drawn in first] == [drawn.activation for drawn in second]
    assert len({unit_seed(seed, "last", unit, 0) for seed in range(3) for unit in range(50)}) == 150


def test_batches_come_one_by_one_in_the_order_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ascend, "_MOST_TOGETHER", 4)
    network = small()
    traced, layer = layer_of(network, "stem")
    field = receptive_fields(traced, [layer])["stem"]
    units = [7, 1, 0, 3, 2, 6]
    work = AscentWork(Subject(network, traced, [layer]), {"stem": field}, DEFAULT, 0)
    batches = list(LocalEngine(CPU, 1).map(work, work.batches(0, CPU, None, units), lambda tally: None))
    assert [[drawn.unit for drawn in batch] for _, batch in batches] == [units]
    monkeypatch.setattr(actmine.pipeline.work, "_ASCENTS", 1)
    batches = list(LocalEngine(CPU, 1).map(work, work.batches(0, CPU, None, units), lambda tally: None))
    assert [[drawn.unit for drawn in batch] for _, batch in batches] == [units[:4], units[4:]]


@pytest.mark.parametrize("name", ["stem", "last"])
def test_cores_share_the_ascents_of_a_batch_and_change_nothing(name: str) -> None:
    network = small()
    traced, layer = layer_of(network, name)
    climb = Climb(network.preprocessing, traced, layer, receptive_fields(traced, [layer])[name], DEFAULT, CPU)
    alone, *others = (ascend.draw(climb, list(range(8)), 3, 0, cores=cores) for cores in (1, 2, 8))
    for found in others:
        assert [drawn.picture.tobytes() for drawn in found] == [drawn.picture.tobytes() for drawn in alone]
        assert [drawn.activation for drawn in found] == [drawn.activation for drawn in alone]


def test_what_fails_in_one_ascent_is_raised_and_stops_the_others() -> None:
    network = small()
    traced, layer = layer_of(network, "stem")
    climb = Climb(network.preprocessing, traced, layer, receptive_fields(traced, [layer])["stem"], DEFAULT, CPU)
    steps = itertools.count()

    def fail() -> None:
        if next(steps) == 5:
            raise UserError("no more")

    climb.on_step = fail
    with pytest.raises(UserError, match="no more"):
        ascend.draw(climb, list(range(8)), 1, 0, cores=2)
    assert next(steps) < 200, "each of eight ascents would have many more steps"
    assert climb.on_step is fail


def test_a_dead_unit_is_tried_again_and_recorded() -> None:
    network = network_of(single_filter(7))
    network.module[0].bias.data[2] = -1e4  # type: ignore[index]
    alive, dead = draw(network, "1", [1, 2])
    assert alive.attempts == 1
    assert alive.activation > 0
    assert dead.attempts == DEFAULT.attempts
    assert dead.activation <= 0


def test_a_unit_whose_start_is_silent_still_rises() -> None:
    network = network_of(single_filter(9))
    network.module[0].bias.data[:] = -3.0  # type: ignore[index]  # far below zero around the mean colour
    assert all(drawn.activation > 0 and drawn.attempts == 1 for drawn in draw(network, "1", [0, 1, 2]))


@pytest.mark.parametrize("name", ["stem", "left", "last", "head"])
def test_every_unit_of_a_small_network_rises_far_above_its_start(name: str) -> None:
    network = small()
    traced, layer = layer_of(network, name)
    height, width = draw(network, name, [0])[0].picture.shape[:2]
    colour = network.preprocessing.mean
    how = Normalized.of(network.preprocessing, CPU)
    with torch.no_grad():
        starts = how(DEFAULT.canvas.start(range(100), (height, width), Look(colour, colour)))
        output = subnetwork(traced, layer)(starts)
        values = output.amax((2, 3)) if output.dim() == 4 else output
    for drawn in draw(network, name, list(range(layer.units))):
        assert drawn.activation > values[:, drawn.unit].max() + 3 * values[:, drawn.unit].std()


def test_the_canvas_just_holds_one_whole_receptive_field_and_is_clipped_to_the_input() -> None:
    network = small()
    assert draw(network, "stem", [0])[0].picture.shape == (5, 5, 3)
    # a field of 17 pixels that begins 6 before the first, in strides of 4: the first whole one begins at pixel 2
    assert draw(network, "left", [0])[0].picture.shape == (19, 19, 3)
    assert draw(network, "head", [0])[0].picture.shape == (48, 48, 3)


def test_a_network_that_takes_only_its_own_size_gets_it() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 3))
    drawn = draw(network_of(module, 16), "3", [0, 1, 2])
    assert [one.picture.shape for one in drawn] == [(16, 16, 3)] * 3


def test_a_grey_network_gets_grey_pictures_and_five_channels_are_refused() -> None:
    torch.manual_seed(0)
    grey = network_of(nn.Sequential(nn.Conv2d(1, 4, 5), nn.ReLU()), channels=1)
    for drawn in draw(grey, "1", [0, 1]):
        assert np.ptp(drawn.picture, axis=2).max() == 0
    how = Preprocessing.usual(None, (9, 9), mean=(0.5,) * 5, std=(1.0,) * 5)
    many = Network("many", nn.Sequential(nn.Conv2d(5, 4, 5)).eval(), how, "random", "")
    with pytest.raises(UserError, match="5 channels"):
        draw(many, "0", [0])


def test_an_unknown_preset_is_refused_with_near_matches() -> None:
    assert find_preset("default") is PRESETS["default"]
    with pytest.raises(UserError, match="Did you mean default"):
        find_preset("defualt")
