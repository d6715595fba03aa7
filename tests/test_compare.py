"""Two networks over one dataset: planted copies are found, a network is itself, and what cannot be compared is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from torch import nn
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline import record
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.progress import Silent
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.relations.compare import best_pairs, compare_runs
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.run import Run, open_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.words import SEARCHES
from tests.making import SMALL, jpeg, write_folder

CPU = torch.device("cpu")
PLAIN, ORDER, WIDER = list(range(8)), [5, 2, 7, 0, 3, 6, 1, 4], list(range(9))


def network(name: str, order: list[int], width: int = 8) -> Network:
    """Two convolutions, the channels of the first in some `order`: what it computes in the end is the same for all."""
    torch.manual_seed(4)
    first, second = nn.Conv2d(3, width, 3, stride=2), nn.Conv2d(width, 6, 3)
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        second.weight.copy_(second.weight[:, order])
    module = nn.Sequential(first, nn.ReLU(), second).eval()
    return Network(name, module, SMALL, "random", f"random {name}")


def mined(folder: Path, made: Network, run: Path, **keep: int) -> Run:
    traced = Traced(made.module, made.input_shape)
    dataset = find_dataset(str(folder))
    mine(dataset, made, traced, traced.choose(""), run, CPU, MineSettings(StatisticsOptions(4, **keep), workers=1))  # type: ignore[arg-type]
    return open_run(run)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures"), {f"{n:03d}.jpg": jpeg(n) for n in range(120)})


@pytest.fixture(scope="module")
def runs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    root = tmp_path_factory.mktemp("runs")
    plain = mined(folder, network("plain", PLAIN), root / "plain")
    return plain, mined(folder, network("shuffled", ORDER), root / "shuffled")


@pytest.mark.parametrize("search", SEARCHES)
def test_every_unit_of_a_permuted_copy_is_found(runs, search):
    plain, shuffled = runs
    best = best_pairs(compare_runs(plain, shuffled, search=search), 14)
    assert len(best.pairs) + best.silent == 14 and len(best.pairs) >= 12
    for row in best.pairs.to_pylist():
        assert row["other_layer"] == row["layer"]
        wanted = ORDER.index(row["unit"]) if row["layer"] == plain.layers["layer"][0] else row["unit"]
        assert row["other_unit"] == wanted
        assert row["similarity"] == pytest.approx(1, abs=1e-5)
    assert best.pairs["similarity"].to_pylist() == sorted(best.pairs["similarity"].to_pylist(), reverse=True)


def test_two_runs_of_one_name_have_a_table_each(runs, tmp_path):
    plain, shuffled = (shutil.copytree(run.path, tmp_path / run.path.name) for run in runs)
    one, other, third = (tmp_path / name / "net" for name in "xyz")
    for run, to in ((plain, one), (shuffled, other)):
        shutil.copytree(run, to)
    files = [compare_runs(open_run(plain), open_run(to)) for to in (one, other, one, other)]
    assert files[:2] == files[2:] and files[0] != files[1] and files[0].stem == "net"
    run = open_run(plain)
    layer = run.layers["layer"][0]
    for to in (one, other):
        best = run.matches(to, layer).query("rank == 0")
        assert best["other_unit"].equals(best["unit"]) == (to is one)
    with pytest.raises(UserError, match=r"several runs called net: say its folder"):
        run.matches("net", layer)
    with pytest.raises(UserError, match=r"several runs called net"):
        run.matches(third, layer)


def test_a_network_is_itself(runs):
    plain, _ = runs
    pairs = best_pairs(compare_runs(plain, plain, most=1), 14).pairs.to_pylist()
    assert pairs
    for row in pairs:
        assert (row["other_layer"], row["other_unit"]) == (row["layer"], row["unit"])
        assert row["similarity"] == 1.0


def test_some_layers_are_compared_with_all_of_the_other(runs):
    plain, shuffled = runs
    last = plain.layers["layer"].iloc[-1]
    path = compare_runs(plain, shuffled, [last], most=3)
    rows = pd.read_parquet(path)
    assert set(rows["layer"]) == {last} and rows.groupby("unit").size().eq(3).all()
    about = record.read_record(plain.path)["matches"]["shuffled"]
    assert about["other"] == str(shuffled.path) and about["other_fingerprint"] == shuffled.record["fingerprint"]
    assert about["layers"] == [last] and about["standard_error"] == 0.03125


def test_matches_within_a_run_agree_with_its_neighbours(runs):
    plain, _ = runs
    find_neighbors(plain.path, most=3)
    rows = pd.read_parquet(compare_runs(plain, plain, most=4))
    others = rows[(rows["layer"] != rows["other_layer"]) | (rows["unit"] != rows["other_unit"])]
    pd.testing.assert_series_equal(
        others["similarity"].reset_index(drop=True), pd.read_parquet(plain.path / "neighbors.parquet")["similarity"]
    )


def test_similarity_is_the_correlation_of_both_networks_activations(folder, runs, tmp_path):
    plain, _ = runs
    other = mined(folder, network("wider", WIDER, 9), tmp_path / "wider")
    rows = pd.read_parquet(compare_runs(plain, other, most=20))
    exact = {run.path.name: _image_activations(run, folder) for run in (plain, other)}
    errors = []
    for row in rows.itertuples():
        one, two = exact["plain"][row.layer][:, row.unit], exact["wider"][row.other_layer][:, row.other_unit]
        errors.append(row.similarity - np.corrcoef(one, two)[0, 1])
    assert len(errors) > 100 and np.abs(errors).mean() <= 0.03 and np.abs(errors).max() <= 0.15


def _image_activations(run: Run, folder: Path) -> dict[str, np.ndarray]:
    """By layer `[N, U]`: mined with every image an exemplar."""
    made = network("wider", WIDER, 9) if run.path.name == "wider" else network("plain", PLAIN)
    traced = Traced(made.module, made.input_shape)
    full = run.path.parent / f"full-{run.path.name}"
    mine(
        find_dataset(str(folder)),
        made,
        traced,
        traced.choose(""),
        full,
        CPU,
        MineSettings(StatisticsOptions(120), workers=1),
    )
    rows = pd.read_parquet(full / "exemplars", columns=["layer", "unit", "image_id", "activation"])
    return {
        layer: part.pivot(index="image_id", columns="unit", values="activation").to_numpy()
        for layer, part in rows.groupby("layer")
    }


def refusal(run: Run, other: Run) -> str:
    with pytest.raises(UserError) as caught:
        compare_runs(run, other)
    return str(caught.value)


def test_runs_over_other_datasets_are_refused(runs, tmp_path):
    plain, _ = runs
    few = write_folder(tmp_path / "few", {f"{n}.jpg": jpeg(n) for n in range(5)})
    said = refusal(plain, mined(few, network("plain", PLAIN), tmp_path / "few-run"))
    assert "different datasets" in said and str(plain.path) in said and "few" in said and "same DATASET" in said


def test_runs_without_sketches_or_with_others_are_refused(runs, folder, tmp_path):
    plain, _ = runs
    none = mined(folder, network("plain", PLAIN), tmp_path / "none", sketch=0)
    short = mined(folder, network("plain", PLAIN), tmp_path / "short", sketch=128)
    assert not (none.path / "sketches").exists()
    for pair in ((plain, none), (none, plain)):
        said = refusal(*pair)
        assert f"{none.path} was mined without sketches" in said and "--sketch 1024" in said
    said = refusal(plain, short)
    assert "length 1024" in said and "128" in said


def test_images_that_only_one_of_them_saw_are_counted(runs, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(Silent, "say", lambda self, sentence: said.append(sentence))
    compare_runs(*runs)
    assert not said
    plain, shuffled = runs
    skipped = shuffled.path / "skipped.parquet"
    before = skipped.read_bytes()
    rows = pd.DataFrame({"shard": [0, 0], "position": [3, 4], "key": ["003", "004"], "error": ["gone", "gone"]})
    rows.to_parquet(skipped)
    compare_runs(plain, shuffled)
    skipped.write_bytes(before)
    assert len(said) == 1
    assert said[0].startswith("2 of 120 samples were seen by only one of the two runs (0 and 2 skipped)")


def test_a_reader_gets_the_matches_of_a_unit_or_hears_why_not(runs):
    plain, shuffled = runs
    compare_runs(plain, shuffled)
    first = plain.layers["layer"].iloc[0]
    found = open_run(plain.path).matches("shuffled", first, 3)
    assert found["rank"].tolist() == [0, 1, 2, 3, 4] and found["other_unit"][0] == ORDER.index(3)
    assert open_run(plain.path).matches(shuffled.path, first).equals(open_run(plain.path).matches("shuffled", first))
    with pytest.raises(UserError, match=r"has no matches in elsewhere: .*-m actmine compare --run .* --other …"):
        plain.matches("elsewhere", first)


def test_mining_anew_forgets_what_was_compared(folder, tmp_path):
    made = network("plain", PLAIN)
    run = mined(folder, made, tmp_path / "run")
    path = compare_runs(run, run)
    (run.path / "run.json").unlink()
    mined(folder, made, run.path)
    assert not path.exists() and "matches" not in record.read_record(run.path)


def test_the_command_shows_the_best_pairs_and_refuses_in_one_sentence(runs):
    plain, shuffled = runs
    app = application(["compare"])
    done = CliRunner().invoke(app, ["compare", "--run", str(plain.path), "--other", str(shuffled.path), "--most", "2"])
    assert done.exit_code == 0, done.output
    assert "Most alike" in done.output and "1.000" in done.output
    said = " ".join(done.output.split())
    assert "2 best matches of" in said and "units have a match that unrelated units do not reach by chance" in said
    for words, problem in (
        (["--other", ""], "OTHER is empty"),
        (["--other", "nowhere"], "no finished run in nowhere"),
        (["--other", str(shuffled.path), "--layers", "none"], "has no layer 'none'"),
        (["--other", str(shuffled.path), "--search", "fast"], "none of exact, faiss"),
    ):
        done = CliRunner().invoke(app, ["compare", "--run", str(plain.path), *words])
        assert done.exit_code == 1 and problem in done.output and "Traceback" not in done.output


def test_mining_finds_units_alike_unless_told_not_to(folder, tmp_path):
    words = ["mine", "--dataset", str(folder), "--model", "demo", "--weights", "random", "--layers", "stem.*"]
    words += ["--no-visualize", "--no-sheets", "--focus", "0", "--check-crops", "0", "--device", "cpu"]

    def mined_with(run: str, length: int) -> Result:
        return CliRunner().invoke(
            application(["mine", "layers"]), [*words, "--run", str(tmp_path / run), "--sketch", str(length)]
        )

    assert "neighbors.parquet" in mined_with("some", 192).output
    assert open_run(tmp_path / "some").record["neighbors"]["length"] == 192
    assert len(open_run(tmp_path / "some").neighbors("stem.relu", 0)) == 10
    assert mined_with("none", 0).exit_code == 0
    assert not (tmp_path / "none" / "neighbors.parquet").exists()
    refused = mined_with("odd", 100)
    assert refused.exit_code == 1 and "--sketch 100 is no length of sketches" in refused.output
