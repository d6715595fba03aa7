"""The same pictures as a folder, tars, Parquet and datasets in Python are the same dataset with the same exemplars."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import actmine
from actmine.pipeline.datasets import parquet_files, parquet_sources
from actmine.pipeline.datasets.live import dataset_of
from actmine.pipeline.datasets.reopened import reopened
from actmine.pipeline.datasets.shards import Place, Rejected, Replaced, Sample, ShardError, read_bytes
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from tests.making import encoded, jpeg, picture, refusal, samples, write_folder, write_tar
from tests.serving import Answer, impatient, in_pieces, running, s3_store, web_server

KINDS = ("cat", "dog", "newt")
FILES = {
    f"{KINDS[n % 3]}/{n:02d}.{kind.lower()}": encoded(picture(50 + n, 44, n), kind)
    for n in range(24)
    for kind in [("PNG", "JPEG")[n % 2]]
}
NAMES = sorted(FILES)
LABELS = [KINDS.index(name.split("/")[0]) for name in NAMES]
SEEN = ["unit", "rank", "activation", "image_id", "label", "y", "x", "left", "top", "right", "bottom"]
TRANSFORM = v2.Compose([v2.Resize(36), v2.CenterCrop(32), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.Conv2d(5, 6, 5), nn.ReLU())


def mined(dataset: Any, run: Path, **words: Any) -> actmine.Run:
    settings = {"topk": 4, "visualize": False, "sheets": False, "quiet": True, "batch_size": 4, **words}
    return actmine.mine(network(), dataset, transform=TRANSFORM, run=run, layers="3", **settings)


def table(rows: range, features: bool = True) -> pa.Table:
    """Pictures as the Hugging Face hub keeps them."""
    images = pa.array([{"bytes": FILES[NAMES[n]], "path": NAMES[n]} for n in rows],
                      pa.struct([("bytes", pa.binary()), ("path", pa.string())]))  # fmt: skip
    found = pa.table({"image": images, "label": pa.array([LABELS[n] for n in rows], pa.int64()),
                      "caption": ["a picture"] * len(rows)})  # fmt: skip
    about = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": [*KINDS]}}
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": about}})} if features else {})


def write_parquet(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    for number, rows in enumerate((range(15), range(15, 24))):
        pq.write_table(table(rows), folder / "data" / f"train-{number:05d}-of-00002.parquet", row_group_size=4)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forms")
    write_folder(root / "folder", FILES)
    members = [(f"{n:02d}.{end}", data) for n, name in enumerate(NAMES)
               for end, data in ((name.split(".")[1], FILES[name]), ("cls", str(LABELS[n]).encode()))]  # fmt: skip
    write_tar(root / "a.tar", members)
    write_parquet(root / "parquet")
    return root


@pytest.fixture(scope="module")
def by_folder(place: Path) -> actmine.Run:
    return mined(place / "folder", place / "by-folder")


def hub_dataset() -> Any:
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=[*KINDS])})
    held = [
        {"image": {"bytes": FILES[name], "path": None}, "label": label}
        for name, label in zip(NAMES, LABELS, strict=True)
    ]
    return datasets.Dataset.from_list(held, features=features)


class Tensors(Dataset):
    """Pictures as float tensors in dicts."""

    classes = KINDS

    def __len__(self) -> int:
        return len(NAMES)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = Image.open(io.BytesIO(FILES[NAMES[index]])).convert("RGB")
        return {"image": torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255, "label": torch.tensor(LABELS[index])}


FORMS = {
    "tar": lambda place: place / "a.tar",
    "parquet": lambda place: place / "parquet",
    "glob of parquet": lambda place: str(place / "parquet" / "data" / "*.parquet"),
    "torchvision": lambda place: ImageFolder(str(place / "folder")),
    "part of one": lambda place: Subset(ImageFolder(str(place / "folder")), range(24)),
    "tensors": lambda place: Tensors(),
    "hub": lambda place: hub_dataset(),
}


@pytest.mark.parametrize("form", FORMS)
def test_they_have_the_same_exemplars_labels_and_pixels(form, place, by_folder, tmp_path):
    run = mined(FORMS[form](place), tmp_path / "run")
    found, wanted = run.exemplars("3"), by_folder.exemplars("3")
    pd.testing.assert_frame_equal(found[SEEN], wanted[SEEN])
    assert run.record["counts"]["seen"] == 24 and run.shards.members.sum() == 24
    if form != "tar":
        assert (found.label_name == wanted.label_name).all()
    for image in found.image_id.unique()[:4]:
        assert np.array_equal(run.original(image).convert("RGB"), by_folder.original(image).convert("RGB"))
    assert all(np.array_equal(run.crop(one), by_folder.crop(other)) for (_, one), (_, other) in
               zip(found.head(8).iterrows(), wanted.head(8).iterrows(), strict=True))  # fmt: skip


def test_units_of_work_are_whole_row_groups_and_rows_are_found_again(place, monkeypatch):
    monkeypatch.setattr(parquet_sources, "ROWS_PER_SHARD", 5)
    monkeypatch.setattr(parquet_files, "_GROUPS", 1)
    dataset = find_dataset(str(place / "parquet"))
    assert dataset.samples == 24 and dataset.classes == KINDS
    spans = [(shard.first, shard.groups) for shard in dataset.shards]
    assert spans == [(0, (0, 2)), (8, (2, 4)), (0, (0, 2)), (8, (2, 3))]
    for shard in dataset.shards:
        for sample in samples(shard):
            assert isinstance(sample, Sample) and sample.data == FILES[sample.place.path]
            again = pickle.loads(pickle.dumps(reopened(shard.number, shard.url)))
            assert read_bytes(again, sample.place) == sample.data
    with pytest.raises(ShardError, match="a trap"):
        read_bytes(dataset.shards[0], sample.place.__class__("x", 99, 3))


def test_an_interrupted_scan_of_parquet_goes_on_to_the_same_bytes(place, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_sources, "ROWS_PER_SHARD", 4)
    whole = mined(place / "parquet", tmp_path / "whole")
    read, seen = parquet_files.rows, []

    def stopped(*about):
        for row in read(*about):
            seen.append(row)
            if len(seen) == 13:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr("actmine.pipeline.datasets.parquet_shards.rows", stopped)
    with pytest.raises(KeyboardInterrupt):
        mined(place / "parquet", tmp_path / "run")
    monkeypatch.setattr(
        "actmine.pipeline.datasets.parquet_shards.rows", lambda *about: (seen.append(1), read(*about))[1]
    )
    run = mined(place / "parquet", tmp_path / "run")
    for name in ("exemplars/3.parquet", "images.parquet", "shards.parquet"):
        assert (run.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_rows_that_hold_no_picture_are_skipped_with_their_reason(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": jpeg(1), "path": "a.jpg"}, None, {"bytes": None, "path": "there/b.jpg"},
            {"bytes": jpeg(2), "path": "a.jpg"}, {"bytes": b"no picture", "path": None}]  # fmt: skip
    file = tmp_path / "birds.parquet"
    pq.write_table(pa.table({"image": pa.array(rows, kind), "label": ["sparrow", None, "", "wren", "tit"]}), file)
    found = samples(find_dataset(str(file)).shards[0])
    assert [(each.key, getattr(each, "error", None)) for each in found] == [
        ("a", None), ("birds/000001", "no image in its row"),
        ("there/b", "the file has no bytes of it, only the path there/b.jpg"), ("birds/000003", None),
        ("birds/000004", None),
    ]  # fmt: skip
    assert [each.label_name for each in found if isinstance(each, Sample)] == ["sparrow", "wren", "tit"]
    run = mined(file, tmp_path / "run", max_skipped=1.0)
    assert pd.read_parquet(run.path / "skipped.parquet").position.tolist() == [1, 2, 4]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"text": ["a"]}, "holds no images: actmine takes a column called image"),
        ({"left": [b"x"], "right": [b"y"]}, r"several columns of images \(left, right\)"),
    ],
)
def test_columns_that_do_not_say_what_they_are_end_in_a_sentence(columns, told, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=told) as refused:
        find_dataset(str(tmp_path / "a.parquet"))
    assert str(refused.value).startswith(str(tmp_path / "a.parquet"))


def test_words_that_a_column_of_categories_holds_are_labels(tmp_path):
    words = [KINDS[label] for label in LABELS[:6]]
    pictures = table(range(6), features=False).select(["image"])
    pq.write_table(pictures.append_column("label", pa.array(words).dictionary_encode()), tmp_path / "a.parquet")
    found = [each for shard in find_dataset(str(tmp_path)).shards for each in samples(shard)]
    assert [each.label_name for each in found if isinstance(each, Sample)] == words


def test_several_splits_are_not_mined_as_one(place, tmp_path):
    folder = write_parquet(tmp_path / "both")
    pq.write_table(table(range(3)), folder / "data" / "validation-00000-of-00001.parquet")
    said = refusal(str(folder))
    assert "holds the splits train, validation" in said and f"DATASET='{folder}/data/train-*.parquet'" in said
    assert find_dataset(f"{folder}/data/train-*.parquet").samples == 24
    assert find_dataset(str(folder / "data" / "validation-*.parquet")).samples == 3


@pytest.mark.parametrize("names", [("train", "test"), ("default/train/0000", "default/validation/0000")])
def test_splits_are_known_by_names_and_folders(names, tmp_path):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(range(3)), tmp_path / f"{name}.parquet")
    assert "holds the splits " in refusal(str(tmp_path))
    assert find_dataset(str(tmp_path / f"{names[0]}.parquet")).samples == 3


def test_a_file_that_is_replaced_is_read_anew(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(range(6)), file)
    shard = find_dataset(str(file)).shards[0]
    sample = [each for each in samples(shard) if isinstance(each, Sample)][2]
    assert read_bytes(shard, sample.place) == sample.data
    pq.write_table(table(range(6, 12)), file)
    with pytest.raises(Replaced, match=r"Row 2 of .*a\.parquet"):
        read_bytes(shard, Place(sample.place.path, 2, sample.place.nbytes, zlib.crc32(sample.data)))


def test_a_folder_of_parquet_in_a_bucket_is_the_same_dataset(place, tmp_path, by_folder, monkeypatch):
    pytest.importorskip("moto", reason="needs moto")
    impatient(monkeypatch)
    with s3_store(monkeypatch) as store:
        files = {f"birds/data/{path.name}": path.read_bytes() for path in (place / "parquet" / "data").iterdir()}
        url = store.put("parquet", files)
        dataset = find_dataset(f"{url}/birds")
        assert dataset.samples == 24 and dataset.shards[0].is_far
        run = mined(f"{url}/birds/data/*.parquet", tmp_path / "run")
        pd.testing.assert_frame_equal(run.exemplars("3")[SEEN], by_folder.exemplars("3")[SEEN])
        assert run.original(3).size == by_folder.original(3).size


def test_a_file_that_changed_is_noticed(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(range(6)), file)
    shard = find_dataset(str(file)).shards[0]
    sample = [each for each in samples(shard) if isinstance(each, Sample)][2]
    place = sample.place.__class__(sample.place.path, 3, sample.place.nbytes, 1)
    with pytest.raises(Replaced, match="dataset changed"):
        read_bytes(shard, place)
    (tmp_path / "b.parquet").write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ShardError, match="cannot be read as Parquet"):
        find_dataset(str(tmp_path / "b.parquet"))


def test_parquet_over_http_is_the_same_dataset(place, tmp_path, by_folder):
    pytest.importorskip("aiohttp", reason="needs the extra http")
    with web_server(place / "parquet") as server:
        word = f"{server.url}/data/train-{{00000..00001}}-of-00002.parquet"
        dataset = find_dataset(word)
        assert dataset.fingerprint == find_dataset(str(place / "parquet")).fingerprint and all(
            shard.is_far for shard in dataset.shards
        )
        run = mined(word, tmp_path / "run")
        pd.testing.assert_frame_equal(run.exemplars("3")[SEEN], by_folder.exemplars("3")[SEEN])


def hub(place: Path) -> Any:
    """Answers as the Hugging Face hub does for datasets/me/birds, to whoever has the token."""
    files = {f"data/{path.name}": path.read_bytes() for path in sorted((place / "parquet" / "data").iterdir())}
    known = [{"type": "file", "oid": "a" * 40, "size": len(data), "path": name} for name, data in files.items()]
    known.append({"type": "directory", "oid": "b" * 40, "size": 0, "path": "data"})

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        path = unquote(urlsplit(handler.path).path)
        if "me/birds" not in path or handler.headers.get("Authorization") != "Bearer hf_mine":
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if "/resolve/" in path:
            return in_pieces(files[path.split("/main/")[1]], handler)
        said = known if "/tree/" in path else {"id": "me/birds", "sha": "c" * 40, "private": False}
        return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()

    return answer


def test_a_dataset_of_the_hub_is_mined_by_its_name(place, by_folder, tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra hf")
    with running(hub(place)) as server:
        words = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_mine", "HF_HOME": str(tmp_path / "home")}
        code = (
            "from tests.test_datasets_in_any_form import *\n"
            "dataset = find_dataset('hf://datasets/me/birds')\n"
            f"run = mined('hf://datasets/me/birds', Path({str(tmp_path / 'run')!r}))\n"
            "assert run.original(0).size == run.place_of(0).size\n"
            "assert dataset.samples == 24 and dataset.classes == KINDS\n"
            "print(refusal('hf://datasets/me/nothing'))"
        )
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **words}, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "There is nothing at hf://datasets/me/nothing" in done.stdout
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "run" / "exemplars")[SEEN], by_folder.exemplars("3")[SEEN])


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_other_stores_are_read_by_whatever_file_system_is_installed_for_them(scheme, place, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    class Store(MemoryFileSystem):
        protocol, store, pseudo_dirs = scheme, {}, [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return "/" + path.removeprefix(f"{scheme}://").strip("/")

    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, scheme, Store)
    for path in (place / "parquet" / "data").iterdir():
        Store().pipe(f"/bucket/birds/data/{path.name}", path.read_bytes())
    dataset = find_dataset(f"{scheme}://bucket/birds")
    assert dataset.samples == 24 and dataset.classes == KINDS and all(shard.is_far for shard in dataset.shards)
    found = [each for shard in dataset.shards for each in samples(shard)]
    assert [each.data for each in found if isinstance(each, Sample)] == [FILES[name] for name in NAMES]
    with pytest.raises(UserError, match="names no Parquet files"):
        find_dataset(f"{scheme}://bucket/nothing")


class Faulty(Tensors):
    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 5:
            raise RuntimeError("the disk has a scratch")
        return super().__getitem__(index)


class Random(Tensors):
    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return {**item, "image": item["image"].roll(int(torch.randint(9, ())), 2)}


class Later(Tensors):
    shift = 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return {**item, "image": item["image"].roll(self.shift, 2)}


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter(())


class Normalized(Tensors):
    def __getitem__(self, index: int) -> Any:
        return (super().__getitem__(index)["image"] - 0.45) / 0.22


def test_an_item_that_fails_is_skipped_and_says_why(tmp_path):
    lost = [each for each in samples(dataset_of(Faulty()).shards[0]) if isinstance(each, Rejected)]
    assert [(each.position, each.key, each.error) for each in lost] == [(5, "05", "the disk has a scratch")]


@pytest.mark.parametrize(
    ("held", "told"),
    [
        (Random, "another picture each time"),
        (Stream, "no length or no items by number"),
        (Normalized, r"no levels of 255.*transform= to actmine\.mine"),
        (lambda: {"train": Tensors(), "test": Tensors()}, r"give one of them, dataset\['train'\]"),
        (lambda: [("no picture", 1)], "begins with one"),
        (lambda: [np.zeros((8, 8, 3), np.int64)], "int64: a picture is uint8"),
        (lambda: hub_dataset().to_iterable_dataset(), "is a stream"),
        (lambda: hub_dataset().remove_columns("image"), "no column of images"),
    ],
)
def test_what_cannot_be_mined_is_refused_with_the_way_on(held, told):
    with pytest.raises(UserError, match=told):
        dataset_of(held())


def test_pictures_that_are_others_when_they_are_read_again_are_noticed():
    held = Later()
    shard = dataset_of(held).shards[0]
    sample = next(each for each in samples(shard) if isinstance(each, Sample))
    held.shift = 4
    place = sample.place.__class__(sample.place.path, 0, sample.place.nbytes, 1)
    with pytest.raises(Replaced, match="Item 0 of the dataset has other bytes"):
        read_bytes(shard, place)


def test_a_run_without_its_dataset_shows_what_it_holds_and_says_what_is_missing(tmp_path):
    run = actmine.open_run(mined(Tensors(), tmp_path / "run").path)
    best = run.exemplars("3", 0).iloc[0]
    assert run.picture(best.image_id).size and run.whole(best.image_id).size and run.crop(best).size
    with pytest.raises(UserError, match="came from a dataset in Python, Tensors"):
        run.original(best.image_id)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16"])
def test_pillow_s_pictures_keep_their_pixels(mode):
    image = picture(21, 17, 5).convert("L" if mode == "I;16" else mode)
    image = Image.fromarray(np.array(image).astype(np.uint16) * 257) if mode == "I;16" else image
    data = next(each for each in samples(dataset_of([image]).shards[0]) if isinstance(each, Sample)).data
    again = Image.open(io.BytesIO(data))
    assert again.size == image.size and np.array_equal(np.array(again.convert("RGBA")), np.array(image.convert("RGBA")))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX"])
def test_modes_that_no_lossless_file_has_are_taken_as_rgb_is_made_of_them(mode):
    image = picture(21, 17, 5).convert(mode)
    data = next(each for each in samples(dataset_of([image]).shards[0]) if isinstance(each, Sample)).data
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), np.array(image.convert("RGB")))


def test_half_precision_still_says_which_level_each_number_is():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)
    data = next(
        each for each in samples(dataset_of([(levels / 255).half()]).shards[0]) if isinstance(each, Sample)
    ).data
    assert np.array_equal(np.array(Image.open(io.BytesIO(data))), levels[0].numpy())


def test_other_columns_of_pictures_are_not_read_and_cannot_lose_an_item():
    datasets = pytest.importorskip("datasets", reason="needs the package datasets")
    held = hub_dataset()
    broken = [{"bytes": b"no picture", "path": None}] * len(held)
    held = held.add_column("mask", broken).cast_column("mask", datasets.Image())
    found = [each for shard in dataset_of(held).shards for each in samples(shard)]
    assert [each.data for each in found if isinstance(each, Sample)] == [FILES[name] for name in NAMES]
    assert [each.label for each in found if isinstance(each, Sample)] == LABELS


def test_other_labels_on_the_same_pictures_are_another_dataset():
    image = picture(21, 17, 5)
    one, again, other = (dataset_of([(image, label)]).fingerprint for label in (1, 1, 2))
    assert one == again != other
