"""The benchmarks run where they say they do."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from actmine.pipeline.relations.neighbors import find_neighbors
from benchmarks import scale
from benchmarks.elsewhere import Elsewhere
from benchmarks.gpu.__main__ import main, measure
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.whole_run import extrapolated, stages_of
from benchmarks.rounds import Timing, interleaved
from tests.small_run import small_run

ROOT = Path(__file__).parents[1]
PLAIN_CHECKOUT = """
import sys

class Absent:
    names = {"webdataset", "braceexpand", "safetensors", "typer", "rich", "aiohttp", "s3fs", "ray", "botocore"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["benchmarks.gpu"]
import runpy
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which would be measured for minutes")
def test_the_gpu_benchmark_needs_no_more_than_a_plain_checkout_and_says_that_there_is_no_gpu():
    done = subprocess.run([sys.executable, "-c", PLAIN_CHECKOUT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "No GPU is at hand" in done.stdout


@pytest.mark.slow
def test_every_kernel_compiles_for_a_gpu_that_is_not_at_hand_and_none_spills():
    pytest.importorskip("triton", reason="needs triton, which comes with torch for NVIDIA GPUs")
    words = [sys.executable, "-m", "benchmarks.gpu", "code", "--device", "cpu", "--small"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kernel in ("norm+add+relu", "gelu", "tap 2048", "counted", "the 50 best", "labels", "in two"):
        assert re.search(rf"{re.escape(kernel)}.* \d+ +0 +\d+ +\d+\n", done.stdout), kernel
    assert "spilling: none" in done.stdout


def test_a_part_that_fails_says_so_in_a_line_and_loses_neither_the_others_nor_its_own_figures(tmp_path, capfd):
    parts = {name: ("tests.parts_of_a_benchmark", name) for name in ("raising", "dying", "good")}
    setting = Setting(torch.device("cpu"), True, 1, 8, tmp_path / "figures.json", tmp_path)
    assert measure(parts, setting) == ["raising", "dying"]
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["raising"] == {"before": 1.5} and figures["failed"].keys() == {"raising", "dying"}
    assert figures["of"]["card"] == "cpu" and figures["bars"]["good / best"]["reached"]
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    (raised,) = (line for line in lines if line.startswith("(raising failed after"))
    assert raised.endswith(f"TwoWords: no room and no time; all of it: {tmp_path / 'failed-raising.txt'})")
    assert "parts_of_a_benchmark.py" in (tmp_path / "failed-raising.txt").read_text()
    assert any(line.startswith("(dying failed after") and "its process died" in line for line in lines)
    assert lines.count("| good / best | 0.95 | ≥ 0.9 | reached |") == 2, "as its part ends, and in the table of all"
    assert lines.count("| minutes to death | 3 minutes | ≤ 2 minutes | missed |") == 2
    assert lines[-1] == "Failed: raising, dying."


def test_the_gpu_benchmark_exits_with_1_where_a_part_failed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", "taps", "--device", "cpu", "--out", str(tmp_path / "out")])
    monkeypatch.setattr("benchmarks.gpu.__main__.run_part", lambda *part: part[0] != "taps")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1 and json.loads((tmp_path / "out" / "figures.json").read_text())["of"]["card"] == "cpu"


def test_the_stages_of_a_whole_run_are_all_of_it_and_longer_by_what_they_depend_on(tmp_path):
    stages = stages_of(find_neighbors(small_run(tmp_path)), 100.0)
    assert sum(stages.values()) == pytest.approx(100.0) and min(stages.values()) >= 0
    record = {
        "units": 42_664, "blocks": 10, "counts": {"seen": 5_000}, "neighbors": {"seconds": 4.0},
        "seconds": {"scan": 2.0, "merge": 1.0, "pictures": 9.0, "picture_tables": 3.0, "tables": 8.0, "mine": 25.0},
    }  # fmt: skip
    thin = {"counts": {"seen": 5_000}, "seconds": {"pictures": 1.5, "picture_tables": 0.5}}
    # 50,000 images are 98 shards of 512 files; of states as large as these 32 are the most, so 25 blocks of 4 shards
    assert extrapolated(record, 35.0, thin) == {
        "beginning and end": 6.0, "scan": 20.0, "merging": 2.5, "pictures and maps": 15.0, "tables of pictures": 5.0,
        "tables": 8.0, "winners": 2.0, "neighbours": 4.0,
    }  # fmt: skip
    assert extrapolated(record, 35.0, thin).keys() == stages.keys()


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("[!_]*.py")), ids=lambda file: file.stem)
def test_every_benchmark_is_a_command_and_says_what_it_measures(file):
    module = importlib.import_module(f"benchmarks.{file.stem}")
    assert module.__doc__ and ('if __name__ == "__main__"' in file.read_text()) == hasattr(module, "main")


def test_one_unit_is_looked_up_in_tables_as_mining_writes_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(scale, "LAYERS", 2)
    monkeypatch.setattr(scale, "UNITS", 12)
    monkeypatch.setattr(scale, "MEMBERS", 60)
    assert scale.exemplar_tables(tmp_path) > 60 * 9_000
    scale.lookups(tmp_path)
    said = capsys.readouterr().out
    assert [line.split("  ")[1] for line in said.splitlines()] == [
        "pandas, the folder", "pandas, the layer's file", "Run.exemplars", "the same with its crops"
    ]  # fmt: skip


def test_candidates_take_turns_and_warm_up_rounds_do_not_count():
    order: list[str] = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, rounds=2, warmup=1)
    assert sorted(order[:3]) == sorted(order[3:6]) == sorted(order[6:]) == ["a", "b", "c"]
    assert order[3:6] == order[6:][::-1]
    assert [len(timing.seconds) for timing in timings.values()] == [2, 2, 2]
    assert Timing((3.0, 1.0, 2.0)).median == 2.0


def counting(start: int) -> object:
    made = [start]

    def call() -> int:
        made[0] += 1
        if made[0] > start + 2:
            raise ValueError("enough")
        return made[0]

    return call


def test_a_candidate_elsewhere_is_made_once_and_its_errors_come_back():
    with Elsewhere(counting, 5, keep=False) as candidate:
        assert [candidate(), candidate()] == [6, 7]
        with pytest.raises(RuntimeError, match="ValueError: enough"):
            candidate()
