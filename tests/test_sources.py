"""What DATASET may say: every name, folder and pattern gives the right shards, or one sentence that helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actmine.pipeline.datasets.shards import Rejected
from actmine.pipeline.datasets.sources import FILES_PER_SHARD, MOST_BLOCKS, Dataset, blocks_of, find_dataset
from tests.making import account, image_tar, jpeg, labels, refusal, samples, write_folder, write_tar

SYNSETS = ["n01440764", "n01443537", "n01484850"]


def rows(dataset: Dataset) -> dict[str, str]:
    """The error of every rejected sample by key."""
    found = [sample for shard in dataset.shards for sample in samples(shard)]
    return {sample.key: sample.error for sample in found if isinstance(sample, Rejected)}


# folders


def test_the_classes_of_a_folder_are_its_subfolders_sorted(tmp_path: Path) -> None:
    names = ["dog/1.jpg", "cat/1.jpg", "cat/deeper/2.jpg", "Zebra/x.png", "loose.jpg", "docs/README.txt"]
    dataset = find_dataset(str(write_folder(tmp_path / "pets", dict.fromkeys(names, jpeg()))))
    assert (dataset.name, dataset.classes, dataset.samples) == ("pets", ("Zebra", "cat", "dog"), 6)
    assert labels(dataset) == {"Zebra/x": 0, "cat/1": 1, "cat/deeper/2": 1, "dog/1": 2, "loose": None}
    assert rows(dataset) == {"docs/README": "no image among its files (.txt)"}


def test_a_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    dataset = find_dataset(str(write_folder(tmp_path / "flat", {"b.jpg": jpeg(), "a.JPEG": jpeg()})))
    assert dataset.classes is None
    assert list(labels(dataset).items()) == [("a", None), ("b", None)]


def test_labels_beside_the_images_of_a_folder_are_read(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(), "a.k.jpg": jpeg(), "a.json": b'{"label": 4}', "a.k.cls": b"5"}
    assert labels(find_dataset(str(write_folder(tmp_path / "in", files)))) == {"a": 4, "a.k": 5}


def test_two_images_of_one_name_in_a_folder_are_both_seen_and_keep_their_extension(tmp_path: Path) -> None:
    files = {
        "a.jpg": jpeg(),
        "a.k.jpg": jpeg(),
        "a.png": jpeg(),
        "a.cls": b"7",
        "cat/b.JPG": jpeg(),
        "cat/b.jpg": jpeg(),
    }
    dataset = find_dataset(str(write_folder(tmp_path / "in", files)))
    assert labels(dataset) == {"a.jpg": 7, "a.png": 7, "a.k": None, "cat/b.JPG": 0, "cat/b.jpg": 0}
    assert rows(dataset) == {} and dataset.samples == 5


def test_a_name_that_is_taken_by_a_name_with_its_extension_is_told_apart_too(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(), "a.png": jpeg(), "a.jpg.gif": jpeg()}
    dataset = find_dataset(str(write_folder(tmp_path / "in", files)))
    assert [*labels(dataset)] == ["a.jpg", "a.png", "a.jpg.gif"] and rows(dataset) == {}


def test_hidden_files_are_no_members(tmp_path: Path) -> None:
    files = {".DS_Store": b"x", "cat/._1.jpg": b"x", ".git/1.jpg": jpeg(), "cat/1.jpg": jpeg()}
    dataset = find_dataset(str(write_folder(tmp_path / "in", files)))
    assert (dataset.samples, list(labels(dataset))) == (1, ["cat/1"])


def test_a_large_folder_becomes_several_shards_in_one_order(tmp_path: Path) -> None:
    names = [f"{n:05d}.jpg" for n in range(2 * FILES_PER_SHARD + 3)]
    dataset = find_dataset(str(write_folder(tmp_path / "in", dict.fromkeys(names, b"x"))))
    assert [len(shard.files or ()) for shard in dataset.shards] == [FILES_PER_SHARD, FILES_PER_SHARD, 3]
    assert [path for shard in dataset.shards for path in shard.files or ()] == names


def test_links_in_a_folder_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", {"1.jpg": jpeg()})
    root = write_folder(tmp_path / "in", {"cat/1.jpg": jpeg()})
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "gone.jpg").symlink_to("nothing.jpg")
    (root / "gone").symlink_to(tmp_path / "nothing")
    dataset = find_dataset(str(root))
    assert labels(dataset) == {"cat/1": 0, "dog/1": 1}
    assert set(rows(dataset)) == {"cat/gone", "gone"}
    seen, rejected = account(dataset.shards)
    assert len(seen) + len(rejected) == dataset.samples == 4
    (root / "cat" / "again").symlink_to(root)
    assert "again is a link to a folder above it" in refusal(root)


def test_a_folder_that_cannot_be_listed_is_never_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "in", {"cat/1.jpg": jpeg(), "dog/1.jpg": jpeg()})
    listing = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name == "dog":
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert refusal(root) == f"The folder {root / 'dog'} cannot be read (Permission denied)."


def test_an_empty_folder_and_one_without_images_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no images" in refusal(tmp_path / "empty")
    assert "text holds no images" in refusal(write_folder(tmp_path / "text", {"a.txt": b"x"}))
    image_tar(tmp_path / "deep" / "train" / "0.tar")
    assert f"DATASET='{tmp_path / 'deep'}/**/*.tar'" in refusal(tmp_path / "deep")
    assert len(find_dataset(f"{tmp_path / 'deep'}/**/*.tar").shards) == 1


def test_the_name_of_a_vague_folder_takes_in_its_parent(tmp_path: Path) -> None:
    for word, name in (("birds/val", "birds-val"), ("birds/images", "birds-images"), ("birds/owls", "owls")):
        assert find_dataset(str(write_folder(tmp_path / word, {"a.jpg": b"x"}))).name == name


def test_the_fingerprint_follows_names_and_sizes(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", {"a.jpg": b"x"})
    first = find_dataset(str(root)).fingerprint
    assert find_dataset(str(root)).fingerprint == first
    (root / "a.jpg").write_bytes(b"xy")
    second = find_dataset(str(root)).fingerprint
    (root / "a.jpg").rename(root / "b.jpg")
    assert len({first, second, find_dataset(str(root)).fingerprint}) == 3


# tars


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(12):
        image_tar(tmp_path / "shards" / f"{number:02d}.tar", 2)
    return tmp_path / "shards"


def test_tars_come_by_folder_pattern_or_glob(shards: Path) -> None:
    every = [str(shards / f"{number:02d}.tar") for number in range(12)]
    for word in (shards, f"{shards}/{{00..11}}.tar", f"{shards}/*.tar", f"{shards}/{{0,1}}?.tar"):
        dataset = find_dataset(str(word))
        assert [shard.url for shard in dataset.shards] == every, word
        assert [shard.number for shard in dataset.shards] == list(range(12))
        assert dataset.name == "shards"
    assert [shard.url for shard in find_dataset(every[3]).shards] == [every[3]]


def test_the_order_of_the_words_is_the_order_of_the_shards(shards: Path) -> None:
    found = find_dataset(f"{shards}/{{07,{{02..04}}}}.tar").shards
    assert [Path(shard.url).stem for shard in found] == ["07", "02", "03", "04"]


def test_a_tar_with_odd_letters_in_its_name_is_found(tmp_path: Path) -> None:
    for name in ("a[1].tar", "b{c}.tar", "d*.tar", "e f.tar"):
        assert len(find_dataset(str(image_tar(tmp_path / name))).shards) == 1


def test_home_is_understood(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(shards.parent))
    assert len(find_dataset("~/shards").shards) == 12


def test_a_missing_shard_of_a_pattern_is_an_error(shards: Path) -> None:
    assert refusal(f"{shards}/{{00..13}}.tar") == f"2 of 14 shards are missing, the first is {shards}/12.tar."
    assert "nothing is called" in refusal(f"{shards}/{{0*,2*}}.tar")
    assert "1 of 1 shards are missing" in refusal(shards / "gone.tar")
    (shards / "99.tar").symlink_to("gone")
    assert "99.tar" in refusal(shards)


def test_no_tar_is_read_twice(shards: Path) -> None:
    assert "more than once" in refusal(f"{shards}/{{00,01,00}}.tar")
    assert "which is the same file" in refusal(f"{{{shards},{shards}/../shards}}/00.tar")
    (shards / "link.tar").symlink_to("00.tar")
    assert "which is the same file" in refusal(shards)


def test_tars_and_images_in_one_folder_are_not_guessed_about(shards: Path) -> None:
    write_folder(shards, {"notes.txt": b"x", "._00.tar": b"x"})
    assert len(find_dataset(str(shards)).shards) == 12
    write_folder(shards, {"cat/1.jpg": jpeg()})
    assert f"Say DATASET='{shards}/*.tar'" in refusal(shards)


def test_blocks_cover_every_shard_once_in_order(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", {"a.jpg": b"x"})
    one = find_dataset(str(root))
    for count in (1, 2, MOST_BLOCKS, MOST_BLOCKS + 1, 3 * MOST_BLOCKS + 7):
        blocks = blocks_of(Dataset("x", one.shards * count, ""))
        assert len(blocks) <= MOST_BLOCKS
        assert sum(len(block.shards) for block in blocks) == count
        assert [block.number for block in blocks] == list(range(len(blocks)))


# words that cannot be meant


@pytest.mark.parametrize("word", ["pipe:curl example.org", "gs://bucket/{0..9}.tar", "file:///tmp/a.tar"])
def test_pipes_and_unknown_addresses_are_refused_by_a_sentence(word: str) -> None:
    assert "only folders and tars can be mined, on disks, https:// or s3://" in refusal(word)


def test_an_unknown_word_gets_near_matches() -> None:
    assert "Did you mean imagenet-val" in refusal("imagenet-vall")
    assert "Did you mean demo" in refusal("demmo")
    assert "There is no dataset 'xyzzy'. DATASET is one of demo" in refusal("xyzzy")


@pytest.mark.parametrize("word", ["", "{0..", "a{b", "\0", "x" * 5000, "{" + ",".join(["x" * 99] * 99) + "}.tar", "*"])
def test_no_word_ends_in_a_traceback(word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "DATASET" in refusal(word) or "missing" in refusal(word)


def test_a_folder_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / os.fsdecode(b"caf\xe9"), {"a.jpg": jpeg()})
    assert "not UTF-8" in refusal(root)
    image_tar(root / "x" / "a.tar")
    assert "not UTF-8" in refusal(root / "x" / "a.tar")


# ImageNet


def test_missing_imagenet_says_in_three_lines_what_to_do(tmp_path: Path) -> None:
    for name in ("imagenet-val", "imagenet-train"):
        text = refusal(name, tmp_path)
        assert len(text.splitlines()) == 3
        assert str(tmp_path / name) in text
        assert "ILSVRC2012_img_" in text
        assert "ILSVRC2012_devkit_t12.tar.gz" in text


def test_an_extracted_imagenet_tree_is_found_directly_or_one_level_down(tmp_path: Path) -> None:
    for place in ("imagenet-val", "imagenet-train/train"):
        write_folder(tmp_path / place, {f"{synset}/1.JPEG": jpeg() for synset in SYNSETS})
    for name in ("imagenet-val", "imagenet-train"):
        dataset = find_dataset(name, tmp_path)
        assert (dataset.name, dataset.classes) == (name, tuple(SYNSETS))
        assert list(labels(dataset).values()) == [0, 1, 2]


def test_imagenet_as_webdataset_shards_takes_the_networks_words(tmp_path: Path) -> None:
    write_tar(tmp_path / "imagenet-val" / "0.tar", [("1.jpg", jpeg()), ("1.cls", b"217")])
    dataset = find_dataset("imagenet-val", tmp_path)
    words = [f"word {n}" for n in range(1000)]
    assert labels(dataset) == {"1": 217}
    assert dataset.label_words(words) == tuple(words)
    assert dataset.label_words(words[:10]) is None
    assert dataset.label_words(None) is None


def test_a_thousand_synsets_are_imagenets_classes_and_fewer_are_not(tmp_path: Path) -> None:
    words = [f"word {n}" for n in range(1000)]
    names = [f"n{n:08d}" for n in range(1000)]
    whole = find_dataset(str(write_folder(tmp_path / "whole", {f"{name}/1.jpg": b"x" for name in names})))
    assert whole.label_words(words) == tuple(words)
    assert whole.label_words(None) == tuple(names)
    write_folder(tmp_path / "imagenet-val", {f"{name}/1.jpg": b"x" for name in names[500:503]})
    assert find_dataset("imagenet-val", tmp_path).label_words(words) == tuple(names[500:503])


def test_how_many_images_there_may_be_is_known_of_folders_and_guessed_of_tars(tmp_path):
    write_folder(tmp_path / "folder", {f"{number}.jpg": jpeg(number) for number in range(3)})
    assert find_dataset(str(tmp_path / "folder")).about == 3
    tar = tmp_path / "large.tar"
    tar.touch()
    os.truncate(tar, 11_000_000)
    assert find_dataset(str(tar)).about == 100
