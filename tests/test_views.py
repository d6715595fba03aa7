"""Views of a run: every one as autograd has it, resumed, repeated, side by side, and what is said when it cannot be."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as transforms
from typer.testing import CliRunner

import actmine.pipeline.stages.views as views_stage
from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.projection import METHODS
from actmine.pipeline.exemplars.view_colours import shown
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.progress import Silent
from actmine.pipeline.run import open_run, picture
from actmine.pipeline.stages.views import view_run
from actmine.schemas.views import INPUT_BOX, VIEWS
from tests.making import encoded, jpeg, write_folder
from tests.making import picture as drawn
from tests.probing import gradients
from tests.stage_parts import committing, interrupted
from tests.test_focus import PLAIN, TALL, Small, copied, mined, network, seeded

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 pictures of 32 x 32 pixels."""
    files = {f"{number:02d}.png": encoded(drawn(32, 32, number), "PNG") for number in range(30)}
    return find_dataset(str(write_folder(tmp_path_factory.mktemp("squares"), files)))


@pytest.fixture(scope="module")
def small_run(squares: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(squares, network(seeded(Small)), tmp_path_factory.mktemp("small") / "run", topk=5)


def viewed(
    dataset: Dataset, subject: Network, run: Path, layers: str = "", method: str = "deconvnet", most: int = 3,
    workers: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """The views of a mined run by a method, of all its layers."""
    traced = Traced(subject.module, subject.input_shape)
    shards = {shard.number: shard for shard in dataset.shards}
    engine = LocalEngine(CPU, workers)
    view_run(run, shards, subject, traced, traced.choose(layers), engine, method=method, most=most)
    return pd.concat([pd.read_parquet(path) for path in sorted((run / "views").glob(f"*-{method}.parquet"))])


def tables(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "views").glob("*.parquet"))}


@pytest.mark.parametrize("method", METHODS)
def test_a_view_is_the_units_gradient_inside_its_receptive_field(method, squares, small_run, tmp_path):
    rows = viewed(squares, network(seeded(Small)), copied(small_run, tmp_path / "run"), method=method)
    exemplars = pd.read_parquet(small_run / "exemplars").set_index(["layer", "unit", "rank"])
    folder = Path(squares.shards[0].url)
    paths = pd.read_parquet(small_run / "images.parquet").set_index("image_id")["path"]
    traced = Traced(seeded(Small).eval(), (3, 32, 32))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PLAIN.mean, PLAIN.std))
    assert set(rows["layer"]) == {"narrow", "relu", "head"} and (rows["method"] == method).all()
    for row in rows.iloc[::5].to_dict("records"):
        exemplar = exemplars.loc[row["layer"], row["unit"], row["rank"]]
        assert exemplar["activation"] > 0 and exemplar["image_id"] == row["image_id"]
        left, top, right, bottom = box = [row[side] for side in INPUT_BOX]
        assert box == [exemplar[side] for side in ("left", "top", "right", "bottom")]  # the input is the original
        image = (transforms.to_tensor(Image.open(folder / paths[row["image_id"]])) - mean) / std
        y, x = (0, 0) if row["layer"] == "head" else (int(exemplar["y"]), int(exemplar["x"]))
        spot = row["unit"], y, x
        found_all = gradients(PLAIN, traced, row["layer"], METHODS[method], image[None], [spot])
        values = found_all[0].permute(1, 2, 0).numpy()
        outside = values.copy()
        outside[top:bottom, left:right] = 0
        assert not outside.any()
        found = shown(values[top:bottom, left:right])
        if found is None:
            assert row["view"] is None and np.isnan(row["scale"])
            continue
        assert row["scale"] == pytest.approx(found[1], rel=1e-4)
        pixels = np.asarray(picture(row["view"])).astype(int)
        assert pixels.shape == (bottom - top, right - left, 3)
        assert np.abs(pixels - found[0]).max() <= 1


def test_only_the_first_exemplars_that_fire_have_views(squares, small_run, tmp_path):
    run = copied(small_run, tmp_path / "run")
    rows = viewed(squares, network(seeded(Small)), run, most=2)
    exemplars = pd.read_parquet(run / "exemplars")
    wanted = exemplars[(exemplars["rank"] < 2) & (exemplars["activation"] > 0)]
    keys = ["layer", "unit", "rank"]
    assert sorted(map(tuple, rows[keys].to_numpy())) == sorted(map(tuple, wanted[keys].to_numpy()))
    assert not ((rows["layer"] == "relu") & (rows["unit"] == 3)).any()
    about = json.loads((run / "run.json").read_bytes())["views"]["deconvnet"]
    assert (about["most"], about["layers"], about["projected"]) == (2, 3, len(wanted))
    assert about["views"] == rows["scale"].notna().sum()


