"""On an NVIDIA GPU: right against the CPU's float32, exact against a sort of what the GPU itself gives, without waits.

`make test-gpu` runs these; elsewhere they skip. With ACTMINE_REHEARSE=1 what needs no GPU of them runs on a CPU.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from torch import nn

from actmine.pipeline.ascent.ascend import draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.accumulators import Feed, new_accumulators
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.buckets import count_positions
from actmine.pipeline.readings.reductions import read_map
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings, TappedNetwork
from actmine.pipeline.readings.topk import EMPTY
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.stages.check_crops import check_crops
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.words import EVERY, SAMPLED
from tests.making import jpeg, write_folder

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
HOW = Preprocessing.usual(72, (64, 64))
pytestmark = pytest.mark.skipif(not GPU and not os.environ.get("ACTMINE_REHEARSE"), reason="needs an NVIDIA GPU")
SHAPES = [(5, 70, 13, 9), (4, 3, 1, 197), (1, 1, 1, 1), *([(3, 64, 112, 112), (2, 1000, 7, 7)] if GPU else [])]
on_a_gpu = pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU")


@pytest.fixture(autouse=True)
def exactly() -> None:
    compute_exactly()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{number % 3}/{number:03d}.jpg": jpeg(number, 90, 80) for number in range(150)}
    return write_folder(tmp_path_factory.mktemp("images"), files)


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet18(weights=None).eval()


def pixels(images: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (images, side, side, 3), dtype=np.uint8)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Relative to the largest."""
    return float((one.cpu() - other.cpu()).abs().max()) <= tolerance * float(other.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_one_reading_of_a_map_finds_what_the_cpu_finds(shape, dtype):
    from actmine.pipeline.readings.tap_operator import read_once

    coarse = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    fine = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    marks = torch.arange(shape[0]) % 2
    draws = torch.arange(shape[0]) * 1_000_003
    for plain in (coarse, fine):
        for maps in (plain, plain.to(memory_format=torch.channels_last), plain.transpose(2, 3)):
            there = maps.to(DEVICE)
            assert there.stride() == maps.stride() or not GPU
            maximum, position, minimum, lowest, counts = read_once(there, marks.to(DEVICE), True, False, True)
            wanted, place = read_map(maps.contiguous())
            assert torch.equal(maximum.cpu(), wanted) and torch.equal(position.cpu().long(), place)
            wanted, place = read_map(-maps.contiguous())
            assert torch.equal(minimum.cpu(), -wanted) and torch.equal(lowest.cpu().long(), place)
            assert torch.equal(counts.cpu(), count_positions(maps, marks))
            _, _, sampled = read_once(there, draws.to(DEVICE), False, True)
            flat = maps.flatten(2)
            assert torch.equal(sampled.cpu(), flat[torch.arange(shape[0]), :, draws % flat.shape[2]].float())


def test_infinities_and_nan_are_read_as_elsewhere():
    from actmine.pipeline.readings.tap_operator import read_once

    maps = torch.full((1, 4, 6, 6), -torch.inf)
    maps[0, 1, 2, 1] = torch.inf
    maps[0, 2, 0, 3] = torch.nan
    maps[0, 3] = -0.0
    maps[0, 3, 1, 1] = 0.0
    for there in (maps.to(DEVICE), maps.to(DEVICE).to(memory_format=torch.channels_last)):
        maximum, position = (found.cpu() for found in read_once(there))
        assert maximum[0, 0] == -torch.inf and position[0, 0] == 0
        assert maximum[0, 1] == torch.inf and position[0, 1] == 2 * 6 + 1
        assert maximum[0, 2].isnan() and 0 <= position[0, 2] < 36
        assert maximum[0, 3] == 0 and position[0, 3] == 0


@pytest.mark.parametrize("k", [1, 7, 50, 150, 300])
def test_all_that_is_kept_of_readings_is_what_the_cpu_keeps(k):
    keep = StatisticsOptions(k, direction="both", bands=(50.0,), positions=SAMPLED)
    made = {device: new_accumulators(70, keep, torch.device(device)) for device in ("cpu", DEVICE.type)}
    draw = torch.Generator().manual_seed(0)
    for start in (0, 300, 600):
        values = torch.randint(-8, 9, (300, 70), generator=draw).float() / 4
        values[values == 1.75] = torch.nan
        place = torch.randint(0, 49, (300, 70), generator=draw, dtype=torch.int32)
        readings = Readings(values, place, -values, place, values)
        labels = [(number * 7) % 5 - 1 for number in range(300)]
        for device, accumulators in made.items():
            feed = Feed(accumulators)
            there = Readings(*(None if part is None else part.to(device) for part in
                               (values, place, readings.minimum, place, values)))  # fmt: skip
            feed(there, BatchIndex.of(torch.arange(start, start + 300, device=device), labels=labels))
            feed.settle()
    for name, accumulator in made["cpu"].items():
        for part, wanted in accumulator.state().items():
            found = made[DEVICE.type][name].state()[part].cpu()
            assert found.dtype == wanted.dtype and found.shape == wanted.shape, (name, part)
            if part == "positions" and "keys" in accumulator.state():
                there = accumulator.state()["keys"] != EMPTY
                found, wanted = found[there], wanted[there]
            if wanted.is_floating_point():
                torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4, equal_nan=True)
            else:
                assert torch.equal(found, wanted), (name, part)


