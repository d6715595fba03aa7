"""A GPU whose memory is full, which a network stands in for that refuses more than so many images at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, fx, nn
from torchvision import transforms
from typer.testing import CliRunner

import actmine
from actmine.jobs.__main__ import application
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.engines.ray_worker import RayWorker, Refusal
from actmine.pipeline.errors import UserError, is_memory_full, memory_full
from actmine.pipeline.exemplars import maps
from actmine.pipeline.network.devices import in_halves
from actmine.pipeline.scanning.compute import Runner
from actmine.pipeline.scanning.ledger import Ledger
from actmine.pipeline.stages import fitting
from actmine.pipeline.stages.mining import Mining
from tests.making import encoded, picture, write_folder

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB."
LAYERS = "relu,last"
QUICK: dict[str, Any] = {"visualize": False, "sheets": False, "compile": "0"}
room = [1 << 30]
"""How many images the network takes at once."""
tried: list[int] = []


@fx.wrap
def crowded(images: Tensor) -> Tensor:
    """The same, if there is room for so many."""
    tried.append(len(images))
    if len(images) > room[0]:
        raise torch.OutOfMemoryError(FULL)
    return images


class Crowded(nn.Module):
    """Two convolutions, and before them the trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 6, 5, 2), nn.ReLU()
        self.second, self.last = nn.Conv2d(6, 4, 6), nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.relu(self.first(crowded(images)))))


def network() -> tuple[nn.Module, transforms.Compose]:
    """A MODEL."""
    torch.manual_seed(0)
    return Crowded(), transforms.Compose([transforms.Resize(28), transforms.CenterCrop(24), transforms.ToTensor()])


