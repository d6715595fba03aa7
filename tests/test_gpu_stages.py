"""Stages behind the scan on an NVIDIA GPU against the CPU's float32; and a GPU's memory that is full.

`make test-gpu` runs these, too; elsewhere they skip. With ACTMINE_REHEARSE=1 what needs no GPU of them runs on a CPU.
"""

from __future__ import annotations

import gc
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import actmine
from actmine.pipeline.activation_atlas.objective import Aligned
from actmine.pipeline.activation_atlas.positions import DrawnPositions
from actmine.pipeline.ascent.ascend import draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.dictionaries.dictionary import Dictionary, KLargest, Thresholded
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.dictionary_layers import attach, latents_of, of_objects
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.run import open_run
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.mining import Mining
from actmine.pipeline.stages.score import score_run
from actmine.pipeline.stages.train_dictionary import TrainingSettings, train_dictionary
from actmine.pipeline.stages.views import view_run
from actmine.pipeline.words import EVERY, SAMPLED
from tests.making import encoded, picture, write_folder

GPU = torch.cuda.is_available()
CPU, DEVICE = torch.device("cpu"), torch.device("cuda" if GPU else "cpu")
pytestmark = pytest.mark.skipif(not GPU and not os.environ.get("ACTMINE_REHEARSE"), reason="needs an NVIDIA GPU")
on_a_gpu = pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU")
LAYERS, IMAGES, LATENTS = "block2.relu,block5.relu,classifier", 60, 96


@pytest.fixture(autouse=True)
def exactly() -> None:
    compute_exactly()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{n % 3}/{n:02d}.png": encoded(picture(150, 120, n), "PNG") for n in range(IMAGES)}
    return write_folder(tmp_path_factory.mktemp("stages") / "images", files)


def dictionaries(width: int) -> dict[str, Dictionary]:
    """Of random directions that can be made vectors again."""
    generator = torch.Generator().manual_seed(3)
    encoder, bias = torch.randn(width, LATENTS, generator=generator), torch.randn(LATENTS, generator=generator) / 9
    rest = bias, torch.zeros(width), encoder.t().contiguous() / 9, torch.zeros(width)
    above = torch.rand(LATENTS, generator=generator)
    return {"block5.relu:best": KLargest(encoder, 5, *rest), "block5.relu:above": Thresholded(encoder, above, *rest)}


def demo() -> tuple[Network, Traced]:
    network = load_network("demo")
    traced = network.traced()
    (layer,) = traced.choose("block5.relu")
    attach(traced, of_objects(dictionaries(layer.units)))
    return network, traced


@pytest.fixture(scope="module")
def mined_on(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Network, Traced]:
    """A run of the device and one of the CPU, by the same network one after the other, and that network."""
    compute_exactly()
    network, traced = demo()
    layers = [*traced.choose(LAYERS), *traced.latent_layers]
    keep = StatisticsOptions(6, "both", bands=(5.0,), band_images=12)
    how = MineSettings(keep, 16, maps=4, least_explained=-math.inf)  # random directions explain nothing
    runs = {}
    for name, device in (("device", DEVICE), ("cpu", CPU)):
        runs[name] = tmp_path_factory.mktemp(name) / "run"
        mine(find_dataset(str(folder)), network, traced, layers, runs[name], device, how)
    return runs, network, traced


@pytest.mark.parametrize("positions", [SAMPLED, EVERY])
def test_positions_are_read_in_bf16_too(positions):
    network, traced = demo()
    side = network.preprocessing.size[0]
    pixels = np.random.default_rng(0).integers(0, 256, (8, side, side, 3), dtype=np.uint8)
    found = []
    for device, precision in ((DEVICE, "bf16"), (CPU, "fp32")):
        tapped = TappedNetwork(traced, traced.choose(LAYERS), positions=positions)
        runner = Runner(tapped, network.preprocessing, Compute(device, precision, batch_size=8))
        draws = torch.arange(8) * 1_000_003
        found.append(runner(pixels, draws if positions == SAMPLED else None))
    one, other = found
    if positions == SAMPLED:
        assert float((one.sampled.cpu() - other.sampled).abs().max()) < 0.06 * float(other.sampled.abs().max())
    else:
        assert torch.equal(one.counted.sum(1).cpu(), other.counted.sum(1)) and int(other.counted.sum()) > 0


