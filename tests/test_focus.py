"""Effective fields: known gradients in closed form, autograd on the whole network, interrupted, resumed, repeated."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as transforms
from typer.testing import CliRunner

import actmine.pipeline.stages.focus as focus_stage
from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars.effective_field import Focus, energy_of, is_wide
from actmine.pipeline.exemplars.gradients import Gradients, within
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.geometry import Box, original_box
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.stages.check_crops import check_crops
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.storage.parquet import write_table
from actmine.pipeline.work import KernelWork
from actmine.schemas.exemplars import EXEMPLARS, FOCUS
from tests.making import encoded, jpeg, picture, write_folder
from tests.stage_parts import committing, interrupted

CPU = torch.device("cpu")
PLAIN = Preprocessing.usual(None, (32, 32))
"""The pixels of a 32 x 32 picture as they are: boxes of the input are boxes of the original."""
TALL = Preprocessing.usual(30, (28, 24), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def network(module: nn.Module, how: Preprocessing = PLAIN) -> Network:
    return Network("small", module.eval(), how, "random", f"random {type(module).__name__}")


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return make()


class Small(nn.Module):
    """A narrow layer, wide ones with a unit that never fires, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(3, 6, 3, padding=1)
        self.pool = nn.MaxPool2d(4, 4)
        self.wide = nn.Conv2d(6, 8, 5, padding=2)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, 5)
        nn.init.constant_(self.wide.bias[3:4], -1e4)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, 5]`."""
        maps = self.relu(self.wide(self.pool(self.narrow(images))))
        return self.head(maps.mean((2, 3)))


class Branching(Small):
    """What torch.fx cannot follow."""

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, 5]`."""
        return super().forward(images if images.sum() > -1e9 else -images)


class Tokens(nn.Module):
    """A transformer of one block: patches of 8 x 8 pixels and a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.first = nn.Parameter(torch.randn(1, 1, 12))
        self.norm = nn.LayerNorm(12)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.mlp = nn.Linear(12, 10)
        self.gelu = nn.GELU()

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` to tokens `[B, T, 10]`."""
        patches = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.first.expand(images.shape[0], -1, -1), patches], 1)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.gelu(self.mlp(tokens))


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """40 pictures of 32 x 32 pixels."""
    files = {f"{number:02d}.png": encoded(picture(32, 32, number), "PNG") for number in range(40)}
    return find_dataset(str(write_folder(tmp_path_factory.mktemp("squares"), files)))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """30 pictures of odd sizes, some seven times as wide as high."""
    sizes = np.random.default_rng(0).integers(25, 180, (30, 2)).tolist()
    files = {f"{number:02d}.jpg": jpeg(number, width, height) for number, (width, height) in enumerate(sizes)}
    return find_dataset(str(write_folder(tmp_path_factory.mktemp("odd"), files)))


def mined(dataset: Dataset, subject: Network, run: Path, layers: str = "", topk: int = 6) -> Path:
    traced = Traced(subject.module, subject.input_shape)
    settings = MineSettings(StatisticsOptions(topk), 16, 1)
    mine(dataset, subject, traced, traced.choose(layers), run, CPU, settings)
    return run


def focused(
    dataset: Dataset, subject: Network, run: Path, layers: str = "", most: int = 4, workers: int = 1, units=None
) -> pd.DataFrame:
    """The exemplars of a mined run with their focus."""
    traced = Traced(subject.module, subject.input_shape)
    engine = LocalEngine(CPU, workers)
    focus_run(run, dataset.by_number, subject, traced, traced.choose(layers), engine, most=most, units=units)
    return pd.read_parquet(run / "exemplars")


def about(run: Path) -> dict:
    """What is recorded of the focus."""
    return json.loads((run / "run.json").read_bytes())["focus"]


def measured(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows[rows["focus_left"].notna()]
    return found.astype(dict.fromkeys(FOCUS, int))


def held(energy: np.ndarray, box: tuple[int, int, int, int]) -> float:
    left, top, right, bottom = box
    return float(energy[top:bottom, left:right].sum() / energy.sum())


@pytest.fixture(scope="module")
def small_run(squares: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(squares, network(seeded(Small)), tmp_path_factory.mktemp("small") / "run")


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to


def test_the_gradient_of_a_linear_unit_is_its_kernel_wherever_it_looks():
    module = nn.Conv2d(3, 2, 9, bias=False)
    nn.init.constant_(module.weight, 0.01)
    with torch.no_grad():
        module.weight[1, :, 2:5, 3:7] = -3.0  # nearly all of unit 1
    subject = network(nn.Sequential(module))
    traced = Traced(subject.module, subject.input_shape)
    gradients = Gradients(PLAIN, traced, dict(enumerate(traced.choose("0"))), CPU)
    found = gradients(torch.randn(1, 3, 32, 32), [(0, 1, 5, 11), (0, 0, 0, 23)])
    energies = np.stack([energy_of(within(Box(0, 0, 32, 32), *its)).numpy() for its in found])
    kernels = module.weight.detach().square().sum(1).numpy()
    expected = np.zeros((2, 32, 32), np.float32)
    expected[0, 5:14, 11:20], expected[1, 0:9, 23:32] = kernels[1] / 9, kernels[0] * 1e4
    np.testing.assert_allclose(energies, expected, rtol=1e-5)


def test_a_unit_that_looks_at_one_corner_has_its_focus_there(odd, tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 24, 2))
    with torch.no_grad():
        weights = module[1].weight.view(2, 3, 28, 24)
        weights.fill_(1e-4)
        weights[0, :, :3, :5] = 1.0
        weights[1, :, 20:28, 18:24] = -1.0
    subject = network(module, TALL)
    rows = focused(odd, subject, mined(odd, subject, tmp_path / "run"), most=6)
    images = pd.read_parquet(tmp_path / "run" / "images.parquet").set_index("image_id")
    assert len(measured(rows)) == 12
    for row in measured(rows).itertuples():
        corner = Box(0, 0, 5, 3) if row.unit == 0 else Box(18, 20, 24, 28)
        image = images.loc[row.image_id]
        expected = original_box(corner, int(image.width), int(image.height), TALL)
        assert Box(row.focus_left, row.focus_top, row.focus_right, row.focus_bottom) == expected


@pytest.mark.parametrize("kind", [Small, Branching])
def test_it_just_holds_95_percent_of_the_gradient_that_autograd_finds_in_the_whole_network(kind, squares, tmp_path):
    subject = network(seeded(kind))
    assert Traced(subject.module, subject.input_shape).by == ("graph" if kind is Small else "modules")
    rows = measured(focused(squares, subject, mined(squares, subject, tmp_path / "run")))
    assert {"head"} < set(rows["layer"])
    whole, seen = seeded(kind).eval(), {}
    whole.relu.inplace = False
    for name in rows["layer"].unique():
        whole.get_submodule(name).register_forward_hook(lambda *call, name=name: seen.update({name: call[2]}))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PLAIN.mean, PLAIN.std))
    keys = pd.read_parquet(tmp_path / "run" / "images.parquet").set_index("image_id")["path"]
    folder = Path(squares.shards[0].url)
    for row in rows.iloc[::3].itertuples():
        pixels = transforms.to_tensor(Image.open(folder / keys[row.image_id]))
        image = ((pixels - mean) / std)[None].requires_grad_()
        whole(image)
        maps = seen[row.layer]
        at = maps[0, row.unit] if row.layer == "head" else maps[0, row.unit, int(row.y), int(row.x)]
        assert at.item() == pytest.approx(row.activation, rel=1e-4)
        energy = torch.autograd.grad(at, image)[0][0].double().square().sum(0).numpy()
        box = row.focus_left, row.focus_top, row.focus_right, row.focus_bottom
        assert held(energy, box) >= 0.95 - 1e-6
        for side, step in enumerate((1, 1, -1, -1)):
            smaller = tuple(edge + step * (place == side) for place, edge in enumerate(box))
            assert held(energy, smaller) < 0.95 + 1e-6


@pytest.mark.parametrize("kind", [Small, Branching])
def test_a_crop_alone_drives_its_unit_as_its_image_does_by_parts_of_maps_and_by_whole_ones(
    kind, squares, tmp_path, monkeypatch
):
    subject = network(seeded(kind))
    traced = Traced(subject.module, subject.input_shape)
    run = mined(squares, subject, tmp_path / "run")
    for place in (run, copied(run, tmp_path / "other")):
        check_crops(place, subject, traced, traced.choose(""), LocalEngine(CPU, 2), most=4)
        rows = pd.read_parquet(place / "exemplars").query("rank < 4")
        assert len(rows) == rows.crop_activation.notna().sum() > 40
        np.testing.assert_allclose(rows.crop_activation, rows.activation, rtol=1e-4, atol=1e-5)
        monkeypatch.setattr("actmine.pipeline.exemplars.crop_check.PartialRun", lambda *about: None)  # as on a GPU


def test_a_token_has_a_focus_too(squares, tmp_path):
    subject = network(seeded(Tokens))
    run = mined(squares, subject, tmp_path / "run", "mlp,attention", 3)
    rows = focused(squares, subject, run, "mlp,attention", most=3).query("layer == 'mlp'")
    assert len(measured(rows)) == 30
    whole = seeded(Tokens).eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PLAIN.mean, PLAIN.std))
    keys = pd.read_parquet(run / "images.parquet").set_index("image_id")["path"]
    kept: dict[str, Tensor] = {}
    whole.mlp.register_forward_hook(lambda module, inputs, output: kept.update(mlp=output))
    for row in measured(rows).iloc[::4].itertuples():
        pixels = transforms.to_tensor(Image.open(Path(squares.shards[0].url) / keys[row.image_id]))
        image = ((pixels - mean) / std)[None].requires_grad_()
        whole(image)
        energy = torch.autograd.grad(kept["mlp"][0, int(row.y), row.unit], image)[0][0].square().sum(0).numpy()
        assert held(energy, (row.focus_left, row.focus_top, row.focus_right, row.focus_bottom)) >= 0.95 - 1e-5


def test_it_lies_in_the_box_whatever_the_size_of_the_image(odd, tmp_path):
    subject = network(seeded(Small), TALL)
    rows = measured(focused(odd, subject, mined(odd, subject, tmp_path / "run")))
    assert len(rows) > 40
    assert (rows["left"] <= rows["focus_left"]).all() and (rows["focus_right"] <= rows["right"]).all()
    assert (rows["top"] <= rows["focus_top"]).all() and (rows["focus_bottom"] <= rows["bottom"]).all()
    assert (rows["focus_left"] < rows["focus_right"]).all() and (rows["focus_top"] < rows["focus_bottom"]).all()


def test_only_wide_layers_and_the_first_exemplars_are_measured_and_silent_units_have_none(squares, small_run, tmp_path):
    run = copied(small_run, tmp_path / "run")
    narrow = (run / "exemplars" / "narrow.parquet").read_bytes()
    rows = focused(squares, network(seeded(Small)), run, most=4)
    assert (run / "exemplars" / "narrow.parquet").read_bytes() == narrow
    fires = (rows["layer"] != "narrow") & (rows["rank"] < 4) & ((rows["layer"] == "head") | (rows["activation"] > 0))
    assert (rows["focus_left"].notna() == fires).all()
    silent = rows[(rows["layer"] == "relu") & (rows["unit"] == 3)]
    assert len(silent) == 6 and silent["focus_left"].isna().all()
    told = about(run)
    assert (told["most"], told["layers"], told["measured"], told["found"]) == (4, 2, 4 * 13, int(fires.sum()))
    assert {name: its["first"] for name, its in told["by_layer"].items()} == {
        "relu": {"4": "0-7"},
        "head": {"4": "0-4"},
    }


def test_a_field_is_wide_if_it_is_larger_than_half_of_the_input_either_way():
    for kernel, wide in (((16, 16), False), ((17, 1), True), ((1, 17), True)):
        traced = Traced(nn.Sequential(nn.Conv2d(3, 1, kernel)), (3, 32, 32))
        assert is_wide(receptive_fields(traced, traced.choose("0"))["0"]) == wide


def test_all_other_columns_and_their_order_stay(squares, small_run, tmp_path):
    run = copied(small_run, tmp_path / "run")
    before = pq.read_table(small_run / "exemplars" / "head.parquet")
    focused(squares, network(seeded(Small)), run)
    after = pq.ParquetFile(run / "exemplars" / "head.parquet")
    assert after.schema_arrow.equals(EXEMPLARS, check_metadata=True)
    assert after.read().drop_columns(list(FOCUS)).equals(before.drop_columns(list(FOCUS)))


def test_two_workers_give_the_bytes_of_one(odd, tmp_path, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.exemplars.exemplar_parts._EXEMPLARS_A_PART", 9)
    subject = network(seeded(Small), TALL)
    one = mined(odd, subject, tmp_path / "one")
    two = copied(one, tmp_path / "two")
    focused(odd, subject, one, workers=1)
    focused(odd, subject, two, workers=2)
    for path in sorted(one.glob("exemplars/*.parquet")):
        assert path.read_bytes() == (two / "exemplars" / path.name).read_bytes()


def test_what_travels_to_another_process_measures_the_same(squares, small_run):
    subject = network(seeded(Small))
    traced = Traced(subject.module, subject.input_shape)
    subject_of = Subject(subject, traced, traced.choose(""))
    run = focus_stage._Focusing(
        small_run, squares.by_number, subject_of, LocalEngine(CPU, 1), focus_stage.Silent(), 3
    )  # fmt: skip
    parts = list(run.parts())
    here = [found for _, found in LocalEngine(CPU, 1).map(run.work, parts, lambda tally: None)]
    work: KernelWork[Focus] = pickle.loads(pickle.dumps(run.work))
    there = [found for _, found in LocalEngine(CPU, 1).map(work, pickle.loads(pickle.dumps(parts)), lambda tally: None)]
    assert here == there and sum(len(found) for found in here) == 3 * 13


def test_an_interrupted_measurement_keeps_its_parts_and_ends_with_the_same_bytes(
    squares, small_run, tmp_path, monkeypatch
):
    monkeypatch.setattr("actmine.pipeline.exemplars.exemplar_parts._EXEMPLARS_A_PART", 7)
    subject = network(seeded(Small))
    whole, broken = copied(small_run, tmp_path / "whole"), copied(small_run, tmp_path / "broken")
    focused(squares, subject, whole)
    with interrupted(monkeypatch, after=2) as before:
        focused(squares, subject, broken)
    assert len(list(broken.glob("state/focus-*/*.arrow"))) == 2
    with committing(monkeypatch) as again:
        focused(squares, subject, broken)
    assert len(again) >= 3 and not {*again} & {*before}
    assert not list((broken / "state").glob("focus-*"))
    for path in sorted(whole.glob("exemplars/*.parquet")):
        assert path.read_bytes() == (broken / "exemplars" / path.name).read_bytes()


def test_calls_add_up_and_each_exemplar_is_measured_once(squares, small_run, tmp_path, monkeypatch):
    whole, steps = copied(small_run, tmp_path / "whole"), copied(small_run, tmp_path / "steps")
    subject = network(seeded(Small))
    focused(squares, subject, whole)
    focused(squares, subject, steps, "head", units={"head": [1, 4]}, most=3)
    first = measured(pd.read_parquet(steps / "exemplars"))
    assert set(first["layer"]) == {"head"} and set(first["unit"]) == {1, 4} and first["rank"].max() == 2
    assert about(steps)["by_layer"] == {"head": {"first": {"3": "1,4"}, "found": 6}}
    counted: list[int] = []
    parts = focus_stage._Focusing.parts
    monkeypatch.setattr(
        focus_stage._Focusing, "parts",
        lambda self: (counted.append(part.exemplars) or part for part in parts(self)),
    )  # fmt: skip
    focused(squares, subject, steps, "relu")
    assert len(measured(pd.read_parquet(steps / "exemplars")).query("layer == 'head'")) == 6
    focused(squares, subject, steps, "head", units={"head": [0, 1]})
    focused(squares, subject, steps)
    now, all_of_it = about(steps), about(whole)
    assert sum(counted) + 6 == all_of_it["measured"] == now["measured"]
    assert now["by_layer"] == all_of_it["by_layer"]
    for path in sorted(whole.glob("exemplars/*.parquet")):
        assert path.read_bytes() == (steps / "exemplars" / path.name).read_bytes()


def test_values_that_no_record_vouches_for_are_taken_away(squares, small_run, tmp_path):
    run, subject = copied(small_run, tmp_path / "run"), network(seeded(Small))
    focused(squares, subject, run)
    record = json.loads((run / "run.json").read_bytes())
    record["focus"]["fingerprint"] = "of a version before"
    (run / "run.json").write_text(json.dumps(record))
    rows = focused(squares, subject, run, "head", units={"head": [2]})
    assert set(measured(rows)["layer"]) == {"head"} and set(measured(rows)["unit"]) == {2}
    assert list(about(run)["by_layer"]) == ["head"]


def test_it_is_done_once_then_for_further_exemplars_and_anew_after_another_mining(
    squares, small_run, tmp_path, monkeypatch
):
    run, subject = copied(small_run, tmp_path / "run"), network(seeded(Small))
    focused(squares, subject, run, most=2)
    done: list[object] = []
    write = focus_stage._Focusing.write
    monkeypatch.setattr(focus_stage._Focusing, "write", lambda self, rows: (done.append(1), write(self, rows))[1])
    focused(squares, subject, run, most=2)
    assert not done
    assert measured(focused(squares, subject, run, most=1))["rank"].max() == 1 and not done
    assert measured(focused(squares, subject, run, most=3))["rank"].max() == 2 and len(done) == 1
    (run / "run.json").unlink()
    mined(squares, subject, run)
    assert pd.read_parquet(run / "exemplars")["focus_left"].isna().all()
    assert len(measured(focused(squares, subject, run, most=1))) and len(done) == 2


def test_tables_of_a_version_that_knew_no_focus_get_the_columns(squares, small_run, tmp_path):
    run = copied(small_run, tmp_path / "run")
    for path in run.glob("exemplars/*.parquet"):
        table = pq.read_table(path).drop_columns(list(FOCUS))
        write_table(path, table.schema, [table])
    focused(squares, network(seeded(Small)), run)
    for path in run.glob("exemplars/*.parquet"):
        assert pq.read_schema(path).names == EXEMPLARS.names


def test_an_image_that_is_another_one_now_is_refused(tmp_path):
    files = {f"{number}.png": encoded(picture(32, 32, number), "PNG") for number in range(4)}
    folder = write_folder(tmp_path / "pictures", files)
    dataset, subject = find_dataset(str(folder)), network(seeded(Small))
    run = mined(dataset, subject, tmp_path / "run")
    nbytes = (folder / "2.png").stat().st_size
    other = encoded(picture(30, 32, 2), "PNG")
    (folder / "2.png").write_bytes(other[:nbytes] + bytes(max(0, nbytes - len(other))))
    with pytest.raises(UserError, match=r"2\.png of .* is not the image that was scanned"):
        focused(dataset, subject, run)


def test_the_command_measures_as_many_as_it_is_told_and_none_with_0(tmp_path):
    folder = write_folder(tmp_path / "pictures", {f"{number}.jpg": jpeg(number, 70, 70) for number in range(6)})
    command = ["mine", "--dataset", str(folder), "--model", "demo", "--layers", "stem.relu,classifier", "--topk", "4",
               "--run", str(tmp_path / "run"), "--no-visualize", "--no-sheets", "--quiet"]  # fmt: skip
    for focus, ranks in (("0", set()), ("2", {0, 1})):
        done = CliRunner().invoke(application(["mine"]), [*command, "--focus", focus])
        assert done.exit_code == 0, done.output
        rows = pd.read_parquet(tmp_path / "run" / "exemplars")
        assert set(measured(rows)["rank"]) == ranks
        assert set(measured(rows)["layer"]) <= {"classifier"}
