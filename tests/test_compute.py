"""Running a network: lanes, precisions and compilation change speed, and only what they say they change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from torch import nn

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.progress import Silent
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings, TappedNetwork
from actmine.pipeline.scanning import compiling
from actmine.pipeline.scanning.compiling import decide, operations
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import picture

CPU = torch.device("cpu")
HOW = Preprocessing.usual(72, (64, 64))


def tapped(name: str = "squeezenet1_1") -> tuple[nn.Module, TappedNetwork]:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None).eval()
    traced = Traced(module, (3, 64, 64))
    return module, TappedNetwork(traced, traced.unit_bearing())


def batches(images: int, size: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (images, 64, 64, 3), dtype=np.uint8)
    return [pixels[at : at + size] for at in range(0, images, size)]


def read(runner: Runner, parts: list[np.ndarray]) -> Readings:
    found = [readings for _, readings in runner.map(parts, lambda part: (part, part))]
    assert all(readings is not None for readings in found)
    return Readings(
        torch.cat([readings.maximum for readings in found if readings]),
        torch.cat([readings.position for readings in found if readings]),
    )


def test_any_number_of_lanes_gives_the_same_bits_in_the_same_order():
    parts = batches(70, 16)
    _, network = tapped()
    one, four = (read(Runner(network, HOW, Compute(CPU), threads), parts) for threads in (1, 4))
    assert torch.equal(one.maximum, four.maximum) and torch.equal(one.position, four.position)
    with torch.inference_mode():
        plain = [network(Normalize(HOW, CPU)(torch.from_numpy(part))) for part in parts]
    assert torch.equal(torch.cat([readings.maximum for readings in plain]), one.maximum)


def test_whoever_takes_the_readings_has_its_threads_back_afterwards():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        read(Runner(tapped()[1], HOW, Compute(CPU), 2), batches(20, 16))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_batch_without_images_has_no_readings():
    runner = Runner(tapped()[1], HOW, Compute(CPU))
    found = [
        readings
        for _, readings in runner.map([*batches(3, 2), np.empty((0, 64, 64, 3), np.uint8)], lambda part: (part, part))
    ]
    assert [readings is None for readings in found] == [False, False, True]


@pytest.mark.parametrize("name", ["squeezenet1_1", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_a_compiled_network_reads_the_same_up_to_rounding_whatever_the_size_of_the_batch(name):
    parts = batches(40, 16)  # the last one is not full
    eager = read(Runner(tapped(name)[1], HOW, Compute(CPU), 2), parts)
    compiled = read(Runner(tapped(name)[1], HOW, Compute(CPU, compiled=True), 2), parts)
    torch.testing.assert_close(compiled.maximum, eager.maximum, rtol=1e-4, atol=1e-4)
    assert (compiled.position == eager.position).float().mean() > 0.999
    alone = read(Runner(tapped(name)[1], HOW, Compute(CPU, compiled=True), 2), [parts[0][:5]])
    assert torch.equal(alone.maximum, compiled.maximum[:5])


def test_bfloat16_is_near_and_leaves_the_network_as_it_was():
    parts = batches(16, 16)
    module, network = tapped()
    exact = read(Runner(network, HOW, Compute(CPU)), parts)
    near = read(Runner(network, HOW, Compute(CPU, precision="bf16")), parts)
    assert near.maximum.dtype is torch.float32
    error = (near.maximum - exact.maximum).abs() / exact.maximum.abs().clamp(min=1e-2)
    assert error.median() < 0.02 and not torch.equal(near.maximum, exact.maximum)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


class Untouchable(nn.Module):
    """Runs eagerly; the compiler may not look inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return opaque(self.first(images))


@torch.fx.wrap
def opaque(images: torch.Tensor) -> torch.Tensor:
    torch._dynamo.graph_break()
    return images.relu()