def both(mined_on: tuple[dict[str, Path], Network, Traced], table: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    runs = mined_on[0]
    return pd.read_parquet(runs["device"] / table), pd.read_parquet(runs["cpu"] / table)


def test_the_network_stays_where_it_was(mined_on):
    _, network, traced = mined_on
    tensors = [*network.module.state_dict().values()]
    tensors += [tensor for made in traced.dictionaries.values() for tensor in made.state_dict().values()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}
    probes = [json.loads((run / "run.json").read_bytes())["probe"] for run in mined_on[0].values()]
    assert probes[0] is not None and probes[0] == probes[1]


def test_units_and_latents_are_those_of_the_cpu(mined_on):
    one, other = both(mined_on, "units")
    assert (one.layer.str.contains(":") == other.layer.str.contains(":")).all() and len(one) == len(other)
    for name in ("activation_max", "activation_mean", "activation_std"):
        scale = other.groupby("layer")[name].transform(lambda values: values.abs().max())
        assert (((one[name] - other[name]).abs() / scale).fillna(0) < 1e-3).all(), name
    assert (one.images_fired - other.images_fired).abs().max() <= 1
    one, other = (rows[rows.band == "top"] for rows in both(mined_on, "exemplars"))
    keys = ["layer", "unit", "rank"]
    pairs = one.merge(other, on=keys, suffixes=("", "_cpu"))
    assert len(pairs) > 0.99 * len(other) and pairs.layer.nunique() == 5
    assert (pairs.image_id == pairs.image_id_cpu).mean() > 0.97


def test_maps_of_exemplars_are_those_of_the_cpu(mined_on):
    one, other = both(mined_on, "maps")
    pairs = one.merge(other, on=["layer", "unit", "band", "image_id"], suffixes=("", "_cpu"))
    assert len(pairs) > 0.95 * len(other) and (pairs.height == pairs.height_cpu).all()
    for row in pairs.itertuples():
        values, wanted = (
            low + (high - low) * np.frombuffer(codes, np.uint8) / 255
            for low, high, codes in ((row.low, row.high, row.map), (row.low_cpu, row.high_cpu, row.map_cpu))
        )
        step = (row.high_cpu - row.low_cpu) / 255
        close = np.abs(values - wanted) <= 1.01 * step + 1e-4
        assert close.all() if ":best" not in row.layer else close.mean() > 0.9, "which latents are largest may turn"


@pytest.mark.parametrize("method", ["deconvnet", "guided"])
def test_views_are_those_of_the_cpu(method, mined_on, folder, tmp_path):
    runs, network, traced = mined_on
    found = []
    for name, device in (("device", DEVICE), ("cpu", CPU)):
        run = shutil.copytree(runs["cpu"], tmp_path / name)
        shards, chosen = find_dataset(str(folder)).by_number, traced.choose("block5.relu,block2.relu")
        view_run(run, shards, network, traced, chosen, LocalEngine(device), method=method, most=2)
        found.append(pd.concat(map(pd.read_parquet, sorted((run / "views").glob("*")))).reset_index())
    one, other = found
    assert len(one) == len(other) > 50 and (one.scale.isna() == other.scale.isna()).all()
    assert np.isclose(one.scale, other.scale, rtol=0.02, equal_nan=True).mean() > 0.98


def test_scores_are_those_of_the_cpu(mined_on, tmp_path):
    runs, network, traced = mined_on
    found = []
    for name, device in (("device", DEVICE), ("cpu", CPU)):
        run, chosen = shutil.copytree(runs["cpu"], tmp_path / name), traced.choose("block5.relu")
        score_run(open_run(run), network, traced, chosen, LocalEngine(device), units={"block5.relu": range(12)})
        rows = pd.read_parquet(run / "units", filters=[("layer", "==", "block5.relu")])
        found.append(rows.interpretability_exemplars.to_numpy())
    assert np.isfinite(found[1]).sum() >= 6
    assert np.allclose(*found, atol=1e-3, equal_nan=True)


def test_units_alike_are_the_same_bytes(mined_on, tmp_path):
    tables = []
    for name, device in (("device", DEVICE), ("cpu", CPU)):
        run = shutil.copytree(mined_on[0]["cpu"], tmp_path / name)
        find_neighbors(run, device)
        tables.append((run / "neighbors.parquet").read_bytes())
    assert tables[0] == tables[1]


def test_what_is_read_on_the_cpu_is_read_by_a_network_that_a_gpu_has_used(mined_on, folder, tmp_path):
    _, used, traced = mined_on
    shards = find_dataset(str(folder)).shards
    vectors, trained = [], []
    for number, (network, its) in enumerate(((used, traced), demo())):
        layer = its.choose("block5.relu")[0]
        latents = latents_of(its, layer, "")
        drawn = DrawnPositions(network, its, latents, 1.0, 0, 0.0).of_shard(shards[0])
        vectors.append([row["vector"] for rows in drawn for row in rows])
        settings = TrainingSettings(32, 3, 6000)
        out = tmp_path / str(number)
        trained.append(train_dictionary(network, its, latents, shards, IMAGES, out, settings, {"of": "test"}))
    assert np.array_equal(*map(np.stack, vectors)) and len(vectors[0]) > 0.9 * IMAGES
    assert trained[0] == trained[1] and trained[0]["explained_variance"] > 0


def test_positions_of_an_activation_atlas_have_the_vectors_that_the_cpu_reads(mined_on, folder):
    _, network, traced = mined_on
    shard, latents = find_dataset(str(folder)).shards[0], latents_of(traced, traced.choose("block5.relu")[0], "")
    read = []
    for device in (DEVICE, CPU):
        drawn = DrawnPositions(network, traced, latents, 1.0, 0, 0.0, device).of_shard(shard)
        read.append([row for rows in drawn for row in rows])
    assert [row["place"] for row in read[0]] == [row["place"] for row in read[1]]
    np.testing.assert_allclose(*(np.stack([row["vector"] for row in rows]) for rows in read), rtol=1e-3, atol=1e-3)
    assert {tensor.device.type for tensor in network.module.state_dict().values()} == {"cpu"}


def test_cells_of_an_activation_atlas_rise_as_on_the_cpu(mined_on):
    _, network, traced = mined_on
    (layer,) = traced.choose("block5.relu")
    directions = torch.nn.functional.normalize(torch.rand(8, layer.units, generator=torch.Generator().manual_seed(1)))
    preset = replace(find_preset("default"), objective=Aligned(directions, means=directions))
    field = receptive_fields(traced, [layer])[layer.name]
    reached = []
    for device in (DEVICE, CPU):
        climb = Climb(network.preprocessing, traced, layer, field, preset, device)
        climb.climbs_in = "fp32"
        reached.append(np.array([found.activation for found in draw(climb, list(range(8)), 8, 0)]))
    assert (reached[1] > 0).all() and np.median(reached[0] / reached[1]) > 0.97


def test_views_focus_and_ascents_repeat_themselves(mined_on, folder, tmp_path):
    runs, network, traced = mined_on
    chosen, shards = traced.choose("block5.relu"), find_dataset(str(folder)).by_number
    field = receptive_fields(traced, chosen)["block5.relu"]
    made = []
    for time in ("first", "second"):
        run = shutil.copytree(runs["cpu"], tmp_path / time)
        view_run(run, shards, network, traced, chosen, LocalEngine(DEVICE), most=1)
        focus_run(run, shards, network, traced, chosen, LocalEngine(DEVICE), most=1)
        climb = Climb(network.preprocessing, traced, chosen[0], field, find_preset("default"), DEVICE)
        pictures = [found.picture.tobytes() for found in draw(climb, list(range(4)), 4, 0)]
        tables = [path.read_bytes() for part in ("views", "exemplars") for path in sorted((run / part).glob("*"))]
        made.append((tables, pictures))
    assert made[0] == made[1]


@pytest.fixture
def little_memory() -> Iterator[None]:
    """A GiB of the GPU's, of which the first map of a batch of 256 takes most."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((1 << 30) / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


QUICK = {"weights": "random", "visualize": False, "sheets": False, "device": "cuda", "compile": "0", "topk": 3}


@on_a_gpu
def test_a_batch_that_does_not_fit_is_halved_until_it_does(little_memory, folder, tmp_path, capsys):
    run = actmine.mine("squeezenet1_1", str(folder), layers="features.*", run=tmp_path / "run", **QUICK)
    size = run.record["batch_size"]
    assert size in (16, 32, 64, 128)
    said = " ".join(capsys.readouterr().err.split())
    assert f"A batch of 256 images does not fit in the GPU's memory; batches of {size} do." in said
    named = {"layers": "features.*", "run": tmp_path / "named", "batch_size": 512, **QUICK}
    with pytest.raises(UserError, match=r"A batch of 512 images does not fit in .* Say batch_size=\d+\."):
        actmine.mine("squeezenet1_1", str(folder), **named)


@on_a_gpu
@pytest.mark.parametrize("stage", ["_scan", "_cut"])
def test_memory_that_somebody_takes_later_ends_in_a_sentence_and_the_run_goes_on(stage, folder, tmp_path, monkeypatch):
    begin, taken = getattr(Mining, stage), []

    def begun(self: Mining, *given: object) -> object:
        gc.collect()
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved() + (16 << 20)
        torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
        taken.append(held)
        return begin(self, *given)

    words = {"layers": "features.*", "run": tmp_path / "run", "quiet": True, **QUICK}
    with monkeypatch.context() as patch:
        patch.setattr(Mining, stage, begun)
        try:
            with pytest.raises(UserError, match=r"The GPU's memory is full .* goes on where it stopped"):
                actmine.mine("squeezenet1_1", str(folder), **words)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert taken and len(actmine.mine("squeezenet1_1", str(folder), **words).units("features.0")) == 64
