"""A network in training: units that came to be, stayed, moved and died are told from each other, beyond chance."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from starlette.testclient import TestClient
from torch import nn
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline import record
from actmine.pipeline.atlas.links import segment
from actmine.pipeline.atlas.server import application as application_of
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.models import Network
from actmine.pipeline.relations.checkpoints import follow
from actmine.pipeline.run import Run, open_run
from tests.making import SMALL, jpeg, write_folder
from tests.test_compare import mined

STAYS, BORN, MOVED, LOST, SILENT = range(5)
WIDTH = 24


def network(step: int) -> Network:
    """A checkpoint of three: what each of its first units computes is told by the step; the others never change."""
    torch.manual_seed(7)
    layer = nn.Conv2d(3, WIDTH, 3, stride=2)
    kernels = _unlike(WIDTH + 3)
    with torch.no_grad():
        layer.bias.zero_()
        layer.weight.copy_(kernels[:WIDTH])
        layer.weight[BORN] = kernels[BORN] if step >= 1 else kernels[WIDTH]
        layer.weight[MOVED] = kernels[MOVED] if step == 2 else kernels[LOST + 10]  # what another unit is in the end
        layer.weight[LOST] = kernels[LOST] if step == 2 else kernels[WIDTH + 1]  # what none is in the end
        if step == 2:
            layer.weight[SILENT], layer.bias[SILENT] = 0, -1
    return Network(f"step-{step}", nn.Sequential(layer, nn.ReLU()).eval(), SMALL, "random", f"step {step}")


def _unlike(count: int) -> torch.Tensor:
    """Kernels `[N, 3, 3, 3]` of orthogonal directions, as far as there are so many."""
    full = torch.linalg.qr(torch.randn(27, 27, generator=torch.Generator().manual_seed(1)))[0]
    return full[:count].reshape(-1, 3, 3, 3) * 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("checkpoints")
    rng = np.random.default_rng(5)
    shapes = {f"{n:03d}.jpg": jpeg(int(rng.integers(1 << 30))) for n in range(160)}
    folder = write_folder(root / "pictures", shapes)
    return [mined(folder, network(step), root / f"step-{step}", sketch=2048) for step in range(3)]


@pytest.fixture(scope="module")
def followed(runs: list[Run]) -> Run:
    follow(runs[2], runs[:2])
    return open_run(runs[2].path)


def layer(run: Run) -> str:
    return str(run.layers["layer"].iloc[-1])


def of(run: Run, unit: int) -> list[dict[str, object]]:
    return run.checkpoints(layer(run), unit).to_dict("records")


def test_a_unit_that_stays_is_itself_at_every_checkpoint(followed):
    for row in of(followed, STAYS):
        assert row["last_similarity"] == pytest.approx(1, abs=1e-5) and row["born"] and not row["lost"]
        assert (row["heir_layer"], row["heir_unit"]) == (layer(followed), STAYS)


def test_similarities_are_those_of_the_sketches_of_both_runs(runs, followed):
    first, last = (_sketches(runs[at], layer(followed)) for at in (0, 2))
    second = _sketches(runs[1], layer(followed))
    rows = followed.checkpoints(layer(followed))
    for row in rows[rows["last_similarity"].notna()].itertuples():
        earlier = first if row.checkpoint == 0 else second
        assert row.last_similarity == pytest.approx(float(earlier[row.unit] @ last[row.unit]), abs=1e-5)
        if row.checkpoint == 1:
            assert row.before_similarity == pytest.approx(float(first[row.unit] @ second[row.unit]), abs=1e-5)
    assert rows["last_similarity"].notna().sum() >= 2 * (WIDTH - 3)


def test_a_unit_is_born_where_from_then_on_it_is_like_its_end_beyond_chance(followed):
    before, after = of(followed, BORN)
    assert (before["born"], after["born"]) == (False, True)
    assert before["last_q_value"] >= 0.05 and after["last_similarity"] == pytest.approx(1, abs=1e-5)
    assert [row["born"] for row in of(followed, MOVED)] == [False, False]


def test_what_a_unit_was_is_found_in_the_unit_that_took_it_over(followed):
    for row in of(followed, MOVED):
        assert (row["heir_unit"], row["lost"]) == (LOST + 10, False) and row["heir_similarity"] > 0.99


def test_what_no_unit_of_the_end_is_like_is_lost(followed):
    assert [row["lost"] for row in of(followed, LOST)] == [True, True]


def test_a_unit_that_has_died_has_no_similarity_but_what_it_was_may_live_on(followed):
    for row in of(followed, SILENT):
        assert row["varies"] and np.isnan(row["last_similarity"]) and not row["born"]


def test_the_record_counts_what_the_table_says(followed):
    about = followed.record["checkpoints"]
    layers = [followed.checkpoints(name) for name in followed.layers["layer"]]
    for at in (0, 1):
        rows = [each[each["checkpoint"] == at] for each in layers]
        assert about["born"][at] == sum(int(each["born"].sum()) for each in rows)
        assert about["lost"][at] == sum(int(each["lost"].sum()) for each in rows)
        assert about["varying"][at] == sum(int(each["varies"].sum()) for each in rows)
    assert [each["name"] for each in about["runs"]] == ["step-0", "step-1"]


def test_following_again_gives_the_same_bytes(runs, followed):
    files = sorted((followed.path / "checkpoints").glob("*.parquet"))
    before = [file.read_bytes() for file in files]
    follow(followed, runs[:2])
    assert [file.read_bytes() for file in files] == before and files


def test_a_pattern_names_checkpoints_in_the_order_of_their_numbers(runs, tmp_path):
    for number in (10, 9):
        (tmp_path / f"step-{number}").symlink_to(runs[number - 9].path)
    shutil.copytree(runs[2].path, tmp_path / "step-11")
    last = str(tmp_path / "step-11")
    words = ["compare", "--run", last, "--other", str(tmp_path / "step-*"), "--checkpoints", "--json"]
    told = json.loads(CliRunner().invoke(application(), words, catch_exceptions=False).stdout)
    assert [each["name"] for each in told["runs"]] == ["step-9", "step-10"]
    shown = CliRunner().invoke(application(), words[:-1], catch_exceptions=False).output
    assert "step-10" in shown and "as in the end" in shown and "lost" in shown
    none = CliRunner().invoke(application(), [*words[:4], str(tmp_path / "none-*")])
    assert none.exit_code and "names no finished run" in none.output


def test_several_others_are_compared_one_by_one_and_both_ways(runs):
    words = ["compare", "--run", str(runs[2].path), "--other", f"{runs[0].path},{runs[1].path}", "--both", "--json"]
    told = json.loads(CliRunner().invoke(application(), words, catch_exceptions=False).stdout)
    assert [Path(each["table"]).stem for each in told["comparisons"]] == ["step-0", "step-1"]
    for other in runs[:2]:
        assert list(record.read_record(other.path)["matches"]) == ["step-2"]
        assert len(open_run(other.path).matches(runs[2].path, layer(other)))


def test_networks_with_other_layers_are_no_checkpoints_of_each_other(runs, tmp_path):
    other = nn.Sequential(nn.Conv2d(3, WIDTH + 1, 3, stride=2), nn.ReLU()).eval()
    wider = Network("wider", other, SMALL, "random", "wider")
    run = mined(Path(runs[0].record["url"]), wider, tmp_path / "wider", sketch=2048)
    with pytest.raises(UserError, match=r"of another network .* has 25 units, not 24"):
        follow(runs[2], [run])


def test_units_that_were_not_followed_are_an_error_with_the_command(runs):
    with pytest.raises(UserError, match=r"were not followed through checkpoints: .*compare"):
        runs[0].checkpoints(layer(runs[0]))


def test_a_units_page_shows_it_through_training_with_the_pictures_of_those_runs(followed):
    client = TestClient(application_of(followed.path.parent), base_url="http://127.0.0.1:8420")
    address = f"/run/step-2/layer/{segment(layer(followed))}"
    page = client.get(f"{address}/{BORN}").text.split('id="training"')[1].split("</section>")[0]
    assert re.findall(r'<li class="(.*?)"', page) == ["chance", " birth"]
    assert "As in the end since <bdi>step-1</bdi>; grey before" in page
    pictures = re.findall(r'src="(.*?/checkpoint/.*?)"', page)
    own = [client.get(f"/run/step-{at}/layer/{segment(layer(followed))}/{BORN}").text for at in (0, 1)]
    assert len(pictures) == 2
    for at, picture in enumerate(pictures):
        theirs = re.search(rf'src="(/run/step-{at}/picture/[^"]*?/{BORN}/crop/0[^"]*)"', own[at])
        assert theirs and client.get(picture).content == client.get(theirs[1]).content
        assert f'href="/run/step-{at}/layer/{segment(layer(followed))}/{BORN}"' in page
    lost = client.get(f"{address}/{LOST}").text
    assert "No unit of this run is known to be like what it was at <bdi>step-0, step-1</bdi>" in lost
    moved = client.get(f"{address}/{MOVED}").text.split('id="training"')[1].split("</section>")[0]
    heir = rf'<bdi>step-\d</bdi> is most like <a href="{address}/{LOST + 10}">.*?</a> in this run \((0\.99|1\.00)\)'
    assert len(re.findall(heir, moved)) == 2 and "What it was" not in page


def test_the_page_of_training_counts_births_as_the_table_does_and_lists_who(followed):
    client = TestClient(application_of(followed.path), base_url="http://127.0.0.1:8420")
    rows = followed.checkpoints(layer(followed))
    first = rows[rows["born"]].groupby("unit")["checkpoint"].min()
    for at in (0, 1, 2):
        wanted = sorted(first[first == at].index) if at < 2 else sorted(set(range(WIDTH)) - set(first.index))
        page = client.get(f"/training?at={at}").text
        listed = re.findall(r'<h3><a href="/layer/[^"]*/(\d+)"', page)
        assert [int(each) for each in listed] == wanted[:24] and f"<small>{len(wanted)} units</small>" in page
    lost = client.get("/training?at=0&lost=1").text
    wanted = rows[(rows["checkpoint"] == 0) & rows["lost"]]["unit"].tolist()
    assert [int(each) for each in re.findall(r'<h3><a href="/layer/[^"]*/(\d+)"', lost)] == wanted
    for nowhere in ("/training?at=3", "/training?at=2&lost=1", "/training?page=9", "/training?at=99999999999"):
        assert client.get(nowhere).status_code == 404, nowhere


def test_programs_get_the_rows_of_the_table(followed):
    client = TestClient(application_of(followed.path), base_url="http://127.0.0.1:8420")
    rows = followed.checkpoints(layer(followed))
    every = client.get(f"/api/checkpoints?limit=1000&offset={len(rows) - 3}").json()
    own = client.get(f"/api/layer/{segment(layer(followed))}/{WIDTH - 1}/checkpoints").json()
    assert every["count"] == len(rows) and own["rows"] == every["rows"][-2:] and len(every["rows"]) == 3
    wanted = rows[rows["unit"] == WIDTH - 1]["last_similarity"].tolist()
    assert [row["last_similarity"] for row in own["rows"]] == pytest.approx(wanted)
    matched = [pd.read_parquet(path) for path in sorted((followed.path / "matches").glob("*.parquet"))]
    assert client.get("/api/matches").json()["count"] == sum(map(len, matched))


def test_a_run_whose_units_were_not_followed_has_no_such_page(runs):
    client = TestClient(application_of(runs[0].path), base_url="http://127.0.0.1:8420")
    assert client.get("/training").status_code == 404 and "/training" not in client.get("/").text


def _sketches(run: Run, name: str) -> np.ndarray:
    from actmine.pipeline.tables.sketch_tables import read_sketches

    found = read_sketches(run.path, [name], 2048)
    vectors = np.zeros((WIDTH, 2048))
    vectors[found.unit] = found.vectors
    return vectors
