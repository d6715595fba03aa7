"""Histograms of positions: whole maps counted by NumPy, drawn positions picked by hand, the same however it is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from actmine.pipeline.datasets.sources import Block, Dataset, find_dataset
from actmine.pipeline.engines.engine import Workplace
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.points import Read
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.progress import Silent
from actmine.pipeline.readings.batch_index import BatchIndex, identity
from actmine.pipeline.readings.bucket_edges import BUCKETS, MIDDLE, PROBABILITIES, edges
from actmine.pipeline.readings.buckets import _scattered, count_positions
from actmine.pipeline.readings.positions import Positions, draws
from actmine.pipeline.readings.reductions import read_layer
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings, TappedNetwork, unit_offsets
from actmine.pipeline.run import open_run
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.scanning.ledger import Ledger
from actmine.pipeline.scanning.limits import check_fits
from actmine.pipeline.scanning.scan import ScanSettings
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.work import ScanWork
from tests.making import histogram_error, image_tar

CPU = torch.device("cpu")
SIDE = 18
HOW = Preprocessing.usual(None, (SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Small(nn.Module):
    """Maps with and without ReLU, tokens and features; with a `branch` that torch.fx cannot follow."""

    def __init__(self, branch: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.branch = branch
        self.first = nn.Conv2d(3, 5, 3, stride=2)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(5, 4, 3)
        self.tokens = nn.Linear(4, 6)
        self.last = nn.Linear(6, 7)

    def forward(self, images: Tensor, scale: float | None = None) -> Tensor:
        """`[B, 3, 18, 18]` to `[B, 7]`; `scale` is there because networks have such arguments."""
        maps = self.second(self.act(self.first(images)))
        if self.branch and maps.sum() > 1e9:
            maps = maps + 1
        rows = self.tokens(maps.flatten(2).transpose(1, 2))
        found: Tensor = self.last(rows.mean(1))
        return found


def small(branch: bool = False) -> tuple[nn.Module, Traced]:
    module = Small(branch).eval()
    traced = Traced(module, (3, SIDE, SIDE))
    assert traced.by == ("modules" if branch else "graph")
    return module, traced


def maps_of(module: nn.Module, images: Tensor) -> dict[str, np.ndarray]:
    """What modules give, positions last: `[B, U, positions]`, through hooks of our own."""
    found: dict[str, np.ndarray] = {}

    def hook(name: str, units: int) -> None:
        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            moved = output.detach().movedim(units, 1)
            found[name] = moved.reshape(*moved.shape[:2], -1).clone().numpy()

        handles.append(module.get_submodule(name).register_forward_hook(keep))

    handles: list = []
    for name, units in (("act", 1), ("second", 1), ("tokens", 2), ("last", 1)):
        hook(name, units)
    with torch.inference_mode():
        module(images)
    for handle in handles:
        handle.remove()
    return found


def counted(values: np.ndarray) -> np.ndarray:
    """How many numbers of a few float32 fall between edges that are mirrored at zero, by NumPy."""
    values = values[~np.isnan(values)].astype(np.float64)
    half = edges()[MIDDLE + 1 : -1]
    places = np.searchsorted(half, np.abs(values), side="right")
    return np.bincount(MIDDLE + np.where(values < 0, -places, places), minlength=BUCKETS)


def images_of(count: int = 6) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def wild(shape: tuple[int, ...], seed: int, nan: float = 0.0, positive: bool = False) -> Tensor:
    """Activations of all sizes, some of them exactly 0 and some NaN or infinite."""
    random = np.random.default_rng(seed)
    values = random.normal(size=shape) * 10.0 ** random.uniform(-6, 6, shape)
    values[random.random(shape) < 0.2] = 0
    values = np.abs(values) if positive else values
    values[random.random(shape) < 0.02] = np.inf
    values[random.random(shape) < nan] = np.nan
    return torch.from_numpy(values.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_positions_are_counted_as_numpy_counts_them(shape, seed, nan, positive, last):
    maps = wild(shape, seed, nan, positive)
    layout = maps.to(memory_format=torch.channels_last) if last else maps
    nothing = torch.zeros(shape[0], dtype=torch.int64)
    found = count_positions(layout, nothing)
    for unit in range(shape[1]):
        assert (found[unit].numpy() == counted(maps[:, unit].numpy())).all()
    assert torch.equal(_scattered(layout, nothing), found)  # as compilers and other devices count


@pytest.mark.parametrize("count", [count_positions, _scattered])
def test_images_that_are_left_out_count_nowhere(count):
    maps = wild((5, 3, 4, 4), 1)
    marks = torch.tensor([0, 1, 0, 0, 1])
    assert torch.equal(count(maps, marks), count(maps[[0, 2, 3]], torch.zeros(3, dtype=torch.int64)))


def test_many_images_are_counted_some_at_a_time_to_the_same(monkeypatch):
    maps = wild((40, 3, 9, 7), 2, 0.1)
    nothing = torch.zeros(40, dtype=torch.int64)
    whole = count_positions(maps, nothing)
    monkeypatch.setattr("actmine.pipeline.readings.buckets._CACHED", 1)
    monkeypatch.setattr("actmine.pipeline.readings.buckets._MANY", 500)
    assert torch.equal(count_positions(maps, nothing), whole) and torch.equal(_scattered(maps, nothing), whole)


def test_half_precision_falls_into_the_bucket_of_its_value():
    maps = wild((4, 3, 5, 5), 4).clamp(-6e4, 6e4)
    nothing = torch.zeros(4, dtype=torch.int64)
    for kind in (torch.bfloat16, torch.float16):
        assert torch.equal(count_positions(maps.to(kind), nothing), count_positions(maps.to(kind).float(), nothing))


@pytest.mark.parametrize("branch", [False, True], ids=["graph", "modules"])
@pytest.mark.parametrize("minima", [False, True])
def test_all_positions_of_every_kind_of_layer_are_those_of_whole_maps(branch, minima):
    module, traced = small(branch)
    layers = traced.choose("act,second,tokens,last")
    images = images_of()
    with torch.inference_mode():
        read = TappedNetwork(traced, layers, minima, "all")(images)
        plain = TappedNetwork(traced, layers, minima)(images)
    found = maps_of(module, images)
    for layer, first in zip(layers, unit_offsets(layers), strict=False):
        for unit in range(layer.units):
            assert (read.counted[first + unit].numpy() == counted(found[layer.name][:, unit])).all()
    for name in ("maximum", "position", "minimum", "lowest"):
        one, other = getattr(read, name), getattr(plain, name)
        assert torch.equal(one, other) if minima or name in ("maximum", "position") else one is other is None


@pytest.mark.parametrize("branch", [False, True], ids=["graph", "modules"])
@pytest.mark.parametrize("minima", [False, True])
def test_a_drawn_position_is_the_draw_modulo_their_number_row_by_row(branch, minima):
    module, traced = small(branch)
    layers = traced.choose("act,second,tokens,last")
    images, marks = images_of(), draws(identity(4, torch.arange(6)))
    with torch.inference_mode():
        read = TappedNetwork(traced, layers, minima, "sample")(images, marks)
    found = maps_of(module, images)
    for layer, first in zip(layers, unit_offsets(layers), strict=False):
        maps = found[layer.name]
        for image in range(6):
            wanted = maps[image, :, int(marks[image]) % maps.shape[2]]
            assert (read.sampled[image, first : first + layer.units].numpy() == wanted).all()
    assert read.counted is None and (read.minimum is None) != minima


def test_draws_are_spread_evenly_over_maps_of_any_size_and_differ_from_other_draws():
    identities = identity(0, torch.arange(40_000))
    drawn = draws(identities)
    assert (drawn >= 0).all() and not torch.equal(drawn, draws(identity(1, torch.arange(40_000))))
    for positions in (7, 169, 3025):
        counts = torch.bincount(drawn % positions, minlength=positions).double()
        expected = 40_000 / positions
        excess = float(((counts - expected) ** 2 / expected).sum()) - (positions - 1)
        assert abs(excess) < 5 * (2 * positions) ** 0.5  # chi squared


def test_a_network_without_the_option_sees_the_graph_that_it_always_saw():
    _, traced = small()
    layers = traced.choose("act,second")
    plain = TappedNetwork(traced, layers).network
    before = traced.reading(layers, [Read(read_layer, (each.layout, each.height, each.width)) for each in layers], list)
    assert [str(node.target) for node in plain.graph.nodes][:-2] == [str(node.target) for node in before.graph.nodes][
        :-2
    ]  # but for what joins the readings
    assert not any("marks" in node.name for node in plain.graph.nodes)
    assert any("marks" in node.name for node in TappedNetwork(traced, layers, False, "all").network.graph.nodes)


def pixels(images: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (images, SIDE, SIDE, 3), dtype=np.uint8)


def read_all(
    positions: str, compiled: bool, threads: int = 1, branch: bool = False, layers: str = "act,second,tokens,last"
) -> tuple[Tensor, Tensor]:
    """Sampled activations and counts of 21 images in batches of 8; one or the other is empty."""
    _, traced = small(branch)
    tapped = TappedNetwork(traced, traced.choose(layers), False, positions)
    runner = Runner(tapped, HOW, Compute(CPU, compiled=compiled, batch_size=8), threads)
    memory, drawn = pixels(21), draws(identity(0, torch.arange(21)))
    found = [
        readings
        for _, readings in runner.map(
            range(0, 21, 8), lambda at: (at, memory[at : at + 8]), lambda at: drawn[at : at + 8]
        )
    ] if positions == "sample" else [
        readings for _, readings in runner.map(range(0, 21, 8), lambda at: (at, memory[at : at + 8]))
    ]  # fmt: skip
    assert all(readings is not None for readings in found)
    nothing = torch.empty(0)
    sampled = torch.cat([nothing if each.sampled is None else each.sampled for each in found if each])
    counts = sum((each.counted for each in found if each and each.counted is not None), torch.zeros(()))
    return sampled, counts


@pytest.mark.parametrize("positions", ["sample", "all"])
@pytest.mark.parametrize("branch", [False, True], ids=["graph", "modules"])
def test_lanes_read_the_same_positions(positions, branch):
    for one, three in zip(read_all(positions, False, 1, branch), read_all(positions, False, 3, branch), strict=True):
        assert torch.equal(one, three)


def test_a_compiled_network_counts_the_same_positions_and_no_filler():
    _, eager = read_all("all", False, layers="second")
    _, compiled = read_all("all", True, layers="second")
    assert torch.equal(compiled.sum(1), eager.sum(1))  # three images of black are not among them
    assert (compiled - eager).abs().sum() <= 0.01 * eager.sum()  # rounding moves some across an edge


@pytest.mark.slow
def test_a_compiled_network_reads_the_same_drawn_positions():
    eager, _ = read_all("sample", False)
    compiled, _ = read_all("sample", True)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)


def histogram(counts: Tensor) -> Positions:
    made = Positions(len(counts))
    made.add(counts)
    return made


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 10**6))
def test_merging_states_in_any_order_is_counting_the_whole(sizes, seed):
    maps = wild((sum(sizes), 2, 3, 4), seed, 0.1)
    nothing = torch.zeros(len(maps), dtype=torch.int64)
    parts = [
        histogram(count_positions(part, nothing[: len(part)]))
        for part in maps.split(sizes)
    ]  # fmt: skip
    merged = Positions(2)
    for place in np.random.default_rng(seed).permutation(len(parts)):
        merged.merge(Positions.from_state(parts[place].state()))
    assert torch.equal(merged.counts, count_positions(maps, nothing).long())


def test_more_positions_than_an_int32_holds_are_counted():
    counts = torch.zeros((1, BUCKETS), dtype=torch.int32)
    counts[0, MIDDLE] = 2**31 - 1
    one, other = histogram(counts), histogram(counts)
    one.add(counts)
    one.merge(Positions.from_state(other.state()))
    assert Positions.from_state(one.state()).counts[0, MIDDLE] == 3 * (2**31 - 1)


def test_a_sampled_nan_is_counted_nowhere():
    made = Positions(2)
    sampled = torch.tensor([[1.0, torch.nan], [2.0, 3.0]])
    made.update(Readings(sampled, torch.zeros_like(sampled), sampled=sampled), BatchIndex.of(torch.arange(2)))
    assert made.counts.sum(1).tolist() == [2, 1]


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three shards of generated pictures: three blocks, none of whole batches."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(3):
        image_tar(folder / f"part-{number}.tar", 21 + number)
    return find_dataset(str(folder / "part-{0..2}.tar"))


def network(branch: bool = False) -> Network:
    preprocessing = Preprocessing.usual(SIDE, (SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Network("small", Small(branch).eval(), preprocessing, "random", "")


def mined(dataset: Dataset, run: Path, positions: str, branch: bool = False, **its: object) -> Path:
    subject = network(branch)
    traced = Traced(subject.module, subject.input_shape)
    keep = StatisticsOptions(4, "both", (50,), 3, positions=positions)
    options: dict = {"batch_size": 8, "workers": 1, **its}
    mine(dataset, subject, traced, traced.choose("act,second,tokens,last"), run, CPU, MineSettings(keep, **options))
    return run


COLUMNS = ["position_quantiles", "position_histogram", "position_firing_rate"]


@pytest.mark.parametrize("positions", ["sample", "all"])
@pytest.mark.parametrize("branch", [False, True], ids=["graph", "modules"])
def test_the_columns_of_a_run_are_those_of_the_maps_of_all_its_images(tars, tmp_path, positions, branch):
    run = mined(tars, tmp_path, positions, branch)
    opened, module = open_run(run), network(branch).module
    found: dict[str, list[np.ndarray]] = {}
    for shard, count in enumerate((21, 22, 23)):
        images = [np.array(opened_image(tars, shard, number)) for number in range(count)]
        values = maps_of(module, Normalize(HOW, CPU)(torch.from_numpy(np.stack(images))))
        drawn = draws(identity(shard, torch.arange(count))).numpy()
        for name, maps in values.items():
            picked = maps[np.arange(count), :, drawn % maps.shape[2]] if positions == "sample" else None
            found.setdefault(name, []).append(np.moveaxis(maps, 1, 2).reshape(-1, maps.shape[1])
                                              if picked is None else picked)  # fmt: skip
    for name, parts in found.items():
        values = np.concatenate(parts)
        units = opened.units(name)
        histograms = np.stack(units["position_histogram"])
        wanted = np.stack([counted(column) for column in values.T])
        assert (histograms.sum(1) == len(values)).all()
        assert np.abs(np.cumsum(histograms, 1) - np.cumsum(wanted, 1)).max() <= 0.001 * len(values) + 1
        quantiles = np.quantile(values, PROBABILITIES, axis=0, method="inverted_cdf").T
        error = np.abs(np.stack(units["position_quantiles"]) - quantiles)
        assert (error <= histogram_error(quantiles) + 1e-4 * np.abs(quantiles) + 1e-6).all()
        np.testing.assert_allclose(units["position_firing_rate"], (values > 0).mean(0), atol=1e-3)
        if name == "last":
            assert (histograms == np.stack(units["activation_histogram"])).all()
    assert json.loads((run / "run.json").read_bytes())["positions"] == positions


def opened_image(dataset: Dataset, shard: int, number: int) -> object:
    """An image as the network of these tests sees it, read on its own from the tar."""
    import io
    import tarfile

    from PIL import Image

    from actmine.pipeline.preprocessing.images import network_pixels

    with tarfile.open(dataset.shards[shard].url) as tar:
        data = tar.extractfile(f"{number:04d}.jpg")
        assert data is not None
        return network_pixels(Image.open(io.BytesIO(data.read())).convert("RGB"), network().preprocessing)


@pytest.mark.parametrize("positions", ["sample", "all"])
def test_neither_workers_nor_interruptions_change_a_byte(tars, tmp_path, monkeypatch, positions):
    wanted = mined(tars, tmp_path / "one", positions)
    commit, done = Ledger.commit, []

    def killed(self, state):
        commit(self, state)
        done.append(state.block)
        if len(done) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "commit", killed)
    with pytest.raises(KeyboardInterrupt):
        mined(tars, tmp_path / "three", positions, workers=3)
    mined(tars, tmp_path / "three", positions, workers=3)
    assert sorted(done) == [0, 1, 2]
    for path in sorted(wanted.rglob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "three" / path.relative_to(wanted)).read_bytes(), path


def test_work_that_went_through_a_pickle_counts_the_same(tars):
    subject = network()
    traced = Traced(subject.module, subject.input_shape)
    here = Subject(subject, traced, traced.choose("second"))
    for positions in ("sample", "all"):
        how = ScanSettings(subject.preprocessing, StatisticsOptions(3, positions=positions), Compute(CPU, batch_size=8))
        work = ScanWork(here, how)
        items = [Block(0, tars.shards[:1])]
        one, other = (
            next(iter(each.open(Workplace(CPU, 1, _free()))(items, lambda tally: None)))
            for each in (work, pickle.loads(pickle.dumps(work)))
        )
        assert torch.equal(one.accumulators["positions"].counts, other.accumulators["positions"].counts)
        assert one.accumulators["positions"].counts.sum() > 0


def _free():
    from contextlib import nullcontext

    return nullcontext()


def test_without_the_option_columns_are_null_and_the_identity_is_that_of_before(tars, tmp_path):
    run = mined(tars, tmp_path, "none")
    assert pd.read_parquet(run / "units")[COLUMNS].isna().all(axis=None)
    assert "positions" not in json.loads((run / "state" / "identity.json").read_bytes())
    assert (
        "positions" not in StatisticsOptions().described()
        and StatisticsOptions(positions="all").described()["positions"] == "all"
    )
    with pytest.raises(UserError, match='positions was null, now "all"'):
        mined(tars, tmp_path, "all")


def test_what_cannot_be_kept_is_refused_in_a_sentence():
    with pytest.raises(UserError, match="POSITIONS=some is none of none, sample, all"):
        StatisticsOptions(positions="some")
    for positions, most in (("sample", Positions.MOST_UNITS), ("all", Positions.MOST_UNITS_WHOLE)):
        check_fits(most, StatisticsOptions(positions=positions), Silent())
        with pytest.raises(UserError, match=f"POSITIONS={positions} is kept of up to {most:,} units"):
            check_fits(most + 1, StatisticsOptions(positions=positions), Silent())
