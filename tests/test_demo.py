"""The demo: rendered the same every time, shards others can read, and a network that knows its concepts."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from actmine.pipeline.demo import dataset
from actmine.pipeline.demo.concepts import CONCEPTS
from actmine.pipeline.demo.dataset import IMAGES_PER_SHARD, render_dataset, render_split
from actmine.pipeline.demo.network import CROP, WEIGHTS_FILE, demo_network, preprocess
from actmine.pipeline.demo.scene import render
from actmine.pipeline.demo.train import load_demo_network

PER_CONCEPT = 9  # 288 images: one whole shard and a short one


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return render_dataset(tmp_path_factory.mktemp("demo"), images_per_concept=PER_CONCEPT, workers=1)


def contents(shards: list[Path]) -> dict[str, bytes]:
    return {shard.name: shard.read_bytes() for shard in shards}


def test_there_are_enough_concepts_with_readable_names() -> None:
    assert len(CONCEPTS) >= 24
    assert len(set(CONCEPTS)) == len(CONCEPTS)
    assert all(name.replace(" ", "").isalpha() and name == name.lower() for name in CONCEPTS)


@pytest.mark.parametrize("concept", CONCEPTS)
def test_every_concept_renders_at_several_seeds(concept: str) -> None:
    label = CONCEPTS.index(concept)
    pictures = [render(seed, "held-out", label + 32 * seed) for seed in range(4)]
    for picture in pictures:
        pixels = np.asarray(picture.image)
        assert (picture.label, picture.label_name) == (label, concept)
        assert min(picture.image.size) >= 128
        assert max(picture.image.size) <= 224
        assert pixels.std() > 8, "an image without anything on it"
        assert np.isfinite(list(picture.pose.values())).all()
    assert len({picture.jpeg() for picture in pictures}) == len(pictures)


def test_an_image_depends_only_on_seed_split_and_index() -> None:
    first = render(3, "held-out", 40).jpeg()
    render(3, "held-out", 41)
    assert render(3, "held-out", 40).jpeg() == first
    assert render(3, "train", 40).jpeg() != first
    assert render(4, "held-out", 40).jpeg() != first
    with pytest.raises(ValueError, match="split 'test' is not one of"):
        render(3, "test", 40)


def test_a_second_rendering_gives_the_same_bytes_with_any_number_of_workers(
    rendered: list[Path], tmp_path: Path
) -> None:
    again = render_dataset(tmp_path, images_per_concept=PER_CONCEPT, workers=2)
    assert contents(again) == contents(rendered)


def test_the_webdataset_library_reads_the_shards_and_finds_the_right_labels(rendered: list[Path]) -> None:
    stream = webdataset.WebDataset([str(shard) for shard in rendered], shardshuffle=False).decode("pil")
    seen: Counter[int] = Counter()
    sizes = set()
    for sample in stream:
        name, number = sample["__key__"].rsplit("-", 1)
        assert CONCEPTS[sample["cls"]] == name.replace("-", " ") == sample["json"]["label_name"]
        expected = render(0, "held-out", int(number) * len(CONCEPTS) + sample["cls"])
        assert expected.key == sample["__key__"]
        seen[sample["cls"]] += 1
        sizes.add(sample["jpg"].size)
    assert seen == dict.fromkeys(range(len(CONCEPTS)), PER_CONCEPT)
    assert len(sizes) > 50, "the geometry deserves many sizes and shapes"


def test_the_concepts_are_shuffled_across_the_shards(rendered: list[Path]) -> None:
    assert [path.name for path in rendered] == ["demo-000000.tar", "demo-000001.tar"]
    first = webdataset.WebDataset(str(rendered[0]), shardshuffle=False)
    labels = [int(sample["cls"]) for sample in first]
    assert len(labels) == IMAGES_PER_SHARD
    assert len(set(labels[:128])) > 24
    assert labels != sorted(labels)


def test_a_finished_dataset_is_not_rendered_again(rendered: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "render", lambda *_: pytest.fail("rendered again"))
    assert render_dataset(rendered[0].parent, images_per_concept=PER_CONCEPT) == rendered


def test_an_interrupted_rendering_is_completed(
    rendered: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a kill leaves: whole shards, a half-written partial file, no marker."""
    kept = tmp_path / rendered[1].name
    kept.write_bytes(rendered[1].read_bytes())
    before = kept.stat().st_mtime_ns
    leftover = tmp_path / ".demo-000000.tar.4711.partial"
    leftover.write_bytes(rendered[0].read_bytes()[:5000])
    os.utime(leftover, (time.time() - 3600,) * 2)
    count = []
    monkeypatch.setattr(dataset, "render", lambda *where: count.append(where) or render(*where))
    again = render_dataset(tmp_path, images_per_concept=PER_CONCEPT, workers=1)
    assert contents(again) == contents(rendered)
    assert kept.stat().st_mtime_ns == before
    assert len(count) == IMAGES_PER_SHARD, "only the missing shard was rendered"
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(path.name for path in again), "demo.json"]