def test_the_tables_are_as_their_schema_says_and_a_reader_finds_them(squares, small_run, tmp_path):
    run = copied(small_run, tmp_path / "run")
    assert open_run(run).views("relu").empty
    viewed(squares, network(seeded(Small)), run, "relu")
    file = pq.ParquetFile(run / "views" / "relu-deconvnet.parquet")
    assert file.schema_arrow.equals(VIEWS, check_metadata=True)
    rows = open_run(run).views("relu", 1)
    assert rows["rank"].tolist() == [0, 1, 2] and (rows["unit"] == 1).all()
    assert picture(rows["view"].iloc[0]).mode == "RGB"
    assert len(open_run(run).views("relu")) > 3 and open_run(run).views("relu", 3).empty
    assert open_run(run).views("relu", 1, "guided").empty
    with pytest.raises(UserError, match="no layer 'rela'"):
        open_run(run).views("rela")


def test_two_workers_give_the_bytes_of_one(tmp_path, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.exemplars.exemplar_parts._EXEMPLARS_A_PART", 9)
    files = {f"{number:02d}.jpg": jpeg(number, 40 + 7 * number, 90 - number) for number in range(20)}
    dataset, subject = find_dataset(str(write_folder(tmp_path / "odd", files))), network(seeded(Small), TALL)
    one = mined(dataset, subject, tmp_path / "one")
    two = copied(one, tmp_path / "two")
    assert len(viewed(dataset, subject, one, workers=1)) > 30
    viewed(dataset, subject, two, workers=2)
    assert tables(one) == tables(two)


def test_what_travels_to_another_process_projects_the_same(squares, small_run):
    subject = network(seeded(Small))
    traced = Traced(subject.module, subject.input_shape)
    shards = {shard.number: shard for shard in squares.shards}
    viewing = views_stage._Viewing(
        small_run, shards, Subject(subject, traced, traced.choose("relu")), LocalEngine(CPU, 1), Silent(), "guided", 3
    )
    parts = list(viewing.parts())
    here = [found for _, found in LocalEngine(CPU, 1).map(viewing.work, parts, lambda tally: None)]
    work, travelled = pickle.loads(pickle.dumps((viewing.work, parts)))
    assert [found for _, found in LocalEngine(CPU, 1).map(work, travelled, lambda tally: None)] == here
    assert sum(map(len, here)) == 21 and work.name(travelled[0]) == "part 0 of the views by guided of relu"


def test_an_interrupted_projection_keeps_its_parts_and_ends_with_the_same_bytes(
    squares, small_run, tmp_path, monkeypatch
):
    monkeypatch.setattr("actmine.pipeline.exemplars.exemplar_parts._EXEMPLARS_A_PART", 7)
    subject = network(seeded(Small))
    whole, broken = copied(small_run, tmp_path / "whole"), copied(small_run, tmp_path / "broken")
    viewed(squares, subject, whole)
    with interrupted(monkeypatch, after=2) as before:
        viewed(squares, subject, broken)
    assert len(list(broken.glob("state/views-deconvnet-*/*.arrow"))) == 2
    with committing(monkeypatch) as again:
        viewed(squares, subject, broken)
    assert again and not {*again} & {*before}
    assert tables(broken) == tables(whole) and not list((broken / "state").glob("views-*"))


def test_methods_and_layers_stand_side_by_side_and_nothing_is_done_twice(squares, small_run, tmp_path, monkeypatch):
    run, subject = copied(small_run, tmp_path / "run"), network(seeded(Small))
    viewed(squares, subject, run, "relu")
    first = tables(run)
    projected: list[int] = []
    write = views_stage._Viewing.write
    monkeypatch.setattr(
        views_stage._Viewing,
        "write",
        lambda self, done: (projected.append(self.total()), write(self, done))[1],
    )
    viewed(squares, subject, run, "relu")
    assert not projected
    rows = viewed(squares, subject, run)
    assert projected == [(rows["layer"] != "relu").sum()]
    viewed(squares, subject, run, "relu", "guided")
    assert tables(run).keys() == {f"{name}-deconvnet.parquet" for name in ("narrow", "relu", "head")} | {
        "relu-guided.parquet"
    }
    assert tables(run)["relu-deconvnet.parquet"] == first["relu-deconvnet.parquet"]
    about = json.loads((run / "run.json").read_bytes())["views"]
    assert (about["deconvnet"]["layers"], about["guided"]["layers"]) == (3, 1)


def test_another_number_of_exemplars_replaces_them(squares, small_run, tmp_path):
    run, subject = copied(small_run, tmp_path / "run"), network(seeded(Small))
    viewed(squares, subject, run, "head", most=2)
    assert viewed(squares, subject, run, "head", most=4)["rank"].max() == 3
    assert viewed(squares, subject, run, "head", most=1)["rank"].max() == 0


def test_a_layer_whose_units_never_fire_has_an_empty_table(squares, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.ReLU())
    torch.nn.init.constant_(module[0].bias, -1e4)
    subject = network(module)
    run = mined(squares, subject, tmp_path / "run")
    assert viewed(squares, subject, run).empty
    assert json.loads((run / "run.json").read_bytes())["views"]["deconvnet"]["views"] == 0


def test_a_network_of_grey_pictures_has_grey_views(tmp_path):
    how = Preprocessing.usual(None, (32, 32), mean=(0.5,), std=(0.25,))
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 5), torch.nn.ReLU())
    files = {f"{number}.png": encoded(drawn(32, 32, number), "PNG") for number in range(4)}
    dataset, subject = find_dataset(str(write_folder(tmp_path / "grey", files))), network(module, how)
    rows = viewed(dataset, subject, mined(dataset, subject, tmp_path / "run"))
    assert {picture(cell).mode for cell in rows["view"]} == {"L"}


