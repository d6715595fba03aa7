"""A dictionary that is trained finds the directions that made the vectors, and resumes to the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import actmine
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.dictionaries.files import read_dictionary
from actmine.pipeline.dictionaries.training import Training
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.network.models import load_network
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.stages import train_dictionary
from actmine.pipeline.stages.layer_vectors import LayerVectors
from tests.commands import start
from tests.making import encoded, picture, write_folder

WIDTH, HIDDEN, ACTIVE = 40, 120, 4
QUICK: dict[str, Any] = {"visualize": False, "sheets": False, "quiet": True}


def hidden() -> Tensor:
    return functional.normalize(torch.randn(HIDDEN, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)


def made(count: int, generator: torch.Generator) -> Tensor:
    """Vectors of a few hidden directions each, beside a mean."""
    which = torch.rand(count, HIDDEN, generator=generator).topk(ACTIVE, 1).indices
    amounts = torch.rand(count, ACTIVE, generator=generator) + 0.5
    return torch.zeros(count, HIDDEN).scatter_(1, which, amounts) @ hidden() * 7 + 3


def test_it_finds_the_directions_that_vectors_were_made_of():
    generator = torch.Generator().manual_seed(1)
    training = Training(made(4096, generator), HIDDEN + 40, ACTIVE, 400_000)
    while training.seen < training.vectors:
        training.step(made(1024, generator))
    found = training.made()
    assert torch.allclose(found.decoder.norm(dim=1), torch.ones(found.latents), atol=1e-5)
    assert ((found.decoder @ hidden().t()).max(0).values > 0.9).float().mean() > 0.95
    x = made(2000, generator)
    again, active = found.reconstructed(x)
    assert 1 - (again - x).square().sum() / (x - x.mean(0)).square().sum() > 0.8 and active.max() <= ACTIVE


def test_a_training_goes_on_from_its_state_as_if_nothing_had_been():
    def trained(stop: int | None) -> Training:
        generator = torch.Generator().manual_seed(2)
        first = made(1000, generator)
        training = Training(first, 64, 3, 20_000)
        for step in range(10):
            if step == stop:
                state = {name: tensor.clone() for name, tensor in training.state().items()}
                training = Training(made(50, torch.Generator().manual_seed(9)), 64, 3, 20_000)
                training.go_on_from(state)
            training.step(made(500, generator))
        return training

    whole, again = trained(None).state(), trained(6).state()
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the demo's network over a few pictures."""
    root = tmp_path_factory.mktemp("training")
    photos = write_folder(root / "photos", {f"{n:03d}.png": encoded(picture(112, 112, n), "PNG") for n in range(70)})
    return actmine.mine("demo", str(photos), layers="block2.relu", topk=3, run=root / "run", **QUICK).path


def test_a_dictionary_of_a_run_explains_its_layer_and_is_mined(mined):
    folder = actmine.dictionary(str(mined), "block2.relu", latents=120, k=8, vectors=300_000, quiet=True)
    said = json.loads((folder / "cfg.json").read_text())
    told = said["metadata"]["measured"]
    assert folder == mined / "dictionaries" / "block2.relu" / "120" and said["architecture"] == "topk"
    assert told["explained_variance"] > 0.8 and told["latents_per_position"] <= 8 and told["held_out"]
    made_again = read_dictionary(folder)
    assert (made_again.latents, made_again.width) == (120, 56)
    sae_lens = pytest.importorskip("sae_lens")
    theirs, x = sae_lens.SAE.load_from_disk(folder), torch.rand(50, 56)
    with torch.no_grad():
        torch.testing.assert_close(made_again(x), theirs.encode(x), rtol=1e-4, atol=1e-5)
    asked = actmine.open_run(mined).record["asked"]
    run = actmine.mine("demo", asked["dataset"], layers="block2.relu", dictionary=f"block2.relu={folder}", topk=3,
                       run=mined, **QUICK)  # fmt: skip
    row = pd.read_parquet(mined / "layers.parquet").set_index("layer").loc["block2.relu:120"]
    assert row.explained_variance == pytest.approx(told["explained_variance"], abs=0.05)
    assert run.units("block2.relu:120").density.sum() == pytest.approx(row.latents_per_position)
    with pytest.raises(UserError, match="holds another dictionary"):
        actmine.dictionary(str(mined), "block2.relu", latents=120, k=9, out=str(folder), quiet=True)


