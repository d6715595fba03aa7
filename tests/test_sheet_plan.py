"""What `mine` draws at its end takes a stated time, whatever the network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.sheets import sheet_plan as planned
from actmine.pipeline.sheets.sheet_plan import OF_A_LAYER, SECONDS, sheet_plan
from tests.making import jpeg, write_folder


def named(widths: list[int]) -> dict[str, int]:
    return {f"layer {number}": width for number, width in enumerate(widths)}


def test_a_network_like_squeezenet_gets_everything():
    units = named([64, 16, 64, 64] * 6 + [256, 256])
    plan = sheet_plan(units, cores=2)
    assert plan.whole and plan.overviews == plan.sheets == tuple(units) and plan.most == 12


def test_of_hundreds_of_layers_some_are_drawn_from_end_to_end():
    units = named([768, 2304, 768, 3072, 768] * 60)
    plan = sheet_plan(units, cores=2)
    assert not plan.whole and plan.most == 1 and plan.sheets == tuple(units)
    places = [list(units).index(name) for name in plan.overviews]
    assert places[0] == 0 and places[-1] == 299
    steps = [after - before for before, after in pairwise(places)]
    assert max(steps) - min(steps) <= 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4096), min_size=1, max_size=1200), st.integers(1, 64))
def test_the_time_is_kept_and_no_less_is_drawn_than_fits(widths, cores):
    units = named(widths)
    plan = sheet_plan(units, cores)
    of_overviews = sum(units[name] for name in plan.overviews) * planned._A_CELL
    of_sheets = len(plan.sheets) * plan.most * planned._A_SHEET / cores
    assert of_overviews <= SECONDS / 2 or len(plan.overviews) <= 2
    assert of_sheets <= SECONDS / 2
    larger = OF_A_LAYER[max(OF_A_LAYER.index(plan.most) - 1, 0)]
    assert larger == plan.most or larger * len(units) * planned._A_SHEET / cores > SECONDS / 2
    assert set(plan.overviews) | set(plan.sheets) <= set(units)


def test_mine_says_what_it_did_not_draw_and_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write_folder(tmp_path / "pictures", {f"{number}.jpg": jpeg(number) for number in range(6)})
    monkeypatch.setattr(planned, "SECONDS", 0.1)
    words = ["mine", "--dataset", str(folder), "--model", "demo", "--weights", "random", "--topk", "2", "--sketch", "0"]
    words += ["--no-visualize", "--device", "cpu", "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(application(["mine"]), words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "Drawn were overviews of 2 of 9 layers" in said and f"sheets --run {tmp_path / 'run'} --most 12" in said
    drawn = {path.parent.name for path in (tmp_path / "run" / "sheets").glob("*/overview.png")}
    assert drawn == {"stem.relu", "classifier"}