@pytest.fixture(autouse=True)
def plenty() -> Iterator[None]:
    room[0] = 1 << 30
    tried.clear()
    yield
    room[0] = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    files = {f"{number % 2}/{number:02d}.png": encoded(picture(40, 32, number), "PNG") for number in range(40)}
    return write_folder(tmp_path_factory.mktemp("photos"), files)


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mined(folder, tmp_path_factory.mktemp("mined") / "run", bands="5", band_images=20)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is tried as a GPU is, whose memory is its own."""
    monkeypatch.setattr(fitting, "TRIED_ON", ("cuda", "cpu"))


def mined(folder: Path, target: Path, **words: Any) -> Path:
    of = {"layers": LAYERS, "topk": 5, **QUICK, **words}
    return actmine.mine("tests.test_memory_full:network", str(folder), run=target, **of).path


def tables(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


def batch_size(run: Path) -> int:
    return json.loads((run / "run.json").read_bytes())["batch_size"]


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_one_line_says_so(folder, tmp_path, a_gpu, capsys):
    room[0] = 2
    run = mined(folder, tmp_path / "run")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("A batch of 16 images does not fit in the GPU's memory; batches of 2 do.") == 1
    assert batch_size(run) == 2
    room[0] = 1 << 30
    assert tables(run) == tables(mined(folder, tmp_path / "named", batch_size=2, quiet=True))


def test_a_run_goes_on_with_the_batches_it_was_begun_with(folder, tmp_path, a_gpu, monkeypatch):
    room[0] = 4
    whole = mined(folder, tmp_path / "whole", quiet=True)
    commit = Ledger.commit

    def once(self: Ledger, state: Any) -> None:
        commit(self, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "commit", once)
    with pytest.raises(KeyboardInterrupt):
        mined(folder, tmp_path / "run", quiet=True)
    monkeypatch.setattr(Ledger, "commit", commit)
    room[0] = 1 << 30  # whoever else used the memory is gone
    tried.clear()
    run = mined(folder, tmp_path / "run", quiet=True)
    assert batch_size(run) == 4 and max(tried) <= 4
    assert tables(run) == tables(whole)
    more = mined(folder, run, layers=f"{LAYERS},second", quiet=True)
    assert batch_size(more) == 4, "a run that grows keeps its batches"


def test_a_run_that_grows_says_what_can_be_done_where_its_batches_fit_no_longer(folder, tmp_path, a_gpu):
    room[0] = 4
    run = mined(folder, tmp_path / "run", quiet=True)
    room[0] = 2
    said = (
        r"begun with batches of 4 images, which no longer fit in the GPU's memory. Choose another RUN with .*batch.size"
    )
    with pytest.raises(UserError, match=said):
        mined(folder, run, layers=f"{LAYERS},second", quiet=True)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "GET was unable to find an engine to execute this computation",
    ],
)  # fmt: skip
def test_a_full_memory_is_known_by_what_torch_and_its_libraries_say(text):
    assert is_memory_full(RuntimeError(text)) and not is_memory_full(ValueError(text))


def test_what_takes_far_less_than_there_is_is_not_tried(folder, tmp_path, a_gpu, monkeypatch):
    def never(*about: object) -> bool:
        raise AssertionError("tried")

    monkeypatch.setattr(fitting, "room_of", lambda device: 80 << 30)
    monkeypatch.setattr(fitting.FittingWork, "_fits", never)
    assert batch_size(mined(folder, tmp_path / "roomy", quiet=True)) == 16
    monkeypatch.setattr(fitting, "room_of", lambda device: 1)
    with pytest.raises(AssertionError, match="tried"):
        mined(folder, tmp_path / "narrow", quiet=True)


def test_a_batch_that_was_named_is_not_changed(folder, tmp_path, a_gpu):
    room[0] = 4
    with pytest.raises(UserError, match=r"A batch of 16 images does not fit in the GPU's memory\. Say batch_size=4\."):
        mined(folder, tmp_path / "run", batch_size=16, quiet=True)
    assert batch_size(mined(folder, tmp_path / "run", batch_size=4, quiet=True)) == 4, "as the sentence says"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_where_not_one_image_fits_a_sentence_says_so(folder, tmp_path, a_gpu, monkeypatch, precision):
    init = Runner.__init__

    def nothing_left(self: Runner, *given: Any) -> None:
        room[0] = 0
        init(self, *given)

    monkeypatch.setattr(Runner, "__init__", nothing_left)
    with pytest.raises(UserError, match="Not even one image fits in the GPU's memory"):
        mined(folder, tmp_path / "run", precision=precision, quiet=True)


def invoked(*words: str) -> tuple[int, str]:
    """How a command of the command line ends, and what it says."""
    done = CliRunner().invoke(application([words[0]]), list(words))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


COMMANDS = {
    "scan": ("mine", "--visualize", "--topk", "3"),
    "pictures": ("mine", "--visualize", "--topk", "3"),
    "focus": ("focus",),
    "check": ("check",),
    "views": ("views",),
    "score": ("score", "--similarity", "builtin"),
    "visualize": ("visualize",),
    "activation atlas": ("activation-atlas", "--layer", "relu", "--grids", "3", "--seed", "1"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_memory_that_is_full_later_ends_any_command_in_a_sentence_and_it_goes_on(name, run, folder, tmp_path):
    command, *words = COMMANDS[name]
    if command == "mine":
        words += ["--model", "tests.test_memory_full:network", "--dataset", str(folder), "--layers", LAYERS]
        words += ["--run", str(tmp_path / "run"), "--no-sheets", "--batch-size", "4"]
    else:
        words += ["--run", str(shutil.copytree(run, tmp_path / "run")), "--trust"]
    with pytest.MonkeyPatch.context() as patch:
        fill(name, patch)
        code, said = invoked(command, *words)
    assert code == 1 and "Traceback" not in said
    assert "The GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB" in said
    assert "the same command then goes on where it stopped." in said
    room[0] = 1 << 30
    code, said = invoked(command, *words)
    assert code == 0, said


def fill(name: str, patch: pytest.MonkeyPatch) -> None:
    """Somebody takes the memory as a stage begins."""
    for partial in ("gradients.PartialGradients", "crop_check.PartialRun"):  # a GPU goes through whole maps
        patch.setattr(f"actmine.pipeline.exemplars.{partial}", lambda *given: None)
    stage = {"scan": (Mining, "_scan"), "pictures": (Mining, "_cut")}.get(name, (LocalEngine, "map"))
    begin = getattr(*stage)

    def begun(*given: Any) -> Any:
        room[0] = 0
        return begin(*given)

    patch.setattr(*stage, begun)


def test_pictures_rise_fewer_together_where_there_is_no_room_for_all(run, tmp_path):
    drawn = {}
    for most in (1 << 30, 2):
        room[0] = most
        target = shutil.copytree(run, tmp_path / str(most))
        tried.clear()
        actmine.visualize(actmine.open_run(target, trust=True), layers="last", quiet=True)
        rows = pd.concat(map(pd.read_parquet, sorted((target / "visualizations").glob("*"))))
        drawn[most] = rows.sort_values("unit").activation.to_numpy()
        assert max(tried) > 2
    assert drawn[2] == pytest.approx(drawn[1 << 30], rel=0.05)


def test_maps_are_the_same_bytes_where_there_is_room_for_those_of_one_image_alone(folder, tmp_path, monkeypatch):
    whole, picked = mined(folder, tmp_path / "whole", quiet=True), maps._picked

    def of_one_image(activations: Tensor, *its: Any) -> Tensor:
        tried.append(len(activations))
        if len(maps._now.wanted[its[0]][0].unique()) > 1:
            raise torch.OutOfMemoryError(FULL)
        return picked(activations, *its)

    monkeypatch.setattr(maps, "_picked", of_one_image)
    tried.clear()
    assert tables(mined(folder, tmp_path / "halved", quiet=True)) == tables(whole)
    assert len(tried) > 40, "each image had a batch for itself"


def test_pictures_are_embedded_in_halves_where_there_is_no_room_for_all(run, tmp_path):
    scores = {}
    for most in (1 << 30, 3):
        target = shutil.copytree(run, tmp_path / str(most))
        room[0] = most
        actmine.score(actmine.open_run(target, trust=True), similarity="builtin", layers="relu", quiet=True)
        scores[most] = pd.concat(map(pd.read_parquet, sorted((target / "units").glob("*")))).interpretability_exemplars
    assert scores[3].notna().any() and scores[3].to_numpy() == pytest.approx(scores[1 << 30], abs=1e-4, nan_ok=True)


class Colours(nn.Module):
    """A SIMILARITY."""

    def forward(self, images: Tensor) -> Tensor:
        return crowded(images).mean((2, 3))


def test_a_similarity_of_ones_own_is_not_blamed_for_it(run, tmp_path):
    target, words = shutil.copytree(run, tmp_path / "run"), {"layers": "relu", "quiet": True}
    with pytest.MonkeyPatch.context() as patch:
        fill("score", patch)
        with pytest.raises(UserError, match="The GPU's memory is full"):
            actmine.score(actmine.open_run(target, trust=True), similarity="tests.test_memory_full:Colours", **words)


def test_a_worker_of_a_cluster_gives_the_item_back_so_that_another_one_tries_it():
    class Work:
        def hex(self) -> str:
            return "work"

    def full(items: list[int], tell: Any) -> Iterator[int]:
        for item in items:
            try:
                raise torch.OutOfMemoryError(FULL) if item else torch.AcceleratorError("CUDA error: out of memory")
            except torch.OutOfMemoryError as error:
                raise memory_full(error, "Or choose another RUN.") from error
        yield 0

    worker = RayWorker("cpu", 1)
    worker._opened = ("work", full)
    found = [worker.do(item, [Work()], item) for item in (0, 1)]
    assert found == [
        Refusal("its GPU's memory is full (CUDA error: out of memory).", final=False),
        Refusal(f"its GPU's memory is full ({FULL[:-1]}).", final=False),
    ]


def test_what_does_not_fit_goes_in_halves_in_its_order():
    room[0] = 3
    found = in_halves(lambda some: crowded(torch.tensor(some)).tolist(), list(range(7)))
    assert found == list(range(7))
    room[0] = 0
    with pytest.raises(torch.OutOfMemoryError):
        in_halves(lambda some: crowded(torch.tensor(some)).tolist(), [1, 2])
    with pytest.raises(ZeroDivisionError):
        in_halves(lambda some: [1 // 0], [1, 2])