def test_a_killed_training_ends_with_the_same_bytes(mined, tmp_path):
    words = ["dictionary", "--run", str(mined), "--layer", "block2.relu", "--latents", "64", "--vectors", "200000"]
    for name in ("whole", "struck"):
        command = start([*words, "--out", str(tmp_path / name)], tmp_path / "notes")
        if name == "struck":
            assert command.wait_until(lambda: (tmp_path / "struck" / train_dictionary.STATE).exists())
            command.process.kill()
            assert command.end() == -signal.SIGKILL
            command = start([*words, "--out", str(tmp_path / name)], tmp_path / "notes")
        assert command.end() == 0, command.said
    assert "Going on after" in command.said
    same(tmp_path / "whole", tmp_path / "struck")


def same(one: Path, other: Path) -> None:
    assert sorted(path.name for path in other.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    for file in ("cfg.json", "sae_weights.safetensors"):
        assert (one / file).read_bytes() == (other / file).read_bytes()


class Stopped(Silent):
    """Stops whoever reports to it after some reports."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextmanager
    def stage(self, *_: Any, **__: Any) -> Iterator[Callable[..., None]]:
        def advance(*_: Any) -> None:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

        yield advance


def test_vectors_that_memory_does_not_hold_come_in_chunks_and_resume(mined, tmp_path, monkeypatch):
    for name, value in (("_BATCH", 128), ("_CHUNK_BYTES", 4 * 56 * 900), ("_LEAST_OF_AN_IMAGE", 30), ("_SECONDS", 0.0)):
        monkeypatch.setattr(train_dictionary, name, value)
    network = load_network("demo")
    traced = network.traced()
    (layer,) = traced.choose("block2.relu")
    its, shards = Latents(layer, ""), find_dataset(str(mined.parent / "photos")).shards

    def trained(out: Path, progress: Progress = Silent()) -> None:
        settings = train_dictionary.TrainingSettings(50, 4, 6000)
        train_dictionary.train_dictionary(network, traced, its, shards, 70, out, settings, {"of": "test"}, progress)

    trained(tmp_path / "whole")
    for after in (3, 9, 14):
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "struck", Stopped(after))
    trained(tmp_path / "struck")
    same(tmp_path / "whole", tmp_path / "struck")


def test_chunks_hold_every_image_once_and_drawn_positions_change_from_turn_to_turn(mined):
    network = load_network("demo")
    traced = network.traced()
    (layer,) = traced.choose("block2.relu")
    shards = find_dataset(str(mined.parent / "photos")).shards
    whole = LayerVectors(network, traced, Latents(layer, ""), shards, 1 << 20, None, 0).chunk(0)
    assert whole.images + whole.held_images == 70 and len(whole.learned) == whole.images * layer.height * layer.width
    some = LayerVectors(network, traced, Latents(layer, ""), shards, 900, 30, 0)
    for turn in (0, 1):
        place, images, found = (0, 0), 0, []
        while not some.ends(place):
            chunk = some.chunk(turn, place)
            place, images = chunk.after, images + chunk.images + chunk.held_images
            found.append(chunk.learned)
        assert images == 70 and len(found) == 3 and sum(map(len, found)) == whole.images * 30
        drawn = torch.cat(found)
        assert torch.isin(drawn[:, 0], whole.learned[:, 0]).all()
    assert not torch.equal(drawn, torch.cat([some.chunk(0).learned]))


def test_a_dataset_that_is_gone_or_another_is_told(mined, tmp_path):
    other = write_folder(tmp_path / "other", {"a.png": encoded(picture(), "PNG")})
    with pytest.raises(UserError, match=r"is not what .* was mined over"):
        actmine.dictionary(str(mined), "block2.relu", dataset=str(other), quiet=True)
    moved = shutil.copytree(mined, tmp_path / "run")
    record = json.loads((moved / "run.json").read_text())
    del record["asked"]["dataset"]
    (moved / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="does not say where its dataset is"):
        actmine.dictionary(actmine.open_run(moved, trust=True), "block2.relu", quiet=True)
