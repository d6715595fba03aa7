"""Ray on several nodes: the bytes of the local engine, whatever dies, hangs or raises on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.live import dataset_of
from actmine.pipeline.datasets.sources import Block, find_dataset
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.run import open_run
from actmine.pipeline.scanning.compute import Compute
from actmine.pipeline.scanning.scan import BlockState, ScanSettings
from actmine.pipeline.stages.exemplar_facets import facet_run
from actmine.pipeline.stages.fitting import FittingWork
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.work import ScanWork
from tests.making import image_tar
from tests.test_datasets_in_any_form import Tensors, write_parquet

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray", reason="needs ray: pip install 'actmine[ray]'")

from actmine.pipeline.engines.ray import RayEngine  # noqa: E402

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
LAYERS = "stem.*,block1.*"


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """A head without cores, where the driver is, and two nodes of one core."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def engine(cluster) -> Iterator[RayEngine]:
    """Takes all cores of the cluster until the last test; both workers are ready, so that there is another one."""
    with RayEngine("cpu", worker_cores=1, block_seconds=4) as engine:
        while len(engine._pool.workers()) < 2:
            engine._pool.events(1.0)
        yield engine


@pytest.fixture(scope="module")
def tars(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten shards of generated pictures, as a word for DATASET."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(10):
        image_tar(folder / f"part-{number}.tar", 30 + number)
    return str(folder / "part-{0..9}.tar")


def run_mine(tars: str, run: Path, engine: RayEngine | None) -> dict[str, bytes]:
    """Mines and draws; the bytes of every table."""
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose(LAYERS)
    settings = MineSettings(StatisticsOptions(topk=7), batch_size=16, workers=1)
    mine(find_dataset(tars), network, traced, layers, run, CPU, settings, engine=engine)
    find_neighbors(run, CPU)
    visualize_run(run, network, traced, layers, find_preset("default"), CPU, engine=engine)
    return tables_of(run)


def tables_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def wanted(tars: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables that this process makes alone."""
    return run_mine(tars, tmp_path_factory.mktemp("local") / "run", None)


@dataclass(frozen=True)
class Squares:
    """Squares numbers; where `trouble` has an item, it comes that often before the item succeeds."""

    folder: Path
    trouble: dict[int, tuple[str, int]]

    def open(self, at: Workplace) -> Callable[[Iterable[int], Tell], Iterator[int]]:
        def squares(items: Iterable[int], tell: Tell) -> Iterator[int]:
            for item in items:
                tell(Tally(1))
                kind, times = self.trouble.get(item, ("", 0))
                before = len(list(self.folder.glob(f"{item}-*")))
                node = ray.get_runtime_context().get_node_id()
                (self.folder / f"{item}-{before}-{node}-{os.getpid()}").touch()
                if before < times:
                    make(kind, at)
                yield item * item

        return squares

    def name(self, item: int) -> str:
        return f"number {item}"


def make(kind: str, at: Workplace) -> None:
    """Trouble of some kind."""
    if kind == "raise":
        raise ZeroDivisionError("by nought")
    if kind == "die":
        os._exit(7)
    if kind == "hang":
        time.sleep(600)
    if kind == "raise in turn":
        with at.turn:
            raise ZeroDivisionError("in turn")
    if kind == "user":
        raise UserError("shard x.tar is not whole. Fetch it again.")


def squares(engine: RayEngine, folder: Path, count: int = 6, **trouble: tuple[str, int]) -> tuple[dict[int, int], int]:
    """What came of numbers below `count`, and how many of them the progress came to."""
    told: list[int] = []
    work = Squares(folder, {int(item[1:]): what for item, what in trouble.items()})
    found = dict(engine.map(work, iter(range(count)), lambda tally: told.append(tally.done)))
    return found, sum(told)


def attempts(folder: Path, item: int) -> list[list[str]]:
    """Node and process of each attempt at an item."""
    return [path.name.split("-")[2:] for path in sorted(folder.glob(f"{item}-*"))]


@dataclass(frozen=True, slots=True)
class SlowScan(ScanWork):
    """A scan that says on which node a block begins. Block 1 never ends the first time; later ones wait for a node."""

    folder: Path = Path()

    def open(self, at: Workplace) -> Callable[[Iterable[Block], Tell], Iterator[BlockState]]:
        """The scan's own worker, behind a pause for every block."""
        states = ScanWork.open(self, at)

        def slowly(blocks: Iterable[Block], tell: Tell) -> Iterator[BlockState]:
            for block in blocks:
                before = list(self.folder.glob("1-*"))
                (self.folder / f"{block.number}-{ray.get_runtime_context().get_node_id()}").touch()
                if block.number == 1 and not before:
                    time.sleep(600)
                deadline = time.monotonic() + 60
                while block.number >= 5 and len(nodes_in(self.folder)) < 3 and time.monotonic() < deadline:
                    time.sleep(0.05)
                yield from states([block], tell)

        return slowly


def nodes_in(folder: Path) -> set[str]:
    return {path.name.split("-")[1] for path in folder.iterdir()}


# Before any test with `engine`, whose workers keep all cores of the cluster for the rest of this file.
def test_a_node_dies_in_mid_block_and_another_one_joins(cluster, tars, tmp_path, wanted, monkeypatch):
    begun = tmp_path / "begun"
    begun.mkdir()
    nodes = {node.node_id: node for node in cluster.worker_nodes}
    happened: list[str] = []

    class Deadly(RayEngine):
        def map(self, work, items, tell):
            for result in super().map(work, items, tell):
                under_way = [path.name.split("-")[1] for path in begun.glob("1-*")]
                if not happened and under_way:
                    cluster.remove_node(nodes[under_way[0]], allow_graceful=False)
                    happened.extend([under_way[0], cluster.add_node(num_cpus=1).node_id])
                yield result

    monkeypatch.setattr("actmine.pipeline.stages.mining.ScanWork", lambda *parts: SlowScan(*parts, folder=begun))
    with Deadly("cpu", worker_cores=1) as engine:
        found = run_mine(tars, tmp_path / "run", engine)
        machine = engine.machine()
    assert found == wanted
    died, joined = happened
    of_block_1 = [path.name.split("-")[1] for path in begun.glob("1-*")]
    assert len(of_block_1) == 2 and died in of_block_1  # it was done again on another node
    assert joined in nodes_in(begun)
    assert machine["engine"] == "ray" and machine["workers"] == 3


def test_a_driver_that_was_killed_goes_on_from_its_ledger(cluster, tars, tmp_path, wanted):
    run = tmp_path / "run"
    command = [
        sys.executable, "-m", "actmine", "mine", "--dataset", tars, "--model", "demo", "--layers", LAYERS,
        "--topk", "7", "--batch-size", "16", "--engine", "ray", "--device", "cpu", "--worker-cores", "1", "--no-sheets",
        "--focus", "0", "--check-crops", "0", "--label-tree", "none", "--run", str(run),
    ]  # fmt: skip
    environment = os.environ | {"RAY_ADDRESS": cluster.address}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while not list(run.glob("state/block-*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "run.json").exists()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "Going on:" in again.stderr
    assert tables_of(run) == wanted


def test_a_cluster_that_is_not_there_is_one_sentence(tmp_path):
    command = [sys.executable, "-c", "from actmine.pipeline.engines.ray import RayEngine; RayEngine()"]
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:9"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert "UserError: ENGINE=ray cannot use the cluster at RAY_ADDRESS=127.0.0.1:9" in ended.stderr


@pytest.mark.parametrize("kind", ["raise", "raise in turn", "die", "hang"])
def test_an_item_that_fails_once_succeeds_in_another_process_and_counts_once(engine, tmp_path, kind):
    found, told = squares(engine, tmp_path, _2=(kind, 1))
    assert found == {n: n * n for n in range(6)} and told == 6
    first, second = attempts(tmp_path, 2)
    assert first[1] != second[1]


@pytest.mark.parametrize(("kind", "says"), [("raise", "ZeroDivisionError: by nought"), ("die", "its process ended")])
def test_an_item_that_always_fails_stops_the_run_naming_it_and_the_error(engine, tmp_path, kind, says):
    with pytest.raises(UserError, match=rf"number 1 failed 4 times, the last time on .*{says}") as caught:
        squares(engine, tmp_path, _1=(kind, 99))
    assert "What was done is kept" in str(caught.value)
    assert len(attempts(tmp_path, 1)) == 4


def test_a_sentence_for_the_user_stops_the_run_at_once(engine, tmp_path):
    with pytest.raises(UserError, match=r"^shard x\.tar is not whole\. Fetch it again\.$"):
        squares(engine, tmp_path, _1=("user", 99))
    assert len(attempts(tmp_path, 1)) == 1


def test_a_worker_says_how_many_images_fit(engine):
    network = load_network("demo")
    traced = network.traced()
    how = ScanSettings(network.preprocessing, StatisticsOptions(topk=7), Compute(CPU))
    work = FittingWork(Subject(network, traced, traced.choose(LAYERS)), how)
    assert list(engine.map(work, [32], lambda tally: None)) == [(32, 32)]


def test_mining_and_drawing_on_a_cluster_gives_the_bytes_of_this_process(engine, tars, tmp_path, wanted):
    assert run_mine(tars, tmp_path / "run", engine) == wanted
    assert len(wanted) == 7 + 2 * 6


def test_effective_fields_measured_on_a_cluster_have_the_bytes_of_this_process(engine, tars, tmp_path):
    network, dataset = load_network("demo"), find_dataset(tars)
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("block4.relu,classifier")
    mine(dataset, network, traced, layers, tmp_path / "here", CPU, MineSettings(StatisticsOptions(topk=3)))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    focus_run(tmp_path / "here", dataset.by_number, network, traced, layers, LocalEngine(CPU), most=3)
    record = focus_run(tmp_path / "there", dataset.by_number, network, traced, layers, engine, most=3)
    assert record["focus"]["measured"] == 3 * (80 + 32)
    assert tables_of(tmp_path / "there") == tables_of(tmp_path / "here")


@pytest.mark.parametrize("name", ["mean-image", "vital", "maco"])
def test_recipes_that_need_the_data_draw_the_same_on_a_cluster(name, engine, tars, tmp_path):
    network, preset = load_network("demo"), find_preset(name)
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("block1.relu")
    mine(find_dataset(tars), network, traced, layers, tmp_path / "here", CPU, MineSettings(StatisticsOptions(topk=7)))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    preset = replace(preset, stages=tuple(replace(stage, steps=2) for stage in preset.stages))
    for place, crew in (("here", None), ("there", engine)):
        visualize_run(tmp_path / place, network, traced, layers, preset, CPU, engine=crew)
    assert tables_of(tmp_path / "there") == tables_of(tmp_path / "here")
    assert f"visualizations/block1.relu-{name}.parquet" in tables_of(tmp_path / "here")


def test_facets_found_on_a_cluster_have_the_bytes_of_this_process(engine, tars, tmp_path, monkeypatch):
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("block1.relu")
    mine(find_dataset(tars), network, traced, layers, tmp_path / "here", CPU, MineSettings(StatisticsOptions(topk=20)))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    monkeypatch.setattr("actmine.pipeline.stages.facet_work._PART", 4)
    for place, crew in (("here", LocalEngine(CPU, 1)), ("there", engine)):
        facet_run(open_run(tmp_path / place), network, traced, layers, crew, units={"block1.relu": list(range(12))})
    assert tables_of(tmp_path / "there") == tables_of(tmp_path / "here")
    assert open_run(tmp_path / "here").units("block1.relu")["facets"].notna().sum() == 12


def test_a_damaged_shard_is_the_same_sentence_as_here(engine, tmp_path):
    tar = image_tar(tmp_path / "part-0.tar", 20)
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    said = []
    for run, there in (("here", None), ("there", engine)):
        with pytest.raises(UserError, match=r"part-0\.tar") as caught:
            run_mine(str(tar), tmp_path / run, there)
        said.append(str(caught.value))
    assert said[0] == said[1]


@pytest.mark.parametrize("form", ["parquet", "torch"])
def test_parquet_and_datasets_of_python_on_a_cluster_give_the_bytes_of_this_process(engine, tmp_path, form):
    dataset = find_dataset(str(write_parquet(tmp_path / "parquet"))) if form == "parquet" else dataset_of(Tensors())
    subject = load_network("demo")
    traced = Traced(subject.module, subject.input_shape)
    settings = MineSettings(StatisticsOptions(topk=3), 8, workers=1)
    for run, at in (("here", LocalEngine(CPU, 1)), ("there", engine)):
        mine(dataset, subject, traced, traced.choose(LAYERS), tmp_path / run, CPU, settings, engine=at)
    names = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.parquet"))
    assert len(names) > 8
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes(), name
