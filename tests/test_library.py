"""`import actmine`: what people type in a notebook, with networks and datasets as they hold them."""

from __future__ import annotations

import ast
import gc
import inspect
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import MISSING, fields
from enum import Enum
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

import actmine
from actmine.console import Display
from actmine.options.as_functions import FILE, library
from actmine.options.records import COMMANDS, options_of
from tests.making import encoded, picture, write_folder

HEAVY = ("torch", "torchvision", "pandas", "pyarrow", "PIL", "rich")
TRANSFORM = v2.Compose(
    [v2.Resize(32), v2.CenterCrop(28), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
     v2.Normalize([0.5] * 3, [0.25] * 3)]
)  # fmt: skip
SETTINGS = {"transform": TRANSFORM, "topk": 3, "visualize": False, "sheets": False, "quiet": True}


class Pictures(Dataset):
    """A dataset as it stands in a notebook."""

    def __init__(self, count: int = 9) -> None:
        self.images = [picture(48, 40, seed) for seed in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return self.images[number], number % 2


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(5, 6, 3), nn.ReLU())
        self.head = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.second(self.first(x)).amax((2, 3)))
        return found


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> actmine.Run:
    net, dataset = Small(), Pictures()
    return actmine.mine(net, dataset, layers="second.*", run=tmp_path_factory.mktemp("runs") / "mine", **SETTINGS)


def test_a_module_and_a_dataset_of_a_notebook_are_mined_exactly(mined):
    net, dataset = Small().eval(), Pictures()
    with torch.no_grad():
        maps = torch.stack([net.second(net.first(TRANSFORM(image)[None]))[0] for image, _ in dataset])
    strongest = maps.flatten(2).amax(2)
    units = mined.units("second.1").sort_values("firing_rate")
    assert len(units) == 6 and np.allclose(units.sort_values("unit").activation_max, strongest.amax(0))
    for unit in range(6):
        rows = mined.exemplars("second.1", unit)
        order = sorted(range(len(dataset)), key=lambda image: (-float(strongest[image, unit]), image))
        assert rows.image_id.tolist() == order[:3]
        first = maps[order[0], unit]
        assert first[rows.y[0], rows.x[0]] == first.max() and rows.label[0] == order[0] % 2


def test_a_run_its_layers_and_units_show_themselves(mined):
    assert repr(mined).startswith("Run('") and "second.1" in mined._repr_html_() and len(mined) == 1
    layer = mined["second.1"]
    assert len(layer) == 6 and "firing_rate" in layer._repr_html_() and [each.name for each in mined] == ["second.1"]
    shown = layer[2]._repr_html_()
    assert shown.count("<img") == len(layer[2].crops()) == 3 and "data:image/jpeg" in shown
    assert mined.sheet("second.1", 2).size == layer[2].sheet().size
    with pytest.raises(actmine.UserError, match=r"no layer 'secnd.1'\. Did you mean second.1"):
        mined.layer("secnd.1")
    with pytest.raises(IndexError, match="6 units"):
        layer[6]


def test_an_atlas_is_served_until_nothing_holds_it(mined, capsys):
    pytest.importorskip("uvicorn", reason="needs the extra atlas")
    address = mined.atlas(port=0)
    assert capsys.readouterr().out.strip() == address and f'href="{address}"' in address._repr_html_()
    plain = str(address).replace("http", "http")
    assert urllib.request.urlopen(plain).status == 200
    del address
    gc.collect()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(plain, timeout=2)


def test_further_functions_take_the_run_with_the_network_and_the_pictures_that_it_remembers(mined):
    drawn = actmine.visualize(mined, layers=["second.1"], units=[1, 4], preset="noise", quiet=True)
    assert drawn.units("second.1").visualization.notna().tolist() == [False, True, False, False, True, False]
    assert drawn["second.1"][1].visualization is not None
    focused = actmine.focus(drawn, most=1, quiet=True)
    assert "focus" in focused.record
    best = focused.exemplars("second.1", 0).iloc[0]
    assert np.array_equal(focused.original(best.image_id), Pictures()[int(best.image_id)][0])
    told = actmine.compare(mined, mined, quiet=True)
    assert set(told.columns) >= {"layer", "unit", "other_unit", "similarity"}


def test_a_run_of_a_module_without_a_name_says_that_it_needs_the_module(mined):
    later = actmine.open_run(mined.path)
    with pytest.raises(actmine.UserError, match="model="):
        actmine.visualize(later, units=[0], quiet=True)
    again = actmine.visualize(later, model=Small(), transform=TRANSFORM, units=[0], preset="noise", quiet=True)
    assert again["second.1"][0].visualization is not None