def test_a_truncated_shard_is_rendered_again(rendered: list[Path], tmp_path: Path) -> None:
    for path in (*rendered, rendered[0].with_name("demo.json")):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / rendered[1].name).open("r+b") as file:
        file.truncate(7000)
    assert contents(render_dataset(tmp_path, images_per_concept=PER_CONCEPT)) == contents(rendered)


def test_a_directory_of_another_version_is_rendered_anew(tmp_path: Path) -> None:
    shards = render_dataset(tmp_path, images_per_concept=1)
    fresh = contents(shards)
    marker = json.loads((tmp_path / "demo.json").read_text())
    assert (marker["images"], marker["seed"]) == (32, 0)
    other = render_dataset(tmp_path, images_per_concept=1, seed=5)
    assert contents(other) != fresh
    (tmp_path / "demo-000007.tar").write_bytes(b"from a larger rendering")
    assert contents(render_dataset(tmp_path, images_per_concept=1)) == fresh
    assert not (tmp_path / "demo-000007.tar").exists()


def test_another_split_in_the_same_directory_does_not_pass_for_the_first(tmp_path: Path) -> None:
    train = contents(render_split(tmp_path, "train", images_per_concept=1))
    assert contents(render_dataset(tmp_path, images_per_concept=1)) != train


def test_fewer_than_one_image_per_concept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        render_dataset(tmp_path, images_per_concept=0)


def test_the_network_is_small() -> None:
    assert sum(parameter.numel() for parameter in demo_network().parameters()) <= 250_000
    assert WEIGHTS_FILE.stat().st_size <= 1_000_000


def test_the_network_traces_and_gives_one_logit_per_concept() -> None:
    network = demo_network().eval()
    traced = torch.fx.symbolic_trace(network)
    inputs = torch.randn(2, 3, CROP, CROP)
    assert network(inputs).shape == (2, len(CONCEPTS))
    torch.testing.assert_close(traced(inputs), network(inputs))


def test_preprocessing_takes_the_middle_of_any_shape() -> None:
    for size in ((224, 128), (128, 224), (96, 96)):
        assert preprocess(Image.new("RGB", size, "teal")).shape == (3, CROP, CROP)


def test_the_shipped_network_names_at_least_95_percent_of_fresh_images() -> None:
    """Images of a seed that neither the training nor the mined dataset uses."""
    network = load_demo_network()
    right = 0
    with torch.inference_mode():
        for start in range(0, 640, 128):
            pictures = [render(2026, "held-out", index) for index in range(start, start + 128)]
            logits = network(torch.stack([preprocess(picture.image) for picture in pictures]))
            right += sum(logits.argmax(1).tolist()[i] == picture.label for i, picture in enumerate(pictures))
    assert right / 640 >= 0.95