@pytest.mark.parametrize("model", ["resnet18", "vit_b_32"])
def test_a_network_reads_on_the_gpu_as_on_the_cpu(model):
    torch.manual_seed(0)
    side = 224 if model == "vit_b_32" else 64
    module = torchvision.models.get_model(model, weights=None).eval()
    traced = Traced(module, (3, side, side))
    how = Preprocessing.usual(None, (side, side))
    found = {}
    for device in ("cpu", DEVICE.type):
        tapped = TappedNetwork(traced, traced.unit_bearing(), minima=True, positions=EVERY)
        runner = Runner(tapped, how, Compute(torch.device(device), batch_size=4))
        found[device] = runner(pixels(3, side))
        if device == "cuda":
            assert runner.captured, "every network of torchvision can be captured"
    there, here = found[DEVICE.type], found["cpu"]
    assert close(there.maximum, here.maximum, 2e-4) and close(there.minimum, here.minimum, 2e-4)
    assert (there.position.cpu() == here.position).float().mean() > 0.98
    assert torch.equal(there.counted.sum(1).cpu(), here.counted.sum(1))
    assert float((there.counted.cpu() - here.counted).abs().sum()) < 0.02 * float(here.counted.sum())


@on_a_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_captured_network_gives_the_same_bits_and_a_batch_depends_on_no_other_image(precision, compiled):
    traced = Traced(resnet(), (3, 64, 64))
    tapped = TappedNetwork(traced, traced.unit_bearing())
    runner = Runner(tapped, HOW, Compute(DEVICE, precision, compiled, 8))
    assert runner.captured
    some = pixels(8)
    whole = runner(some)
    captured, runner._network = runner._network, runner._network.network
    plain = runner(some)
    runner._network = captured
    assert torch.equal(whole.maximum, plain.maximum) and torch.equal(whole.position, plain.position)
    for images in (1, 5):
        part = runner(some[:images])
        assert torch.equal(part.maximum, whole.maximum[:images])
    exact = Runner(TappedNetwork(traced, traced.unit_bearing()), HOW, Compute(torch.device("cpu"), batch_size=8))(some)
    assert close(whole.maximum, exact.maximum, {"fp32": 2e-4, "bf16": 0.06, "fp16": 0.01}[precision])


@on_a_gpu
def test_nothing_in_the_loop_waits_for_the_gpu():
    traced = Traced(resnet(), (3, 64, 64))
    tapped = TappedNetwork(traced, traced.unit_bearing(), True, SAMPLED)
    runner = Runner(tapped, HOW, Compute(DEVICE, batch_size=16), 2)
    keep = StatisticsOptions(9, direction="both", bands=(50.0,), positions=SAMPLED)
    some = pixels(16)

    def loop(batches: int) -> Feed:
        feed = Feed(new_accumulators(runner.units, keep, DEVICE))
        draws = torch.arange(16)
        for start, readings in runner.map(range(batches), lambda start: (start, some), lambda start: draws):
            numbers = torch.arange(16 * start, 16 * start + 16).pin_memory().to(DEVICE, non_blocking=True)
            feed(readings, BatchIndex.of(numbers, labels=[number % 4 - 1 for number in range(16)]))
        feed.settle()
        return feed

    loop(20)  # tables and kernels that are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop(40)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def mined(folder: Path, run: Path, device: torch.device, **how: object) -> Path:
    network = load_network("squeezenet1_1", "random")
    traced = Traced(network.module, network.input_shape)
    keep = StatisticsOptions(9, maxima="float32", positions=SAMPLED)
    settings = MineSettings(keep, batch_size=32, **how)
    mine(find_dataset(str(folder)), network, traced, traced.choose("features.*"), run, device, settings)
    return run