def test_an_interrupted_call_goes_on_from_there(mined, tmp_path, monkeypatch, capsys):
    stage = Display.stage

    def interrupted(self, name, *about):
        if name == "Writing tables":
            raise KeyboardInterrupt
        return stage(self, name, *about)

    monkeypatch.setattr(Display, "stage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        actmine.mine(Small(), Pictures(), layers="second.*", run=tmp_path / "run", **SETTINGS)
    monkeypatch.undo()
    scanned = []
    monkeypatch.setattr(
        Display, "stage", lambda self, name, *about: (scanned.append(name), stage(self, name, *about))[1]
    )
    run = actmine.mine(Small(), Pictures(), layers="second.*", run=tmp_path / "run", **SETTINGS)
    assert "Scanning" not in scanned and "Writing tables" in scanned
    name = "exemplars/second.1.parquet"
    assert (run.path / name).read_bytes() == (mined.path / name).read_bytes() or pd.read_parquet(run.path / name)[
        ["unit", "rank", "activation", "image_id"]
    ].equals(pd.read_parquet(mined.path / name)[["unit", "rank", "activation", "image_id"]])


def test_the_caller_s_module_and_torch_stay_as_they_were(tmp_path):
    net = Small().train()
    for parameter in net.first.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.backends.cudnn.benchmark = True
    try:
        actmine.mine(net, Pictures(3), layers="first.*", run=tmp_path / "run", **SETTINGS)
        assert torch.backends.cudnn.benchmark
    finally:
        torch.backends.cudnn.benchmark = False
    assert net.training and [each.requires_grad for each in net.parameters()] == [False] * 2 + [True] * 4
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_layers_and_inspections_of_a_module(tmp_path):
    rows = actmine.layers(Small(), transform=TRANSFORM)
    assert rows.set_index("layer").units.to_dict() == {"first.1": 5, "second.1": 6, "head": 2}
    write_folder(tmp_path, {"one.png": encoded(picture(48, 40, 3), "PNG")})
    seen = actmine.inspect(tmp_path / "one.png", model=Small(), transform=TRANSFORM, layers="first.*", most=2,
                           out=tmp_path / "seen", attention=False, quiet=True)  # fmt: skip
    assert [each["layer"] for each in seen.layers] == ["first.1"] and seen.page.is_file()
    assert seen._repr_html_().count("<img") == len(seen.pictures)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"topk": 0}, "topk=0: it is at least 1"),
        ({"precision": "fp8"}, "precision='fp8': it is one of fp32, bf16, fp16"),
        ({"crop": "none", "resize": "none", "transform": None}, "crop"),
        ({"weights": "x.safetensors"}, "a module has its weights"),
    ],
)
def test_what_cannot_be_is_said_in_words_of_python(tmp_path, words, told):
    with pytest.raises(actmine.UserError, match=told) as refused:
        actmine.mine(Small(), Pictures(2), run=tmp_path / "run", **{**SETTINGS, **words})
    assert "--" not in str(refused.value) and "ARGS" not in str(refused.value)


def test_the_functions_are_those_of_the_options():
    assert FILE.read_text() == library(), "run: python -m actmine.options.as_functions"
    for command in COMMANDS:
        function = getattr(actmine, command.replace("-", "_"), None)
        if function is None or command == "atlas":
            continue
        known = inspect.signature(function).parameters
        for option in fields(options_of(command)):
            if option.name in ("as_json", "trust"):
                continue
            default = None if option.default is MISSING else option.default
            given = known[option.name].default
            plain = str(default) if isinstance(default, Enum | Path) else default
            assert given == plain or given is inspect.Parameter.empty, (command, option.name)


def test_importing_it_and_opening_a_run_take_nothing_heavy(demo_run):
    code = f"""
import sys, actmine
assert not {{*{HEAVY}}} & {{*sys.modules}}, "import actmine"
run = actmine.open_run({str(demo_run)!r})
assert run["block5.relu"][7]._repr_html_() and run.sheet("block5.relu", 7).size
assert not {{"torch", "torchvision", "rich"}} & {{*sys.modules}}, "a finished run"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_it_promises_is_there_and_documented():
    stated = ast.parse(Path(actmine.__file__).read_text())
    typed = {
        alias.asname or alias.name
        for node in ast.walk(stated)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*actmine.__all__} <= typed | {"annotations"}
    for name in actmine.__all__:
        assert (inspect.getdoc(getattr(actmine, name)) or "").strip(), name
    with pytest.raises(AttributeError, match="no attribute 'mien'"):
        actmine.mien  # noqa: B018


def test_a_notebook_shows_how_far_it_is_and_what_it_found(demo_run, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    shutil.copytree(demo_run, tmp_path / "run")
    cells = ["import actmine; run = actmine.open_run('run'); run", "run['block5.relu'][7]", "run.sheet('stem.relu', 1)",
             "run = actmine.check(run, layers='stem.relu', units=[0, 1], most=1)"]  # fmt: skip
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [[kind for output in cell.outputs for kind in output.get("data", ())] for cell in book.cells]
    assert "text/html" in kinds[0] and "text/html" in kinds[1] and "image/png" in kinds[2]
    progress = [output.data["text/html"] for output in book.cells[3].outputs if "text/html" in output.get("data", ())]
    assert any("<progress" in text and "Checking" in text for text in progress), progress
