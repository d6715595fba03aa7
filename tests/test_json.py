"""`--json`: standard output holds one JSON object, standard error nothing, and what it names is there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import actmine.pipeline.atlas.server as server
from actmine.jobs.__main__ import application
from actmine.options.records import COMMANDS, options_of
from actmine.pipeline.ascent.presets import PRESETS
from actmine.pipeline.demo.train import Training
from actmine.pipeline.storage.parquet import read_rows
from tests.making import encoded, picture, write_folder

IMAGES = 12
LAYER = "stem.relu"
MINE = ["--layers", LAYER, "--topk", "4", "--no-visualize", "--device", "cpu", "--workers", "1", "--direction", "both",
        "--no-sheets"]  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A folder with `photos`, two runs over them, `run` and `other`, and what mining said."""

    root: Path
    mined: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.root / "run"


def told(*words: object) -> dict[str, Any]:
    """What `python -m actmine *words --json` says: all of it is one JSON object on one line."""
    result = CliRunner().invoke(application([str(words[0])]), [*map(str, words), "--json"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert result.stderr == "" and result.stdout.count("\n") == 1
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("json")
    photos = {f"{kind}/{seed}.png": encoded(picture(120, 120, seed), "PNG")
              for seed in range(IMAGES) for kind in [f"kind{seed % 2}"]}  # fmt: skip
    write_folder(root / "photos", photos)
    mined = told("mine", "--dataset", root / "photos", "--model", "demo", *MINE, "--run", root / "run")
    shutil.copytree(root / "run", root / "other")
    return Place(root, mined)


def mining(place: Place) -> None:
    assert place.mined["run"] == str(place.run) and place.mined["counts"]["seen"] == IMAGES


def drawing(place: Place) -> None:
    quick = replace(PRESETS["noise"], stages=tuple(replace(stage, steps=2) for stage in PRESETS["noise"].stages))
    with patch("actmine.commands.visualize.recipe_of", lambda preset, generator: quick):
        said = told("visualize", "--run", place.run, "--units", "0", "--preset", "noise")
    assert said["preset"] == "noise" and said["pictures"] == 1


def viewing(place: Place) -> None:
    said = told("views", "--run", place.run, "--most", "1")
    assert said["run"] == str(place.run) and said["method"] == "deconvnet"
    assert said["views"] == len(read_rows(place.run / "views" / f"{LAYER}-deconvnet.parquet"))


def focusing(place: Place) -> None:
    said = told("focus", "--run", place.run, "--most", "1")
    assert said["most"] == 1 and said["run"] == str(place.run)
    rows = pd.read_parquet(place.run / "exemplars")
    assert rows.focus_left.notna().sum() == said["found"] and not rows.focus_left[rows["rank"] > 0].notna().any()


def checking(place: Place) -> None:
    assert pd.read_parquet(place.run / "exemplars").crop_activation.isna().all(), "only when asked for"
    said = told("check", "--run", place.run, "--most", "2")
    rows = pd.read_parquet(place.run / "exemplars")
    assert said["checked"] == rows.crop_activation.notna().sum() == (rows["rank"] < 2).sum()


def faceting(place: Place) -> None:
    pytest.importorskip("sklearn", reason="needs the extra facets")
    said = told("facets", "--run", place.run, "--units", "0-1")
    assert said["units"] <= 2 and said["by"]


def scoring(place: Place) -> None:
    said = told("score", "--run", place.run, "--units", "0-1")
    assert said["similarity"] == "builtin" and said["run"] == str(place.run) and said["scored"] >= len(said["layers"])


def comparing(place: Place) -> None:
    said = told("compare", "--run", place.run, "--other", place.root / "other", "--most", "2")
    assert said["other"] == str(place.root / "other") and said["layers"] == [LAYER] and said["most"] == 2
    assert len({row["unit"] for row in read_rows(Path(said["table"])).to_pylist()}) + said["without_variance"] \
        == said["units"]  # fmt: skip


def sharding(place: Place) -> None:
    said = told("shards", "--source", place.root / "photos", "--out", place.root / "shards", "--samples-per-shard", 5)
    assert said["samples"] == IMAGES and said["skipped"] == said["renamed"] == 0
    assert said["shards"] == len(list(Path(said["folder"]).glob("*.tar"))) == 3


def inspecting(place: Place) -> None:
    image = place.root / "photos" / "kind0" / "0.png"
    said = told("inspect", "--image", image, "--run", place.run, "--out", place.root / "seen", "--most", "2")
    assert Path(said["page"]).is_file() and [each["layer"] for each in said["layers"]] == [LAYER]
    assert [len(each["units"]) for each in said["layers"]] == [2]
    assert {Path(name).name for name in said["pictures"]} == {each.name for each in (place.root / "seen").glob("*.png")}


def exporting(place: Place) -> None:
    said = told("atlas-export", "--run", place.run, "--out", place.root / "site")
    assert Path(said["page"]).is_file() and said["layers"] == 1
    pages = {"units": "layer/*/*.html", "images": "image/*.html"}
    assert {name: said[name] for name in pages} == {
        name: len(list((place.root / "site").glob(pattern))) for name, pattern in pages.items()
    }


def listing(place: Place) -> None:
    result = CliRunner().invoke(application(["layers"]), ["layers", "--model", "demo", "--json"])
    assert result.stderr == "" and [row["layer"] for row in json.loads(result.stdout)][-1] == "classifier"


CHECKS = [mining, drawing, viewing, focusing, checking, faceting, scoring, comparing, sharding, inspecting, exporting]


@pytest.mark.parametrize("check", [*CHECKS, listing])
def test_a_script_reads_one_json_object_and_nothing_else(place: Place, check: Callable[[Place], None]) -> None:
    threads = torch.get_num_threads()
    check(place)
    torch.set_num_threads(threads)


def test_every_command_has_it():
    for command in COMMANDS:
        assert "as_json" in {option.name for option in fields(options_of(command))}, command


def test_the_training_of_the_demos_network_is_told_in_numbers(tmp_path, monkeypatch):
    threads = torch.get_num_threads()

    def trained(directory: Path, out: Path, **settings: Any) -> Training:
        out.write_bytes(b"weights")
        return Training(0.75, 8, 16, settings["epochs"], 1.5, {"a": 1}, {"a": 4})

    monkeypatch.setattr("actmine.commands.demo_model.train", trained)
    said = told("demo-model", "--out", tmp_path / "weights", "--epochs", "3")
    torch.set_num_threads(threads)
    assert said["out"] == str(tmp_path / "weights") and said["epochs"] == 3
    assert said["accuracy"] == 0.75 and said["dead_units"] == {"a": 1}


def test_the_server_says_its_address_as_one_line_of_json(place, monkeypatch):
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: None)
    said = told("atlas", "--run", place.run, "--port", "0")
    assert said["run"] == str(place.run) and said["address"].startswith("http://127.0.0.1:")


def test_a_mistake_leaves_standard_output_empty(place):
    shutil.rmtree(place.root / "gone", ignore_errors=True)
    for command, more in (("views", []), ("atlas", []), ("atlas-export", ["--out", str(place.root / "x")])):
        words = [command, "--run", str(place.root / "gone"), *more, "--json"]
        result = CliRunner().invoke(application([command]), words)
        assert result.exit_code == 1 and result.stdout == "" and "no finished run" in result.stderr