def tables(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    compute_exactly()
    return mined(folder, tmp_path_factory.mktemp("gpu") / "run", DEVICE)


def test_a_run_is_exact_against_a_sort_of_its_own_activations(run):
    images = pd.read_parquet(run / "maxima" / "images.parquet")
    matrix = np.concatenate([np.load(file) for file in sorted((run / "maxima").glob("*.npy"))])
    layers = pd.read_parquet(run / "layers.parquet")
    first = 0
    for layer in layers.itertuples():
        rows = pd.read_parquet(
            run / "exemplars",
            filters=[("layer", "==", layer.layer)],
            columns=["unit", "rank", "activation", "image_id"],
        )
        for unit in range(0, layer.units, 17):
            column = matrix[:, first + unit]
            order = np.lexsort((images.image_id, -column))[:9]
            its = rows[rows.unit == unit].sort_values("rank")
            assert its.image_id.tolist() == images.image_id.to_numpy()[order].tolist()
            assert its.activation.to_numpy().tolist() == column[order].tolist()
        first += layer.units


def test_a_run_agrees_with_the_cpu_and_repeats_itself(run, folder, tmp_path):
    again = mined(folder, tmp_path / "again", DEVICE, workers=2)
    assert tables(again) == tables(run)
    cpu = mined(folder, tmp_path / "cpu", torch.device("cpu"))
    for name in ("units", "exemplars"):
        one, other = (pd.read_parquet(path / name) for path in (run, cpu))
        assert np.allclose(one.filter(like="activation_m"), other.filter(like="activation_m"), rtol=1e-3, atol=1e-4)
        if name == "exemplars":
            assert (one.image_id == other.image_id).mean() > 0.97 and (one.left == other.left).mean() > 0.95


def test_an_interrupted_run_ends_with_the_same_bytes(run, folder, tmp_path, monkeypatch):
    from actmine.pipeline.scanning.ledger import Ledger

    target, commit = tmp_path / "run", Ledger.commit
    found = find_dataset(str(folder))
    parts = [type(found.shards[0])(number, str(folder), found.shards[0].files[at : at + 50], found.shards[0].classes)
             for number, at in enumerate((0, 50, 100))]  # fmt: skip
    monkeypatch.setattr(
        "tests.test_gpu.find_dataset",
        lambda word: type(found)(**{**{name: getattr(found, name) for name in found.__slots__}, "shards": parts}),
    )
    whole = mined(folder, tmp_path / "whole", DEVICE)

    def once(self: Ledger, state: object) -> None:
        commit(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "commit", once)
    with pytest.raises(KeyboardInterrupt):
        mined(folder, target, DEVICE)
    monkeypatch.setattr(Ledger, "commit", commit)
    assert 1 <= len(list((target / "state").glob("block-*"))) < 3, "another commit may be under way"
    assert tables(mined(folder, target, DEVICE)) == tables(whole)


def test_focus_and_crop_checks_agree_with_the_cpu(run, folder, tmp_path):
    found = {}
    for number, device in enumerate(("cpu", DEVICE.type)):
        copied = shutil.copytree(run, tmp_path / str(number))
        network = load_network("squeezenet1_1", "random")
        traced = Traced(network.module, network.input_shape)
        chosen = traced.choose("features.12.*,features.4.*")
        shards, engine = find_dataset(str(folder)).by_number, LocalEngine(torch.device(device))
        focus_run(copied, shards, network, traced, chosen, engine, most=2)
        check_crops(copied, network, traced, chosen, engine, most=2)
        found[device] = pd.read_parquet(copied / "exemplars", filters=[("rank", "<", 2)])
    one, other = found[DEVICE.type], found["cpu"]
    both = one.crop_activation.notna() & other.crop_activation.notna()
    assert both.any() and np.allclose(one.crop_activation[both], other.crop_activation[both], rtol=1e-2, atol=1e-3)
    measured = other.focus_left.notna()
    assert (one.focus_left.notna() == measured).all()
    assert (np.abs(one.focus_left[measured] - other.focus_left[measured]) <= 2).mean() > 0.95


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_ascent_reaches_on_the_gpu_what_it_reaches_on_the_cpu(precision):
    network = load_network("squeezenet1_1", "random")
    traced = Traced(network.module, network.input_shape)
    (layer,) = traced.choose("features.6.expand3x3_activation")
    field = receptive_fields(traced, [layer])[layer.name]
    reached = {}
    for device in ("cpu", DEVICE.type):
        climb = Climb(network.preprocessing, traced, layer, field, find_preset("default"), torch.device(device))
        climb.climbs_in = precision
        reached[device] = np.array([found.activation for found in draw(climb, list(range(12)), 12, 0)])
    assert np.median(reached[DEVICE.type] / reached["cpu"]) > 0.97


@on_a_gpu
def test_a_batch_that_does_not_fit_ends_in_a_sentence():
    traced = Traced(torchvision.models.vgg16(weights=None).eval(), (3, 224, 224))
    tapped = TappedNetwork(traced, traced.choose("features.*"))
    with pytest.raises(UserError, match=r"16384 images does not fit in the GPU's memory\. Say --batch-size 8192"):
        Runner(tapped, Preprocessing.usual(256, (224, 224)), Compute(DEVICE, batch_size=16384))
    torch.cuda.empty_cache()


@on_a_gpu
def test_memory_stays_below_its_bound():
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    traced = Traced(torchvision.models.resnet50(weights=None).eval(), (3, 224, 224))
    runner = Runner(
        TappedNetwork(traced, traced.unit_bearing()),
        Preprocessing.usual(256, (224, 224)),
        Compute(DEVICE, "bf16", batch_size=256),
    )
    feed = Feed(new_accumulators(runner.units, StatisticsOptions(50), DEVICE))
    for start in range(4):
        feed(
            runner(pixels(256, 224)),
            BatchIndex.of(torch.arange(256, device=DEVICE) + 256 * start, labels=list(range(256))),
        )
    feed.settle()
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() < 8 << 30