def test_an_image_that_is_another_one_now_is_refused(tmp_path):
    files = {f"{number}.png": encoded(drawn(32, 32, number), "PNG") for number in range(4)}
    folder = write_folder(tmp_path / "pictures", files)
    dataset, subject = find_dataset(str(folder)), network(seeded(Small))
    run = mined(dataset, subject, tmp_path / "run")
    nbytes = (folder / "2.png").stat().st_size
    other = encoded(drawn(30, 32, 2), "PNG")
    (folder / "2.png").write_bytes(other[:nbytes] + bytes(max(0, nbytes - len(other))))
    with pytest.raises(UserError, match=r"2\.png of .* is not the image that was scanned.*do without its views"):
        viewed(dataset, subject, run)


@pytest.fixture(scope="module")
def demo_pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six pictures and a run of them with views of two exemplars of a layer."""
    folder = tmp_path_factory.mktemp("demo")
    write_folder(folder / "pictures", {f"{number}.jpg": jpeg(number, 70, 70) for number in range(6)})
    command = ["mine", "--dataset", str(folder / "pictures"), "--model", "demo", "--layers", "stem.relu,classifier",
               "--topk", "4", "--run", str(folder / "run"), "--no-visualize", "--no-sheets", "--quiet", "--focus", "0",
               "--check-crops", "0", "--views", "2"]  # fmt: skip
    done = CliRunner().invoke(application(["mine"]), command)
    assert done.exit_code == 0, done.output
    return folder / "pictures", folder / "run"


def test_mining_projects_as_many_as_it_is_told_and_the_command_adds_to_them(demo_pictures, tmp_path):
    run = copied(demo_pictures[1], tmp_path / "run")
    assert tables(run).keys() == {"stem.relu-deconvnet.parquet", "classifier-deconvnet.parquet"}
    assert open_run(run).views("stem.relu")["rank"].max() == 1
    command = ["views", "--run", str(run), "--layers", "stem.*", "--method", "guided", "--most", "3"]
    done = CliRunner().invoke(application(["views"]), command)
    assert done.exit_code == 0, done.output
    assert "-m actmine sheets --run" in done.output
    assert open_run(run).views("stem.relu", method="guided")["rank"].max() == 2
    assert open_run(run).views("classifier", method="guided").empty


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(["--method", "guidet"], "There is no METHOD 'guidet'"), (["--layers", "steam"], "has no layer 'steam'"),
     (["--layers", "classifier"], "has no exemplars of classifier"),
     (["--run", "nowhere"], "no finished run in nowhere"),
     (["--layers", "stem.relu", "--most", "3"], "can no longer be read")],
)  # fmt: skip
def test_bad_input_is_one_sentence(words, sentence, demo_pictures, tmp_path):
    folder, run = demo_pictures[0], copied(demo_pictures[1], tmp_path / "run")
    (run / "exemplars" / "classifier.parquet").unlink()
    shutil.move(folder, tmp_path / "moved")
    try:
        done = CliRunner().invoke(application(["views"]), ["views", "--run", str(run), *words])
    finally:
        shutil.move(tmp_path / "moved", folder)
    output = " ".join(done.output.split())
    assert done.exit_code == 1 and sentence in output and "Traceback" not in output