def test_what_cannot_be_compiled_is_said_in_a_sentence_and_auto_goes_on_without(monkeypatch):
    module = Untouchable().eval()
    traced = Traced(module, (3, 64, 64))
    network = TappedNetwork(traced, traced.choose("opaque"))
    with pytest.raises(UserError, match=r"cannot be compiled .*COMPILE=0"):
        Runner(network, HOW, Compute(CPU, compiled=True))
    said: list[str] = []
    progress = Silent()
    monkeypatch.setattr(Silent, "say", lambda self, sentence: said.append(sentence))
    how = decide("auto", network, HOW, Compute(CPU), 10**12, None, progress, here=True)
    assert not how.compiled
    assert len(said) == 2 and "worth it" in said[0] and "cannot be compiled" in said[1] and "\n" not in said[1]


def test_auto_compiles_when_there_is_enough_to_do_and_goes_on_as_the_run_was_begun():
    _, network = tapped()
    each = operations(network, HOW)
    enough = int(compiling.PAYS_FROM["cpu"] / each) + 1

    def decided(images: int, begun: dict[str, object] | None = None, word: str = "auto") -> bool:
        return decide(word, network, HOW, Compute(CPU), images, begun, Silent(), here=False).compiled

    assert decided(enough) and not decided(enough // 2) and not decided(0)
    assert decided(1, {"compiled": True}) and not decided(enough, {"compiled": False})
    assert decided(1, word="1") and not decided(enough, word="0")
    with pytest.raises(UserError, match="COMPILE='yes' is auto, 0 or 1"):
        decided(1, word="yes")


def test_operations_are_those_that_are_published():
    module = torchvision.models.resnet18(weights=None).eval()
    traced = Traced(module, (3, 224, 224))
    network = TappedNetwork(traced, traced.unit_bearing())
    published = torchvision.models.ResNet18_Weights.DEFAULT.meta["_ops"] * 1e9 * 2  # multiply-adds
    assert operations(network, Preprocessing.usual(256, (224, 224))) == pytest.approx(published, rel=0.01)


def mined(run: Path, folder: Path, **settings: object) -> pd.DataFrame:
    network: Network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.*,block5.*")
    mine(
        find_dataset(str(folder)),
        network,
        traced,
        layers,
        run,
        CPU,
        MineSettings(StatisticsOptions(topk=5), **settings),
    )  # type: ignore[arg-type]
    return pd.read_parquet(run / "exemplars", columns=["layer", "unit", "rank", "activation", "image_id", "y", "x"])


def test_a_compiled_and_a_bfloat16_run_are_recorded_as_such_and_not_mixed_with_others(tmp_path):
    for number in range(24):
        path = tmp_path / "pictures" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        picture(seed=number).save(path)
    exact = mined(tmp_path / "exact", tmp_path / "pictures")
    compiled = mined(tmp_path / "compiled", tmp_path / "pictures", compile="1")
    again = mined(tmp_path / "compiled", tmp_path / "pictures")  # auto: as it was begun
    half = mined(tmp_path / "half", tmp_path / "pictures", precision="bf16")
    np.testing.assert_allclose(compiled["activation"], exact["activation"], rtol=1e-4, atol=1e-5)
    assert again.equals(compiled)
    np.testing.assert_allclose(half["activation"], exact["activation"], rtol=0.1, atol=0.05)
    record = json.loads((tmp_path / "half" / "run.json").read_bytes())
    assert (record["precision"], record["compiled"], record["batch_size"]) == ("bf16", False, 16)
    with pytest.raises(UserError, match='precision was "bf16", now "fp32"'):
        mined(tmp_path / "half", tmp_path / "pictures")
    with pytest.raises(UserError, match="compiled was true, now false"):
        mined(tmp_path / "compiled", tmp_path / "pictures", compile="0")


def test_a_precision_that_a_device_does_not_have_is_a_sentence(monkeypatch):
    def refuse(self: nn.Module, pixels: torch.Tensor) -> None:
        raise RuntimeError("\"slow_conv2d_cpu\" not implemented for 'Half'")

    monkeypatch.setattr("actmine.pipeline.scanning.compute.Whole.forward", refuse)
    with pytest.raises(UserError, match=r"PRECISION=fp16 cannot be computed on cpu .*not implemented.*PRECISION=fp32"):
        Runner(tapped()[1], HOW, replace(Compute(CPU), precision="fp16"))
