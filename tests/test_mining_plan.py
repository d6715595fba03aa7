"""The plan before mining: its stages, about what they write, and the time left in all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from actmine.commands.forecast import show_plan
from actmine.console import Display
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.progress import in_bytes
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.stages import mining_plan
from actmine.pipeline.stages.mine import MineSettings
from actmine.pipeline.stages.mining_plan import Overall, Planned, seconds_an_image

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def demo():
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    return network, traced, traced.choose("")


def planned(demo, dataset, **changes):
    return mining_plan.mining_plan(dataset, demo[2], replace(MineSettings(), **changes), 0.001, CPU)


def test_what_is_planned_to_be_written_is_about_what_a_run_writes(demo, demo_dataset, demo_run):
    stages = planned(demo, demo_dataset)
    written = sum(
        path.stat().st_size for path in demo_run.rglob("*") if path.is_file() and "visualizations" not in path.parts
    )
    assert 1 / 3 < sum(stage.nbytes for stage in stages) / written < 3
    assert stages[0].count == 4096 and [stage.does for stage in stages] == [
        "scan", "pictures, maps", "tables", "units alike",
    ]  # fmt: skip


def test_what_is_left_out_is_not_planned(demo, demo_dataset):
    stages = planned(demo, demo_dataset, maps=0, pictures="none", keep=StatisticsOptions(sketch=0))
    assert [stage.does for stage in stages] == ["scan", "tables"]
    assert planned(demo, demo_dataset, maps=0)[1].does == "pictures"


def test_an_image_takes_some_time_and_the_threads_stay_as_they_were(demo):
    before = torch.get_num_threads()
    assert 0 < seconds_an_image(*demo, CPU) < 5 and torch.get_num_threads() == before


class Notes:
    """A progress that keeps the notes it was given."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def say(self, sentence: str) -> None: ...

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
        yield lambda count, note="", total=None: self.notes.append(note)


def test_the_time_left_in_all_follows_how_long_the_first_stage_truly_takes(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("actmine.pipeline.stages.mining_plan.time.monotonic", lambda: now[0])
    stages = [
        Planned((name,), name, 100, "", seconds, 0) for name, seconds in (("scan", 10), ("cut", 20), ("draw", 30))
    ]
    shown = Notes()
    overall = Overall(shown, stages)
    with overall.stage("scan", 100, "") as advance:
        now[0] = 20.0
        advance(50, "3 skipped")  # four times as long as planned: 20 s more, and 4 x 50 s
    with overall.stage("something else", 10, "") as advance:
        advance(5)
    with overall.stage("cut", 100, "") as advance:
        now[0] = 100.0
        advance(80)  # 20 s more, and 4 x 30 s
    assert shown.notes == ["3 skipped, 4 minutes left in all", "", "2 minutes left in all"]


def test_the_plan_is_shown_with_its_sum_and_a_warning_where_the_disk_is_too_small(tmp_path, capsys):
    show_plan([Planned(("x",), "sheets", 1200, "units", 70, 4_200_000, "--no-sheets")], tmp_path / "new", Display())
    said = capsys.readouterr().err
    assert "1,200 units" in said and said.count("4.2 MB") == 2 and "--no-sheets" in said and "disk" not in said
    show_plan([Planned(("x",), "maps", 1, "unit", 1, 10**18)], Path(tmp_path), Display())
    assert "left: free some" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "words"), [(12, "12 bytes"), (4_300, "4.3 kB"), (2.5e9, "2.5 GB")])
def test_sizes_are_said_as_people_say_them(count, words):
    assert in_bytes(count) == words
