"""The recipes of the literature: every part does what it says, every preset finds what there is to find."""

from __future__ import annotations

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as torchvision_functional
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from actmine.pipeline.ascent import ascend
from actmine.pipeline.ascent.ascend import Visualization
from actmine.pipeline.ascent.canvas import Details, Normalized, Pixels, TrainableInput, to_bytes, zoomed
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.fourier import Fourier, Phase, at_size, mean_spectrum, normalized_basis
from actmine.pipeline.ascent.objectives import Centre, Direction, Diversity, Mean, Norm, Pair, Positions
from actmine.pipeline.ascent.optimizers import Adam, Progress, Steady
from actmine.pipeline.ascent.presets import PRESETS
from actmine.pipeline.ascent.recipe import Line, Look, Moment, Preset, Ratio
from actmine.pipeline.ascent.regularizers import (
    COLOUR_BASIS,
    Blur,
    ClipIdle,
    ClipSmall,
    Decay,
    Develop,
    below_percentile,
    blur,
)
from actmine.pipeline.ascent.transforms import Crops, Noise, NormalJitter, Pad, RandomCut, Turn, turned
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields

CPU = torch.device("cpu")
OURS = [
    "filter-max", "noise", "oygard-googlenet", "oygard-vgg", "oygard-class", "yosinski-1", "yosinski-2", "yosinski-3",
    "yosinski-4", "deepdream", "lucid", "maco",
]  # fmt: skip
OF_UNITS = [name for name in OURS if name != "deepdream"]
LOOK = Look((0.5, 0.45, 0.4), (0.25, 0.25, 0.25))


def now(share: float = 0.0, step: int = 0, seed: int = 0, **settings: object) -> Moment:
    return Moment(share, step, 1.0, torch.Generator().manual_seed(seed), LOOK, **settings)  # type: ignore[arg-type]


