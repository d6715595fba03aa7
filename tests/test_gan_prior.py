"""gan-prior: pictures out of a generator, codes within their bounds, a generator of one's own said by name."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.ascent.ascend import draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.code import Codes, Generator, Shrink
from actmine.pipeline.ascent.generators import load_generator
from actmine.pipeline.ascent.presets import PRESETS, find_preset
from actmine.pipeline.ascent.presets.gan_prior import with_generator
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from tests.generating import CODES, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(demo_dataset, tmp_path_factory) -> Path:
    """Of a generator trained on the demo's images."""
    return train(demo_dataset, tmp_path_factory.mktemp("generator") / "linear.safetensors")


@pytest.fixture(scope="module")
def demo() -> Network:
    return load_network("demo")


def climb_of(network: Network, preset: Preset, name: str = "block5.relu") -> Climb:
    traced = Traced(network.module, network.input_shape)
    layer = traced.choose(name)[0]
    return Climb(
        network.preprocessing, traced, layer, receptive_fields(traced, [layer])[name], preset, CPU
    )  # fmt: skip


def shortened(preset: Preset, steps: int) -> Preset:
    return dataclasses.replace(preset, stages=tuple(dataclasses.replace(stage, steps=steps) for stage in preset.stages))


def kept(climb: Climb) -> list[torch.Tensor]:
    """The codes of every step, noted as the canvas is asked to keep them valid."""
    seen: list[torch.Tensor] = []

    class Noting(Codes):
        def kept_valid(self, parameters: torch.Tensor) -> torch.Tensor:
            seen.append(Codes.kept_valid(self, parameters))
            return seen[-1]

    climb.preset = dataclasses.replace(
        climb.preset, canvas=Noting(climb.preset.canvas.noise, climb.preset.canvas.generator)
    )
    return seen


def test_units_rise_above_what_random_codes_give_and_pictures_are_the_generators_own(weights, demo):
    generator = load_generator(f"tests.generating:linear, {weights}")
    climb = climb_of(demo, with_generator(shortened(find_preset("gan-prior"), 40), generator))
    assert climb.size == (96, 96)
    units = [0, 7, 20, 33]
    drawn = draw(climb, units, 4, 0)
    before = climb.measure(climb.preset.canvas.picture(
        climb.preset.canvas.start(range(32), climb.size, climb.look), climb.size, climb.look
    ))  # fmt: skip
    for picture in drawn:
        assert picture.activation > before[:, picture.unit].max()
        pixels = torch.from_numpy(picture.picture).permute(2, 0, 1).float() / 255
        small = torch.nn.functional.interpolate(pixels[None], (24, 24), mode="bilinear", antialias=True)
        space = generator.module.components
        inside = (small.flatten() - generator.module.middle) @ torch.linalg.pinv(space) @ space
        left = small.flatten() - generator.module.middle - inside
        assert left.square().mean() < 0.15 * (small.flatten() - generator.module.middle).square().mean()


@pytest.mark.parametrize("factory", ["linear", "rectified"])
def test_codes_never_leave_their_bounds(factory, weights, demo):
    generator = load_generator(f"tests.generating:{factory},{weights}")
    climb = climb_of(demo, with_generator(shortened(find_preset("gan-prior"), 12), generator), "block2.relu")
    seen = kept(climb)
    climb([1, 2], [3, 4], 0, 0)
    assert len(seen) == 13
    low, high = (-3.0, 3.0) if factory == "linear" else (0.0, generator.mean + 3 * generator.std)
    for codes in seen:
        assert codes.shape == (2, CODES)
        assert (codes >= low).all() and (codes <= high).all()


def test_a_unit_has_its_own_code_whatever_its_batch_mates(weights, demo):
    generator = load_generator(f"tests.generating:linear,{weights}")
    climb = climb_of(demo, with_generator(shortened(find_preset("gan-prior"), 5), generator), "block2.relu")
    forth, _ = climb([1, 2, 3], [4, 5, 6], 0, 0)
    back, _ = climb([3, 2, 1], [6, 5, 4], 0, 0)
    torch.testing.assert_close(forth, back.flip(0), atol=1e-4, rtol=0)


def test_the_preset_names_its_generator_by_its_numbers_and_travels_in_a_pickle(weights):
    made = [load_generator(f"tests.generating:linear,{weights}") for _ in range(2)]
    blank = load_generator("tests.generating:linear")
    presets = [with_generator(find_preset("gan-prior"), generator) for generator in (*made, blank)]
    assert repr(presets[0]) == repr(presets[1]) != repr(presets[2])
    there: Preset = pickle.loads(pickle.dumps(presets[0]))
    assert repr(there) == repr(presets[0])
    assert isinstance(there.canvas, Codes) and isinstance(there.canvas.generator, Generator)
    codes = torch.ones(1, CODES)
    assert torch.equal(there.canvas.generator.module(codes), made[0].module(codes))
    assert with_generator(PRESETS["default"], blank) is PRESETS["default"]


def test_codes_shrink_by_a_hundredth_a_step():
    assert torch.equal(Shrink(0.99)(torch.tensor([[2.0, -4.0]]), None), torch.tensor([[1.98, -3.96]]))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "Say GENERATOR=package.module:factory"),
        ("tests.generating", "Write package.module:factory"),
        ("tests.generating:lineal", "Did you mean linear"),
        ("tests.generating:codeless", "without the attribute `codes`"),
        ("tests.generating:flat", r"not a picture \[1, C, H, W\]"),
        ("tests.generating:unbounded", "colours from 3.00 to 3.00"),
        ("tests.generating:linear,nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_generators_that_cannot_be_used_are_refused_with_what_to_do(spec, said):
    with pytest.raises(UserError, match=said):
        load_generator(spec)


def test_without_a_generator_or_with_one_of_other_channels_nothing_is_drawn(demo):
    with pytest.raises(UserError, match="Say GENERATOR="):
        climb_of(demo, find_preset("gan-prior"))([0], [0], 0, 0)
    other = climb_of(demo, with_generator(find_preset("gan-prior"), load_generator("tests.generating:grey")))
    with pytest.raises(UserError, match="pictures of 1 channels; this network takes 3"):
        other([0], [0], 0, 0)


@pytest.mark.parametrize("words", [["mine", "--dataset", "demo"], ["visualize"]])
def test_commands_ask_for_the_generator_before_anything_is_read(words, tmp_path):
    command = [*words, "--run", str(tmp_path / "run"), "--preset", "gan-prior"]
    done = CliRunner().invoke(application([words[0]]), command)
    assert done.exit_code == 1
    assert "Say GENERATOR=package.module:factory" in done.output
    assert not (tmp_path / "run").exists()
