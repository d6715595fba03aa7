"""Engines: who gets which item, what is tried again, and that what they spread depends on nothing else."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from actmine.pipeline import spoken, work
from actmine.pipeline.ascent import ascend
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.shards import read_samples
from actmine.pipeline.datasets.sources import Block
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.engines.engine import Tally, Tell, Workplace
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.engines.ray import RayEngine
from actmine.pipeline.engines.ray_cluster import other_versions, slots
from actmine.pipeline.engines.schedule import (
    COLD,
    RETRIES,
    Event,
    Failed,
    Finished,
    Joined,
    Lost,
    Schedule,
    Told,
)
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.crops import KEPT, CutTask, _in_parts
from actmine.pipeline.exemplars.winner_pass import WinnerPass, cut
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.readings.accumulators import state_bytes as bytes_of_a_block
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.scanning.limits import LEAST_BLOCKS, STATE_BYTES, most_blocks
from actmine.pipeline.scanning.scan import ScanSettings, scan
from actmine.pipeline.work import AscentWork, ScanWork
from tests.making import SMALL, image_tar

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]
HERE = Workplace(CPU, 2, nullcontext())


class FakePool:
    """Workers that do what a script says of an item, one answer for each `events`; the clock moves by `second`."""

    def __init__(self, workers: int, script: dict[object, list[str]] | None = None, second: float = 1.0) -> None:
        self.alive = [f"w{n}" for n in range(workers)]
        self.script, self.second, self.time = script or {}, second, 0.0
        self.held: dict[str, deque[tuple[int, object]]] = {worker: deque() for worker in self.alive}
        self.log: list[tuple[str, object]] = []
        self.most: dict[str, int] = {}
        self.dropped: list[str] = []
        self.news: list[Event] = []
        self.hung: set[str] = set()
        self.company: list[tuple[object, ...]] = []

    def workers(self) -> list[str]:
        return list(self.alive)

    def give(self, worker: str, ticket: int, item: object) -> None:
        self.held[worker].append((ticket, item))
        self.log.append((worker, item))
        self.most[worker] = max(self.most.get(worker, 0), len(self.held[worker]))
        self.company.append(tuple(item for _, item in self.held[worker]))

    def drop(self, worker: str) -> None:
        self.dropped.append(worker)
        self.replace(worker)

    def replace(self, worker: str) -> None:
        self.alive.remove(worker)
        del self.held[worker]
        other = f"{worker}'"
        self.alive.append(other)
        self.held[other] = deque()
        self.news.append(Joined(other))

    def events(self, seconds: float) -> list[Event]:
        self.time += self.second
        events, self.news = self.news, []
        for worker in list(self.alive):
            if self.held.get(worker) and worker not in self.hung:
                ticket, item = self.held[worker][0]
                events += self.act(worker, ticket, item)
        return events

    def act(self, worker: str, ticket: int, item: object) -> list[Event]:
        steps = self.script.get(item, [])
        what = steps.pop(0) if steps else "done"
        if what == "hang":
            self.hung.add(worker)
            return []
        if what == "told":
            return [Told(worker, ticket, Tally(2))]
        if what in ("lost", "node"):
            self.replace(worker)
            return [Lost(worker, "gone.", what == "node")]
        self.held[worker].popleft()
        if what == "done":
            return [Finished(worker, ticket, f"r{item}", Tally(3))]
        return [Failed(worker, ticket, what, final=what.startswith("final"))]


def run(pool: FakePool, items: Iterable[object], patience: float = 50.0) -> tuple[dict[object, object], int]:
    """All results, and what the progress came to."""
    told: list[int] = []
    schedule: Schedule[object, object] = Schedule(
        pool, items, str, lambda tally: told.append(tally.done), patience, clock=lambda: pool.time
    )
    results = list(schedule.results())
    assert len(dict(results)) == len(results)  # each exactly once
    return dict(results), sum(told)


def test_every_item_is_done_once_and_workers_have_one_under_way_and_one_at_hand():
    pool = FakePool(3)
    found, told = run(pool, range(20))
    assert found == {n: f"r{n}" for n in range(20)} and told == 60
    assert set(pool.most.values()) == {2}
    assert [item for _, item in pool.log[:3]] == [0, 1, 2] and len({worker for worker, _ in pool.log[:3]}) == 3


def test_items_are_taken_only_as_workers_come_free():
    taken: list[int] = []
    pool = FakePool(2)
    schedule: Schedule[int, object] = Schedule(
        pool, (taken.append(n) or n for n in range(100)), str, lambda tally: None, 50.0, clock=lambda: pool.time
    )
    results = schedule.results()
    next(results)
    assert len(taken) == 4
    results.close()
    assert sorted(pool.dropped) == ["w0", "w1"]  # they still had items, which nobody wants any more


def test_no_items_need_no_workers():
    assert run(FakePool(0), []) == ({}, 0)


@pytest.mark.parametrize("what", ["boom", "lost", "node", "hang"])
def test_trouble_that_passes_changes_no_result_and_no_count(what):
    pool = FakePool(2, {3: ["told", what]})
    found, told = run(pool, range(8), patience=4.0)
    assert found == {n: f"r{n}" for n in range(8)} and told == 24
    first, second = [worker for worker, item in pool.log if item == 3]
    assert first != second


def test_an_item_that_may_have_ended_its_worker_goes_alone_from_then_on():
    pool = FakePool(2, {1: ["lost", "lost", "done"]})
    found, _ = run(pool, range(9))
    assert len(found) == 9
    second = [at for at, held in enumerate(pool.company) if held[-1] == 1][1]
    assert {held for held in pool.company[second:] if 1 in held} == {(1,)}


def test_a_node_that_goes_is_not_held_against_an_item_as_soon_as_a_crash():
    assert run(FakePool(1, {0: ["node"] * (RETRIES + 3)}), range(3))[0].keys() == {0, 1, 2}
    with pytest.raises(UserError, match=r"^0 failed 4 times, the last time on w0'*: gone\."):
        run(FakePool(1, {0: ["lost"] * (RETRIES + 1)}), range(3))


def test_what_fails_again_and_again_is_named_with_its_last_error():
    with pytest.raises(UserError, match=r"^5 failed 4 times, the last time on w\d: boom 3 What was done is kept"):
        run(FakePool(2, {5: ["boom 0", "boom 1", "boom 2", "boom 3"]}), range(9))


def test_a_sentence_for_the_user_comes_at_once():
    pool = FakePool(2, {5: ["final: mend it"]})
    with pytest.raises(UserError, match=r"^final: mend it$"):
        run(pool, range(90))
    assert len(pool.log) < 12


def test_a_worker_without_a_sign_is_ended_and_a_cold_one_gets_more_patience():
    hanging = {0: ["hang"]}
    pool = FakePool(1, hanging)
    run(pool, range(2), patience=10.0)
    cold = pool.time
    assert pool.dropped == ["w0"] and cold > 10 * COLD
    pool = FakePool(1, {2: ["hang"]})
    run(pool, range(4), patience=10.0)
    assert pool.dropped == ["w0"] and pool.time < cold


def test_signs_of_getting_on_keep_a_slow_worker():
    pool = FakePool(1, {0: ["told"] * 500})
    run(pool, range(2), patience=10.0)
    assert pool.dropped == []


def test_time_that_the_caller_took_is_not_held_against_workers():
    pool = FakePool(1, second=1.0)
    schedule: Schedule[int, object] = Schedule(pool, range(4), str, lambda tally: None, 10.0, clock=lambda: pool.time)
    for _ in schedule.results():
        pool.time += 10_000.0  # the caller writes to a slow disk
    assert pool.dropped == []


def test_the_local_engine_pairs_results_with_items_and_lets_the_worker_read_ahead():
    class Ahead:
        def open(self, at: Workplace) -> Callable[[Iterable[int], Tell], Iterator[int]]:
            def work(items: Iterable[int], tell: Tell) -> Iterator[int]:
                waiting: list[int] = []
                for item in items:
                    waiting.append(item)
                    tell(Tally(1))
                    if len(waiting) == 3:
                        yield waiting.pop(0) * 10
                yield from (item * 10 for item in waiting)

            return work

        def name(self, item: int) -> str:
            return str(item)

    told: list[Tally] = []
    with LocalEngine(CPU, 2) as engine:
        assert list(engine.map(Ahead(), range(7), told.append)) == [(n, n * 10) for n in range(7)]
    assert len(told) == 7


def subject(layers: str = "") -> Subject:
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    return Subject(network, traced, traced.choose(layers))


def runner(what: Subject, how: ScanSettings) -> Runner:
    return Runner(TappedNetwork(what.traced, what.layers), how.preprocessing, how.compute)


def blocks(folder: Path, count: int = 3) -> list[Block]:
    return [Block(n, (TarShard(n, str(image_tar(folder / f"{n}.tar", 20 + n))),)) for n in range(count)]


def state_bytes(work: ScanWork, items: Iterable[Block]) -> list[tuple[object, ...]]:
    states = work.open(HERE)(items, lambda tally: None)
    return [
        (
            state.block,
            state.members,
            [part.numpy().tobytes() for each in state.accumulators.values() for part in each.state().values()],
        )
        for state in states
    ]


def test_work_that_went_through_a_pickle_gives_the_same_results(tmp_path):
    here = subject("stem.*,block1.*")
    work = ScanWork(here, ScanSettings(here.network.preprocessing, StatisticsOptions(5), Compute(CPU, batch_size=8)))
    items = blocks(tmp_path)
    wanted = state_bytes(work, items)
    assert state_bytes(pickle.loads(pickle.dumps(work)), pickle.loads(pickle.dumps(items))) == wanted
    one_by_one = [state for item in items for state in state_bytes(work, [item])]
    assert one_by_one == wanted
    assert work.name(items[1]) == f"block 1 ({tmp_path / '1.tar'})"

    fields = receptive_fields(here.traced, here.layers)
    ascent = AscentWork(here, fields, replace(find_preset("default"), attempts=1), 0)
    batch = ascent.batches(0, CPU, None)[0]
    batch = replace(batch, units=batch.units[:3])
    drawn = [
        list(each.open(HERE)([batch], lambda tally: None)) for each in (ascent, pickle.loads(pickle.dumps(ascent)))
    ]
    for one, other in zip(drawn[0][0], drawn[1][0], strict=True):
        assert one.activation == other.activation and np.array_equal(one.picture, other.picture)


def test_a_scan_takes_blocks_only_as_it_reads_them(tmp_path):
    here = subject("stem.*")
    how = ScanSettings(here.network.preprocessing, StatisticsOptions(3), Compute(CPU, batch_size=4))
    taken: list[int] = []

    def stream() -> Iterator[Block]:
        for number in range(100):
            taken.append(number)
            yield Block(number, (TarShard(number, str(tmp_path / "same.tar")),))

    image_tar(tmp_path / "same.tar", 20)
    states = scan(stream(), runner(here, how), how)
    assert [next(states).block for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 12
    states.close()


def test_a_scan_computes_nothing_before_its_turn_and_gives_it_up_behind_its_last_batch(tmp_path):
    here = subject("stem.*")
    how = ScanSettings(here.network.preprocessing, StatisticsOptions(3), Compute(CPU, batch_size=4))
    events: list[str] = []

    class Turn:
        def __enter__(self) -> None:
            events.append("mine")

        def __exit__(self, *error: object) -> None:
            events.append("yours")

    states = scan(blocks(tmp_path, 1), runner(here, how), how, lambda batch: events.append("batch"), Turn())
    assert len(list(states)) == 1
    assert events[0] == "mine" and sorted(events) == ["batch"] * 5 + ["mine", "yours"]


def test_pictures_come_in_bounded_parts_that_hold_everything_once(tmp_path, monkeypatch):
    shard = TarShard(0, str(image_tar(tmp_path / "x.tar", 20)))
    random = np.random.default_rng(3)
    tasks = []
    for number, sample in enumerate(read_samples(shard)):
        count = int(random.integers(0, 4))
        corner = random.integers(0, 15, (count, 2))
        boxes = np.concatenate([corner, corner + random.integers(2, 6, (count, 2))], 1).astype(np.int32)
        tasks.append(CutTask(number, shard, sample.place, (40, 30), boxes, 9))
    whole = [kept for task in tasks for kept in cut(task, SMALL).kept]
    assert {box is None for _, box, *_ in whole} == {True, False}
    monkeypatch.setattr("actmine.pipeline.exemplars.crops._BYTES_A_PART", 2000)
    parts = list(_in_parts(tasks))
    assert len(parts) > 5
    found = []
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as lane:
        for part in parts:
            counted: list[int] = []
            pictures, maps = WinnerPass(SMALL, None, 4, pool, lane, 1)(part, 2, counted.append)
            assert not len(pa.ipc.open_file(maps).read_all())
            table = pa.ipc.open_file(pictures).read_all()
            assert table.schema == KEPT and table.nbytes < 4000 and sum(counted) == len(part)
            for row in table.to_pylist():
                box = None if row["left"] is None else tuple(row[side] for side in ("left", "top", "right", "bottom"))
                found.append((row["image_id"], box, (row["width"], row["height"]), row["picture"]))
    assert found == whole


@pytest.mark.parametrize("memory", [None, 6 << 20, 80 << 30])
def test_batches_of_units_depend_on_the_layer_and_the_memory_alone(memory):
    here = subject()
    fields = receptive_fields(here.traced, here.layers)
    one, other = (AscentWork(here, fields, find_preset("default"), seed) for seed in (0, 9))
    for number in (len(here.layers) - 1, 0):
        batches = one.batches(number, CPU, memory)
        assert batches == other.batches(number, CPU, memory)
        assert [unit for batch in batches for unit in batch.units] == list(range(here.layers[number].units))
        (size,) = {batch.size for batch in batches}
        assert len(batches[0].units) == min(size * (1 if memory else work._ASCENTS), here.layers[number].units)
        assert size <= (ascend._MOST_ON_GPU if memory else ascend._MOST_TOGETHER)


def node(cpus: float, gpus: int = 0, alive: bool = True, name: str = "n") -> dict[str, object]:
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerAddress": name,
        "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
    }


def test_there_is_a_worker_for_each_gpu_or_for_every_few_cores():
    def count(cpus: float, gpus: int, device: str, worker_cores: int = 0) -> list[tuple[int, float]]:
        return [(slot.cores, slot.gpus) for slot in slots([node(cpus, gpus)], device, worker_cores)]

    assert count(64, 8, "cuda") == [(8, 1)] * 8
    assert count(64, 8, "cuda", 4) == [(4, 0.5)] * 16, "two that share a GPU"
    assert count(64, 8, "cuda", 16) == [(8, 1)] * 8
    assert count(4, 8, "cuda") == [(0, 1)] * 8
    assert count(16, 0, "cuda") == []
    assert count(18, 0, "cpu") == [(4, 0)] * 4
    assert count(2, 0, "cpu") == [(2, 0)]
    assert count(2, 1, "cpu", 1) == [(1, 0)] * 2
    assert count(0, 0, "cpu") == count(0.5, 0, "cpu") == []
    two = slots([node(4, name="a"), node(4, alive=False, name="b"), node(8, name="c")], "cpu", 0)
    assert [(slot.node, slot.number) for slot in two] == [("a", 0), ("c", 0), ("c", 1)]


def test_workers_with_another_installation_are_refused_by_name():
    ours = dict.fromkeys(("actmine", "torch", "torchvision", "numpy", "pillow", "pandas"), "1")
    assert other_versions(ours, ours | {"pandas": "2"}) == ""
    assert "torch 2 instead of 1, pillow 3 instead of 1" in other_versions(ours, ours | {"torch": "2", "pillow": "3"})


def test_a_very_wide_run_gets_fewer_blocks_so_that_states_fit_on_a_disk():
    many = 1_281_167
    assert most_blocks(1_000, StatisticsOptions(), many) == 1024
    wide = most_blocks(26_000, StatisticsOptions(bands=(50.0,)), many)
    assert (
        LEAST_BLOCKS < wide < 1024 and wide * bytes_of_a_block(26_000, StatisticsOptions(bands=(50.0,))) <= STATE_BYTES
    )
    assert most_blocks(10**7, StatisticsOptions(1000), many) == LEAST_BLOCKS
    assert most_blocks(26_000, StatisticsOptions(), 50_000) < most_blocks(26_000, StatisticsOptions(), many), (
        "states are a part of the images"
    )


def test_without_ray_there_is_a_sentence_and_all_else_works():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import actmine.pipeline.stages.mine, actmine.commands.mine\n"
        "from actmine.pipeline.engines.ray import RayEngine\n"
        "try: RayEngine()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    fix = f"{spoken.interpreter()} -m pip install 'actmine[ray]'"
    assert said.strip() == f"UserError ENGINE=ray needs the package ray: {fix}."


def test_nothing_imports_ray_before_it_is_asked_for():
    code = "import sys, actmine.commands.mine; print('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "False\n"


def test_a_single_device_of_the_driver_is_not_for_ray():
    with pytest.raises(UserError, match=r"DEVICE=cuda:1: with ENGINE=ray it is auto, cpu or cuda"):
        RayEngine("cuda:1")


def test_a_ray_clients_address_is_refused_with_what_to_do_instead(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="ray job submit"):
        RayEngine()


def test_the_files_for_clusters_can_be_handed_in_as_they_are():
    subprocess.run(["bash", "-n", str(ROOT / "docs/cluster/slurm.sbatch")], check=True)
    job = yaml.safe_load((ROOT / "docs/cluster/rayjob.yaml").read_text())
    assert job["apiVersion"] == "ray.io/v1" and job["kind"] == "RayJob"
    spec = job["spec"]
    head, (workers,) = spec["rayClusterSpec"]["headGroupSpec"], spec["rayClusterSpec"]["workerGroupSpecs"]
    images = {part["template"]["spec"]["containers"][0]["image"] for part in (head, workers)}
    assert len(images) == 1 and head["rayStartParams"]["num-cpus"] == "0"
    for text in (spec["entrypoint"], (ROOT / "docs/cluster/slurm.sbatch").read_text()):
        assert "-m actmine mine" in text and "--engine ray" in text
