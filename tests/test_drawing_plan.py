"""What is drawn where nobody said so: all that is done in a while, else the most selective; the others show crops."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.choose import choose_units
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.progress import duration
from actmine.pipeline.run import open_run
from actmine.pipeline.sheets.drawn import Drawn
from actmine.pipeline.sheets.material import visualizations
from actmine.pipeline.stages import drawing_plan
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows, write_table
from actmine.pipeline.words import Shown
from actmine.schemas.units import UNITS

PRESET = find_preset("default")


@pytest.fixture(scope="module")
def planned(demo_run):
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    engine = LocalEngine(torch.device("cpu"), 1)
    costs = drawing_plan.seconds_a_unit(network, traced, traced.choose(""), PRESET, engine)
    return lambda: drawing_plan.plan(open_run(demo_run), traced.choose(""), costs)


def test_a_small_network_is_drawn_whole(planned):
    plan = planned()
    assert plan.units is None and 0 < plan.seconds == plan.whole < drawing_plan.SECONDS


@pytest.mark.parametrize(("share", "most"), [(0.3, 12), (0.12, 6), (0.04, 3), (1e-6, 0)])
def test_of_a_large_one_as_many_of_each_layer_as_are_done_in_time(planned, demo_run, monkeypatch, share, most):
    whole = planned().whole
    monkeypatch.setattr(drawing_plan, "SECONDS", share * whole)
    plan = planned()
    assert plan.whole == whole and plan.seconds <= share * whole
    names = list(open_run(demo_run).layers["layer"])
    fits = [n for n in (12, 6, 3, 1) if n <= most]
    wanted = choose_units(open_run(demo_run), names, None, max(map(len, plan.units.values())))
    assert plan.units == (wanted if fits else {name: [] for name in names})


def test_later_layers_cost_more_and_a_gpu_less():
    network = load_network("squeezenet1_1", "random")
    traced = Traced(network.module, network.input_shape)
    engine = LocalEngine(torch.device("cpu"), 1)
    costs = list(drawing_plan.seconds_a_unit(network, traced, traced.choose("features.*"), PRESET, engine).values())
    assert costs[0] < costs[len(costs) // 2] < costs[-1] and len(costs) == 25
    assert 50 < 60 * sum(costs) < 60 * 600


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (80, "80 s"), (600, "10 minutes"), (40_000, "11 hours")])
def test_durations_are_said_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_an_overview_shows_the_strongest_crop_of_units_that_are_not_drawn(demo_run: Path, tmp_path: Path):
    run = shutil.copytree(demo_run, tmp_path / "run")
    layer = "stem.relu"
    file = table_file(run, "units", layer)
    rows = read_rows(file, UNITS.names)
    kept = [cell if number < 3 else None for number, cell in enumerate(rows["visualization"].to_pylist())]
    column = rows.schema.get_field_index("visualization")
    write_table(
        file, UNITS, [rows.set_column(column, UNITS.field("visualization"), pa.array(kept, UNITS.field(column).type))]
    )
    cells = list(visualizations(opened := open_run(run), layer, Shown.box, Drawn(opened, [layer])) or [])
    assert [unit["unit"] for unit, _ in cells] == list(range(rows.num_rows))
    for unit, image in cells:
        drawn, fires = unit["unit"] < 3, unit["activation_max"] > 0
        assert (image is not None) == (drawn or fires) and bool(unit.get("crop")) != drawn