def photographlike(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    """Smooth pictures with colours between 0.1 and 0.9."""
    noise = blur(1.5)(torch.randn(count, channels, height, width, generator=torch.Generator().manual_seed(3)))
    return 0.5 + 0.4 * noise / noise.abs().amax((1, 2, 3), keepdim=True)


def network_of(module: nn.Module, size: int, channels: int = 3) -> Network:
    how = Preprocessing.usual(None, (size, size), mean=(0.5, 0.45, 0.4, 0.5)[:channels], std=(0.25,) * channels)
    return Network("small", module.eval(), how, "random", "")


def small(channels: int = 3) -> Network:
    """Three convolutions and a head; 24 pixels."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 6, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    return network_of(module, 24, channels)


def shortened(preset: Preset, steps: int) -> Preset:
    """The same recipe with at most `steps` steps a stage."""
    stages = tuple(dataclasses.replace(stage, steps=min(stage.steps, steps)) for stage in preset.stages)
    return dataclasses.replace(preset, stages=stages)


def climb_of(network: Network, name: str, preset: Preset) -> Climb:
    traced = Traced(network.module, network.input_shape)
    layer = traced.choose(name)[0]
    field = receptive_fields(traced, [layer])[name]
    return Climb(network.preprocessing, traced, layer, field, preset, CPU)


def draw(network: Network, name: str, units: list[int], preset: Preset) -> list[Visualization]:
    climb = climb_of(network, name, preset)
    return ascend.draw(climb, units, climb.layer.units, 0)


# --- whole recipes


@pytest.mark.parametrize("name", OF_UNITS)
def test_every_recipe_finds_the_filter_of_a_linear_unit(name: str) -> None:
    torch.manual_seed(1)
    smooth = blur(2.0)(torch.randn(3, 3, 24, 24))
    conv = nn.Conv2d(3, 3, 24)
    conv.weight.data = smooth / smooth.square().sum((1, 2, 3), keepdim=True).sqrt()
    conv.bias.data.zero_()
    for drawn in draw(network_of(nn.Sequential(conv, nn.ReLU()), 24), "1", [0, 1, 2], shortened(PRESETS[name], 60)):
        picture = drawn.picture.transpose(2, 0, 1) / 255 - np.array(LOOK.mean)[:, None, None]
        alike = np.corrcoef(picture.ravel(), smooth[drawn.unit].numpy().ravel())[0, 1]
        # maco cannot change how strong each frequency is, and sees the filter at several sizes
        assert alike > (0.25 if name == "maco" else 0.5)


@pytest.mark.parametrize("name", OF_UNITS)
@pytest.mark.parametrize("layer", ["3", "5", "8"])
def test_every_recipe_raises_every_unit_above_its_start(name: str, layer: str) -> None:
    network, preset = small(), shortened(PRESETS[name], 100 if name in ("lucid", "maco") else 30)
    climb = climb_of(network, layer, preset)
    starts = preset.canvas.picture(preset.canvas.start(range(50), climb.size, climb.look), climb.size, climb.look)
    how, units = Normalized.of(network.preprocessing, CPU), list(range(climb.layer.units))

    def reached(pictures: Tensor) -> Tensor:
        """What the recipe is to raise, `[B, U]`: one position, of which the maximum stands, or the mean."""
        output = climb.plain(how(pictures.clamp(0, 1)))
        if output.dim() == 2:
            return output
        return output.amax((2, 3)) if preset.objective.one_position else output.mean((2, 3))

    pictures, _ = climb(units, units, 0, 0)
    higher = reached(pictures).diagonal() > reached(starts).mean(0)
    # lucid hands on blocked gradients in its first 16 steps only: one unit that is silent everywhere stays so
    assert int((~higher).sum()) <= (name == "lucid" and int((reached(starts).amax(0) == 0).sum()))


def test_deepdream_raises_the_norm_of_the_layer() -> None:
    network, preset = small(), PRESETS["deepdream"]
    climb = climb_of(network, "5", preset)
    start = preset.canvas.picture(preset.canvas.start([0, 1], climb.size, climb.look), climb.size, climb.look)
    pictures, _ = climb([0, 1], [0, 1], 0, 0)
    how, units = Normalized.of(network.preprocessing, CPU), torch.tensor([0, 1])
    assert (Norm()(climb.plain(how(pictures)), units) > 1.1 * Norm()(climb.plain(how(start)), units)).all()


@pytest.mark.parametrize("name", OURS)
def test_a_recipe_is_reproducible_and_independent_of_batch_mates(name: str) -> None:
    preset = shortened(PRESETS[name], 4)
    together = draw(small(), "3", [0, 1, 2, 3, 4], preset)
    for mates in ([4, 2], [1]):
        for drawn in draw(small(), "3", mates, preset):
            assert drawn.picture.tobytes() == together[drawn.unit].picture.tobytes()
            assert drawn.activation == together[drawn.unit].activation


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_recipe_draws_for_one_channel_and_for_three(name: str, channels: int) -> None:
    drawn = draw(small(channels), "3", [0], shortened(PRESETS[name], 2))[0]
    assert drawn.picture.shape[2] == 3
    assert np.isfinite(drawn.activation)


@pytest.mark.parametrize("canvas", [Pixels(0.1), TrainableInput(0.1), Fourier(0.1), Phase(), Details(0.1)])
def test_canvases_take_four_channels(canvas: object) -> None:
    look = Look((0.5,) * 4, (0.2,) * 4)
    parameters = canvas.start([0, 1], (9, 12), look)  # type: ignore[attr-defined]
    assert canvas.picture(parameters, (9, 12), look).shape == (2, 4, 9, 12)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", OURS)
def test_a_recipe_travels_and_says_what_it_is(name: str) -> None:
    preset = PRESETS[name]
    assert repr(pickle.loads(pickle.dumps(preset))) == repr(preset)
    assert preset.source and preset.summary


def test_a_network_of_one_input_size_sees_transformed_pictures_at_that_size() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 3))
    for drawn in draw(network_of(module, 16), "3", [0, 1, 2], shortened(PRESETS["lucid"], 20)):
        assert drawn.picture.shape == (16, 16, 3)
        assert drawn.activation > 0


def test_octaves_end_on_the_whole_canvas_and_begin_as_published() -> None:
    shares = [stage.canvas for stage in PRESETS["oygard-googlenet"].stages]
    assert shares == pytest.approx([1.05**-3, 1.05**-3, 1.05**-2, 1.05**-1, 1])
    shares = [stage.canvas for stage in PRESETS["oygard-class"].stages]
    assert shares == pytest.approx([1.2**-2, 1.2**-1, 1, 1])
    assert [stage.canvas for stage in PRESETS["deepdream"].stages] == pytest.approx([1.4**-3, 1.4**-2, 1.4**-1, 1])


# --- canvases


def test_a_trainable_input_is_a_dense_layer_fed_with_one() -> None:
    parameters = TrainableInput(0.1).start([5], (4, 6), LOOK)
    layer = nn.Linear(1, 3 * 4 * 6, bias=False)
    layer.weight.data = parameters[0]
    with torch.no_grad():
        assert torch.equal(TrainableInput(0.1).picture(parameters, (4, 6), LOOK)[0].flatten(), layer(torch.ones(1)))


@pytest.mark.parametrize("size", [(16, 16), (15, 22), (8, 13)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_fourier_canvas_inverts(size: tuple[int, int], channels: int) -> None:
    pictures, look = photographlike(2, *size, channels), Look((0.5,) * channels, (0.2,) * channels)
    canvas = Fourier(0.01)
    assert torch.allclose(canvas.picture(canvas.parameters(pictures), size, look), pictures, atol=1e-4)


def test_the_fourier_canvas_scales_a_wave_by_its_period() -> None:
    parameters = torch.zeros(2, 1, 16, 9, 2)
    parameters[0, 0, 0, 2, 0] = parameters[1, 0, 0, 4, 0] = 1
    slow, fast = torch.logit(Fourier(0.01).picture(parameters, (16, 16), Look((0.5,), (0.2,))))
    assert float(slow.max()) == pytest.approx(2 * float(fast.max()), rel=1e-4)
    # period 8, times the root of the area, twice over the area (a cosine), over lucid's four
    assert float(slow.max()) == pytest.approx(8 * 16 * 2 / 256 / 4, rel=1e-4)


def test_decorrelated_colours_have_the_covariance_of_the_matrix() -> None:
    basis = normalized_basis(3)
    assert basis is not None
    independent = torch.randn(3, 400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.cov(basis.double() @ independent)
    matrix = np.array(COLOUR_BASIS)
    expected = matrix @ matrix.T / np.linalg.norm(matrix, axis=0).max() ** 2
    assert np.allclose(found.numpy(), expected, atol=0.01)
    assert normalized_basis(1) is None


@pytest.mark.parametrize("size", [(16, 16), (15, 22)])
def test_the_phase_canvas_keeps_the_magnitudes_of_the_dataset(size: tuple[int, int]) -> None:
    pictures = 0.5 + 0.1 * (photographlike(4, *size) - 0.5)  # so faint that no colour leaves 0..1
    spectrum = mean_spectrum(pictures)
    look = dataclasses.replace(LOOK, spectrum=at_size(spectrum, size))
    drawn = Phase().picture(100 * Phase().start(range(5), size, look), size, look)
    assert np.allclose(np.abs(np.fft.rfft2(drawn.numpy())), at_size(spectrum, size).expand(5, -1, -1, -1), atol=1e-3)
    assert torch.allclose(drawn.mean((2, 3)), pictures.mean((0, 2, 3)).expand(5, 3), atol=0.02)


def test_a_spectrum_at_another_size_is_that_of_the_scaled_pictures() -> None:
    pictures = blur(4.0)(torch.rand(6, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
    smaller = mean_spectrum(zoomed(pictures, (16, 24)))
    found = at_size(mean_spectrum(pictures), (16, 24))
    strong = smaller > 0.5
    assert strong.sum() > 20
    assert torch.allclose(found[strong], smaller[strong], rtol=0.25)
    assert torch.equal(at_size(at_size(found, (64, 64)), (16, 24)), found) or torch.allclose(
        at_size(at_size(found, (64, 64)), (16, 24))[:, :8, :12], found[:, :8, :12], rtol=1e-5
    )


def test_without_a_dataset_the_phase_canvas_has_natural_colours() -> None:
    pictures = Phase().picture(Phase().start(range(60), (48, 48), LOOK), (48, 48), LOOK)
    assert torch.allclose(pictures.mean((0, 2, 3)), torch.tensor(LOOK.mean), atol=0.02)
    between = np.corrcoef(pictures.transpose(0, 1).flatten(1).numpy())
    matrix = np.array(COLOUR_BASIS)
    covariance = matrix @ matrix.T
    deviations = np.sqrt(np.diag(covariance))
    assert np.allclose(between, covariance / np.outer(deviations, deviations), atol=0.05)


def test_details_are_added_to_the_given_picture_at_every_size() -> None:
    given = photographlike(1, 32, 32)[0]
    canvas = dataclasses.replace(PRESETS["deepdream"].canvas, given=given)  # type: ignore[type-var]
    start = canvas.start([0, 1], (32, 32), LOOK)
    assert torch.allclose(canvas.picture(start, (32, 32), LOOK), given.expand(2, 3, 32, 32), atol=1e-6)
    smaller = canvas.picture(canvas.start([0], (16, 16), LOOK), (16, 16), LOOK)
    assert torch.allclose(smaller, zoomed(given[None], (16, 16)), atol=1e-6)
    far = canvas.picture(canvas.kept_valid(start + 7), (32, 32), LOOK)
    assert float(far.max()) <= 1 + 1e-6
    with pytest.raises(UserError, match="needs \\[1, H, W\\]"):
        canvas.start([0], (16, 16), Look((0.5,), (0.2,)))


def test_deepdream_leaves_what_it_is_given_recognizable() -> None:
    given = photographlike(1, 24, 24)[0]
    dream = PRESETS["deepdream"]
    preset = dataclasses.replace(dream, canvas=dataclasses.replace(dream.canvas, given=given))  # type: ignore[type-var]
    picture = draw(small(), "3", [0], preset)[0].picture.transpose(2, 0, 1) / 255
    assert np.corrcoef(picture.ravel(), given.numpy().ravel())[0, 1] > 0.5
    assert repr(preset) != repr(dataclasses.replace(dream, canvas=dataclasses.replace(dream.canvas, given=1 - given)))  # type: ignore[type-var]


# --- transforms


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 10.0), (0.9, -7.0), (1.1, 0.0), (1.06, 33.0)])
def test_a_turn_is_torchvisions_affine(scale: float, degrees: float) -> None:
    pictures = photographlike(2, 33, 48)
    expected = torchvision_functional.affine(
        pictures, degrees, [0, 0], scale, [0.0, 0.0], InterpolationMode.BILINEAR, fill=[0.0]
    )
    inside = (slice(None), slice(None), slice(9, -9), slice(9, -9))
    assert torch.allclose(turned(pictures, scale, degrees, 0.0)[inside], expected[inside], atol=1e-4)


def test_what_comes_in_from_outside_is_grey() -> None:
    white = torch.ones(1, 3, 40, 40)
    assert torch.allclose(turned(white, 0.5, 0.0, 0.3)[:, :, 0, 0], torch.tensor(0.3))
    padded = Pad(0.1, 0.3)(white, now())
    assert padded.shape == (1, 3, 48, 48)
    assert torch.equal(padded[:, :, 4:44, 4:44], white)
    assert torch.equal(padded[:, :, 0], torch.full((1, 3, 48), 0.3))


def test_random_cuts_are_windows_of_the_picture_everywhere() -> None:
    picture = torch.arange(100.0).view(1, 1, 10, 10)
    corners = {int(RandomCut(0.2)(picture, now(seed=seed))[0, 0, 0, 0]) for seed in range(300)}
    assert corners == {10 * row + column for row in range(3) for column in range(3)}
    assert RandomCut(0.2)(picture, now()).shape == (1, 1, 8, 8)


def test_normal_jitter_moves_by_what_a_larger_picture_leaves_free() -> None:
    row = torch.zeros(1, 1, 120, 120)
    row[0, 0, 60, 60] = 1
    places = [NormalJitter(1.2)(row, now(seed=seed))[0, 0].nonzero()[0] - 60 for seed in range(400)]
    offsets = torch.stack(places).float()  # the picture is 120 pixels, a crop 100
    assert int(offsets.abs().max()) == 10
    cut = np.random.default_rng(0).normal(0, 0.3 * 20, 100_000).clip(-10, 10)
    assert float(offsets.std()) == pytest.approx(cut.std(), rel=0.06)


def test_a_crop_is_a_part_of_the_picture_at_its_size() -> None:
    slope = torch.linspace(-1, 1, 64).expand(2, 1, 64, 64)
    crops = Crops(5, Line(0.25), spread=0.0)(slope, now())
    assert crops.shape == (10, 1, 64, 64)
    across = (crops[:, 0, 30, -1] - crops[:, 0, 30, 0]).view(5, 2)
    assert torch.allclose(across, torch.tensor(2 * 0.25), atol=0.01)
    assert torch.equal(crops[0::2], crops[1::2])  # both pictures are cropped alike
    assert len({round(float(value), 3) for value in crops[0::2, 0, 30, 30]}) == 5
    whole = Crops(1, Line(1.0), spread=0.0)(slope, now())
    assert torch.allclose(whole, slope, atol=1e-5)


def test_noise_is_that_of_the_step_for_all_pictures() -> None:
    noisy = Noise(Line(0.08, 0.05))(torch.zeros(3, 3, 60, 60), now(share=1.0))
    assert torch.equal(noisy[0], noisy[2])
    assert float(noisy.std()) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    "part", [Turn((0.9, 1.1), (5.0, -5.0)), RandomCut(0.3), NormalJitter(1.3), Crops(2, Line(0.4))]
)
def test_transforms_differ_by_step_and_not_by_picture(part: object) -> None:
    pictures = photographlike(1, 30, 30).expand(3, 3, 30, 30)
    moment = now()
    first, second = part(pictures, moment), part(pictures, moment)  # type: ignore[operator]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


# --- regularizers


def test_decay_has_its_closed_form() -> None:
    pictures = start = photographlike(2, 5, 6)
    for step in range(7):
        pictures = Decay(0.3)(pictures, now(step=step))
    mean = torch.tensor(LOOK.mean).view(1, 3, 1, 1)
    assert torch.allclose(pictures, mean + 0.7**7 * (start - mean), atol=1e-6)


def test_a_blur_comes_every_nth_step() -> None:
    pictures = photographlike(1, 20, 20)
    changed = [not torch.equal(Blur(Line(1.0), every=4)(pictures, now(step=step)), pictures) for step in range(8)]
    assert changed == [False, False, False, True] * 2


@pytest.mark.parametrize("percent", [0.0, 20.0, 50.0, 90.0, 100.0])
def test_percentiles_are_numpys_picture_by_picture(percent: float) -> None:
    values = torch.randn(3, 1, 17, 23, generator=torch.Generator().manual_seed(0))
    for one, below in zip(values, below_percentile(values, percent), strict=True):
        assert np.array_equal(below.numpy(), one.numpy() < np.percentile(one.numpy(), percent).astype(np.float32))


def test_pixels_of_a_small_norm_become_the_mean_colour() -> None:
    pictures = photographlike(2, 20, 20)
    mean = np.array(LOOK.mean, np.float32)[:, None, None]
    clipped = ClipSmall(50)(pictures, now()).numpy()
    for picture, found in zip(pictures.numpy(), clipped, strict=True):
        norms = np.linalg.norm(picture - mean, axis=0)
        assert np.allclose(found, np.where(norms < np.percentile(norms, 50), mean, picture))


def test_pixels_of_a_small_contribution_become_the_mean_colour() -> None:
    pictures, gradient = photographlike(2, 20, 20), torch.randn(2, 3, 20, 20)
    mean = np.array(LOOK.mean, np.float32)[:, None, None]
    clipped = ClipIdle(90)(pictures, now(gradient=gradient)).numpy()
    for picture, its, found in zip(pictures.numpy(), gradient.numpy(), clipped, strict=True):
        contribution = np.abs((its * (picture - mean)).sum(0))
        expected = np.where(contribution < np.percentile(contribution, 90), mean, picture)
        assert np.allclose(found, expected)


def test_pictures_are_developed_once_at_the_end() -> None:
    pictures = 0.3 + 0.01 * torch.randn(2, 3, 30, 30)
    assert torch.equal(Develop(0.1)(pictures, now(share=0.9)), pictures)
    developed = Develop(0.1)(pictures, now(share=1.0))
    assert torch.allclose(developed.mean((1, 2, 3)), torch.tensor(0.5), atol=1e-3)
    assert torch.allclose(developed.std((1, 2, 3)), torch.tensor(0.1), atol=2e-3)


# --- optimizers and schedules


@pytest.mark.parametrize("nesterov", [False, True])
def test_adam_is_torchs_for_every_picture_alone(nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(3, 2, 4, generator=generator) * torch.tensor([1e-3, 1.0, 1e3]).view(3, 1, 1)
    together = torch.zeros(3, 2, 4)
    step = Adam(nesterov=nesterov).begin(together)
    for _ in range(20):
        together = step(together, targets - together, 0.05, torch.zeros(3))
    kind = torch.optim.NAdam if nesterov else torch.optim.Adam
    for target, found in zip(targets, together, strict=True):
        alone = torch.zeros(2, 4, requires_grad=True)
        optimizer = kind([alone], lr=0.05)
        for _ in range(20):
            optimizer.zero_grad()
            (0.5 * (target - alone).square().sum()).backward()
            optimizer.step()
        assert torch.allclose(found, alone.detach(), atol=1e-6)


def test_a_steady_rate_is_that_of_the_steepest_gradient_so_far() -> None:
    gradients = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    step = Steady().begin(gradients)
    rms = math.sqrt(2)
    first = step(torch.zeros(2, 1, 2), gradients, 0.1, torch.zeros(2))
    assert torch.allclose(first, torch.tensor([[[0.2 / rms, 0.0]], [[0.0, 0.0]]]))
    flatter = step(torch.zeros(2, 1, 2), gradients / 4, 0.1, torch.zeros(2))
    assert torch.allclose(flatter, first / 4)  # a rate, not a length
    steeper = step(torch.zeros(2, 1, 2), gradients * 8, 0.1, torch.zeros(2))
    assert torch.allclose(steeper, first)


def test_progress_of_a_linear_unit_is_what_it_says() -> None:
    weights = torch.randn(2, 3, 4, 4) * torch.tensor([1.0, 50.0]).view(2, 1, 1, 1)
    pictures = torch.zeros(2, 3, 4, 4)
    step = Progress(0.02, 0.1).begin(pictures)
    end = 0.23 * weights.flatten(1).norm(dim=1) * math.sqrt(48)
    expected = torch.zeros(2)
    for _ in range(120):
        heights = (weights * pictures).sum((1, 2, 3))
        assert torch.allclose(heights, expected, rtol=1e-3, atol=1e-4)
        pictures = step(pictures, weights, 0.23, heights)
        expected = expected + torch.minimum(0.02 * end, 0.1 * (end - expected))
    assert torch.allclose(expected, end, rtol=0.01)
    assert torch.allclose(pictures.square().mean((1, 2, 3)).sqrt(), torch.tensor(0.23), rtol=0.01)


def test_schedules_begin_and_end_where_they_say() -> None:
    assert [Line(2.0, 1.0)(share) for share in (0, 0.5, 1)] == [2.0, 1.5, 1.0]
    assert Line(3.0)(0.7) == 3.0
    assert [Ratio(4.0, 1.0)(share) for share in (0, 0.5, 1)] == pytest.approx([4.0, 2.0, 1.0])


# --- objectives


def test_objectives_read_what_they_say() -> None:
    outputs, units = torch.randn(4, 5, 3, 4), torch.tensor([0, 2, 4, 2])
    maps = outputs[torch.arange(4), units]
    assert torch.equal(Centre()(outputs, units), maps[:, 1, 2])
    assert torch.allclose(Mean()(outputs, units), maps.mean((1, 2)))
    assert torch.allclose(Positions(((0, 0), (1, 1)))(outputs, units), (maps[:, 0, 0] + maps[:, 2, 3]) / 2)
    weights = torch.randn(5, 5)
    direction = torch.stack([(weights[unit, :, None, None] * map_).sum(0) for unit, map_ in zip(units, outputs)])  # noqa: B905
    assert torch.allclose(Direction(weights)(outputs, units), direction[:, 1, 2], atol=1e-5)
    assert torch.allclose(Direction(weights, Mean())(outputs, units), direction.mean((1, 2)), atol=1e-5)
    assert torch.allclose(Pair(3, 0.25)(outputs, units), 0.75 * maps[:, 1, 2] + 0.25 * outputs[:, 3, 1, 2])


def test_objectives_read_features_too() -> None:
    outputs, units = torch.randn(3, 5), torch.tensor([4, 0, 1])
    own = outputs[torch.arange(3), units]
    for objective in (Centre(), Mean(), Positions(((0, 0), (1, 1)))):
        assert torch.allclose(objective(outputs, units), own)
    assert torch.allclose(Direction(torch.eye(5))(outputs, units), own)


def test_objectives_add_up_and_multiply() -> None:
    outputs, units = torch.randn(4, 5, 3, 4), torch.tensor([0, 2, 4, 2])
    centre, mean = Centre()(outputs, units), Mean()(outputs, units)
    assert torch.allclose((Centre() + 2 * Mean())(outputs, units), centre + 2 * mean)
    assert torch.allclose((Centre() - Mean() * 0.5)(outputs, units), centre - 0.5 * mean)
    assert torch.allclose((Centre() * Mean())(outputs, units), centre * mean)
    assert torch.allclose((-Centre())(outputs, units), -centre)
    assert (Centre() + Pair(1)).one_position
    assert not (Centre() + Mean()).one_position


def test_diversity_compares_pictures_of_the_same_unit_only() -> None:
    outputs = torch.rand(4, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    outputs[1] = outputs[0]
    found = Diversity()(outputs, torch.tensor([7, 7, 3, 7]))
    grams = [(each.flatten(1) @ each.flatten(1).T).flatten().numpy() for each in outputs]
    alike = float(grams[0] @ grams[3] / np.linalg.norm(grams[0]) / np.linalg.norm(grams[3]))
    assert found.tolist() == pytest.approx([-1 - alike, -1 - alike, 0, -2 * alike], rel=1e-5)


def test_diversity_makes_pictures_of_a_unit_differ() -> None:
    alike = []
    for objective in (Mean(), Mean() + 0.5 * Diversity()):
        preset = dataclasses.replace(PRESETS["filter-max"], objective=objective)
        climb = climb_of(small(), "5", shortened(preset, 60))
        pictures, _ = climb([1, 1, 1], [0, 1, 2], 0, 0)
        outputs = climb.plain(climb.normalized(pictures))
        alike.append(-Diversity()(outputs, torch.tensor([1, 1, 1])).sum())
    assert alike[1] < alike[0]


def test_a_direction_is_drawn_and_measured_as_one() -> None:
    weights = torch.randn(8, 6, generator=torch.Generator().manual_seed(4))
    preset = dataclasses.replace(shortened(PRESETS["oygard-vgg"], 30), objective=Direction(weights))
    climb = climb_of(small(), "5", preset)
    pictures, reached = climb([0, 7], [1, 2], 0, 0)
    rounded = torch.from_numpy(to_bytes(pictures)).permute(0, 3, 1, 2) / 255
    output = climb.plain(climb.normalized(rounded))
    for row, number in ((0, 0), (7, 1)):
        value = (weights[row, :, None, None] * output[number]).sum(0).max()
        assert float(reached[number, row]) == pytest.approx(float(value), rel=1e-4)
