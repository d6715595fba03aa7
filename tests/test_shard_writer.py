"""`make shards`: every image comes out again as it went in, in its order, however often the writing was interrupted."""

from __future__ import annotations

import json
import tarfile
import zlib
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import actmine.pipeline.datasets.shard_file
from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.shard_file import shard_key
from actmine.pipeline.datasets.shard_writer import Written, out_folder, write_shards
from actmine.pipeline.datasets.shards import Rejected, Sample
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.datasets.tar_shards import tar_key
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.schemas.shard_index import SHARD_INDEX, SOURCE_SKIPPED
from tests.making import encoded, image_tar, jpeg, picture, samples, write_folder, write_tar
from tests.serving import impatient, s3_store, web_server


def pictures(root: Path, count: int = 23) -> Path:
    """A folder of three classes, with some files that are no images."""
    files = {f"{('cat', 'dog', 'owl')[n % 3]}/{n:03d}.JPEG": jpeg(n) for n in range(count)}
    files |= {
        "dog/x.png": encoded(picture(), "PNG"),
        "owl/notes.txt": b"x",
        "cat/readme": b"x",
        "loose.jpg": jpeg(7),
    }
    return write_folder(root, files)


def write(source: Path | str, out: Path, size: int = 5, **more: object) -> Written:
    return write_shards(find_dataset(str(source)), out, size, **more)  # type: ignore[arg-type]


def found(place: Path | Dataset) -> list[Sample | Rejected]:
    dataset = place if isinstance(place, Dataset) else find_dataset(str(place))
    return [sample for shard in dataset.shards for sample in samples(shard)]


def good(place: Path | Dataset) -> list[tuple[str, bytes, int | None]]:
    return [(each.key, each.data, each.label) for each in found(place) if isinstance(each, Sample)]


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_image_comes_out_as_it_went_in(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets")
    written = write(source, tmp_path / "out")
    assert good(tmp_path / "out") == good(source)
    assert (written.shards, written.samples, written.skipped, written.renamed) == (5, 25, 2, 0)
    assert [len(samples(shard)) for shard in find_dataset(str(tmp_path / "out")).shards] == [5] * 5
    words = {sample.label: sample.label_name for sample in found(tmp_path / "out") if isinstance(sample, Sample)}
    assert words == {None: None, 0: "cat", 1: "dog", 2: "owl"}
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar"))[0] == "pets-000000.tar"


def test_images_of_one_name_are_both_written(tmp_path: Path) -> None:
    twins = {"cat/1.jpg": jpeg(1), "cat/1.png": encoded(picture(9, 9), "PNG"), "cat/2.jpg": jpeg(2)}
    written = write(write_folder(tmp_path / "in", twins), tmp_path / "out")
    assert (written.samples, written.skipped, written.renamed) == (3, 0, 2)
    assert [data for _, data, _ in good(tmp_path / "out")] == list(twins.values())


def test_what_was_left_out_is_a_row(tmp_path: Path) -> None:
    write(pictures(tmp_path / "pets"), tmp_path / "out")
    rows = pd.read_parquet(tmp_path / "out" / "skipped.parquet")
    assert dict(zip(rows.key, rows.error, strict=True)) == {
        "cat/readme": "no image among its files (no extension)",
        "owl/notes": "no image among its files (.txt)",
    }
    losses = [(each.position, each.key) for each in found(tmp_path / "pets") if isinstance(each, Rejected)]
    assert list(zip(rows.position, rows.key, strict=True)) == losses


def test_the_webdataset_library_reads_the_same(tmp_path: Path) -> None:
    write(pictures(tmp_path / "pets"), tmp_path / "out", 1000)
    (path,) = (tmp_path / "out").glob("*.tar")
    theirs = {sample["__key__"]: sample for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    for key, data, label in good(tmp_path / "pets"):
        assert theirs[key].get("jpeg", theirs[key].get("png", theirs[key].get("jpg"))) == data
        if label is not None:
            assert int(theirs[key]["cls"]) == label
            assert json.loads(theirs[key]["json"]) == {"label": label, "label_name": ("cat", "dog", "owl")[label]}


def test_two_writings_give_the_same_bytes_whatever_the_threads(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets", 100)
    write(source, tmp_path / "one", 7, workers=1)
    write(source, tmp_path / "two", 7, workers=5)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    with tarfile.open(tmp_path / "one" / "pets-000000.tar") as tar:
        assert {(info.mtime, info.uid, info.gid, info.mode) for info in tar} == {(0, 0, 0, 0o644)}


def test_the_index_says_where_every_byte_is(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets")
    write(source, tmp_path / "out")
    for path in (tmp_path / "out").glob("*.tar"):
        data = path.read_bytes()
        index = path.with_suffix(".index.parquet")
        with tarfile.open(path) as tar:
            members = {info.name: info for info in tar}
        for row in pd.read_parquet(index).itertuples():
            assert (members[row.path].offset_data, members[row.path].size) == (row.offset, row.nbytes)
            assert zlib.crc32(data[row.offset : row.offset + row.nbytes]) == row.crc32
            assert data[row.offset : row.offset + row.nbytes] == (source / row.source_path).read_bytes()
        schema = pq.read_schema(index)
        assert schema.equals(SHARD_INDEX) and all(field.metadata[b"description"] for field in schema)
    assert pq.read_schema(tmp_path / "out" / "skipped.parquet").equals(SOURCE_SKIPPED)


# keys


@given(st.lists(st.text("ab.%2E5/~", max_size=9), unique=True, max_size=9))
def test_different_keys_stay_different_and_tars_hold_them(keys: list[str]) -> None:
    held = [shard_key(key) for key in keys if key.rpartition("/")[2]]
    assert len(set(held)) == len(held)
    for key, name in zip([key for key in keys if key.rpartition("/")[2]], held, strict=True):
        assert tar_key(f"{name}.jpg") == name
        assert name == key or "." in key or "%" in key


def test_names_that_a_tar_cannot_hold_are_changed_and_written_down(tmp_path: Path) -> None:
    names = ["v1.2.jpg", "v1.3.jpg", "v1%2E2.jpg", "x.y/plain.jpg", "größe 📷.jpg", "long" * 50 + ".jpg", "a\nb.jpg"]
    source = write_folder(tmp_path / "in", {name: jpeg(n) for n, name in enumerate(names)})
    written = write(source, tmp_path / "out", 1000)
    assert written.renamed == 3
    rows = pd.read_parquet(next((tmp_path / "out").glob("*.index.parquet")))
    assert dict(zip(rows.source_key, rows.key, strict=True)) == {
        "v1.2": "v1%2E2", "v1.3": "v1%2E3", "v1%2E2": "v1%252E2", "x.y/plain": "x.y/plain", "größe 📷": "größe 📷",
        "long" * 50: "long" * 50, "a\nb": "a\nb",
    }  # fmt: skip
    by_key = {key: data for key, data, _ in good(tmp_path / "out")}
    for row in rows.itertuples():
        assert by_key[row.key] == (source / row.source_path).read_bytes()


def test_a_key_that_two_shards_share_stays_two_images(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / "in" / f"{number}.tar", [("a.jpg", jpeg(number)), ("b.jpg", jpeg(9 + number))])
    assert write(tmp_path / "in", tmp_path / "out", 1000).renamed == 4
    assert [(key, data) for key, data, _ in good(tmp_path / "out")] == [
        ("a", jpeg(0)), ("b", jpeg(9)), ("a~2", jpeg(1)), ("b~2", jpeg(10)), ("a~3", jpeg(2)), ("b~3", jpeg(11)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "label", "word"),
    [
        ({}, None, None),
        ({"cls": b"7"}, 7, None),
        ({"cls": b"tench"}, None, "tench"),
        ({"json": b'{"label": 3, "label_name": "dog", "more": 1}'}, 3, "dog"),
        ({"cls": b"-1", "json": b'{"class_name": "12"}'}, None, None),
        ({"cls": b"1", "json": b'{"class_name": "12"}'}, 1, "12"),
    ],
)
def test_labels_of_tars_come_out_again(
    files: dict[str, bytes], label: int | None, word: str | None, tmp_path: Path
) -> None:
    write_tar(tmp_path / "in" / "0.tar", [("1.jpg", jpeg()), *((f"1.{kind}", data) for kind, data in files.items())])
    write(tmp_path / "in", tmp_path / "out")
    (sample,) = found(tmp_path / "out")
    assert isinstance(sample, Sample)
    assert (sample.data, sample.label, sample.label_name) == (jpeg(), label, word)


def test_imagenets_classes_get_their_words(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "whole", {f"n{n:08d}/1.jpg": jpeg(0) for n in range(1000)})
    write(source, tmp_path / "out", 1000)
    categories = load_network("squeezenet1_1", "random").categories
    assert [each.label_name for each in found(tmp_path / "out") if isinstance(each, Sample)] == list(categories or ())


# interruptions


def test_an_interrupted_writing_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(tmp_path / "pets", 40)
    write(source, tmp_path / "whole", 4)
    add = actmine.pipeline.datasets.shard_file.ShardFile.add
    for stop in (3, 6, 13, 17):
        left = stop

        def fail(self, *args):  # type: ignore[no-untyped-def]
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            add(self, *args)

        monkeypatch.setattr(actmine.pipeline.datasets.shard_file.ShardFile, "add", fail)
        with pytest.raises(KeyboardInterrupt):
            write(source, tmp_path / "out", 4, workers=2)
        assert not (tmp_path / "out" / "skipped.parquet").exists()
    monkeypatch.undo()
    write(source, tmp_path / "out", 4)
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")


@pytest.mark.parametrize("name", ["pets-000002.tar", "pets-000002.index.parquet", "pets-000000.tar", "skipped.parquet"])
def test_what_was_deleted_is_written_again(name: str, tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets")
    write(source, tmp_path / "out")
    before = everything(tmp_path / "out")
    (tmp_path / "out" / name).unlink()
    write(source, tmp_path / "out")
    assert everything(tmp_path / "out") == before


def test_a_shard_that_was_cut_is_written_again(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets")
    write(source, tmp_path / "out")
    before = everything(tmp_path / "out")
    path = tmp_path / "out" / "pets-000001.tar"
    path.write_bytes(path.read_bytes()[:-100])
    write(source, tmp_path / "out")
    assert everything(tmp_path / "out") == before


def test_a_disk_that_writes_other_bytes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar_file = webdataset.TarWriter.write

    def spoil(self, files):  # type: ignore[no-untyped-def]
        files = {name: data if name != "jpeg" else data[:-1] + b"x" for name, data in files.items()}
        return write_tar_file(self, files)

    monkeypatch.setattr(webdataset.TarWriter, "write", spoil)
    with pytest.raises(UserError, match="reads back other than it was written"):
        write(pictures(tmp_path / "pets"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


# refusals


def test_an_out_that_was_begun_differently_is_refused(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets")
    write(source, tmp_path / "out")
    with pytest.raises(UserError, match="samples_per_shard was 5, now 6"):
        write(source, tmp_path / "out", 6)
    (source / "cat" / "more.jpg").write_bytes(jpeg())
    with pytest.raises(UserError, match="source_fingerprint was"):
        write(source, tmp_path / "out")


def test_an_out_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets")
    with pytest.raises(UserError, match="lies inside SOURCE"):
        write(source, source / "shards")
    image_tar(tmp_path / "other" / "a.tar")
    with pytest.raises(UserError, match=r"holds tars of another origin \(a.tar\)"):
        write(source, tmp_path / "other")
    for word in ("https://user:geheim@host/out", "s3://bucket", "gs://bucket/x"):
        with pytest.raises(UserError, match=r"^OUT=.* can hold no shards") as caught:
            out_folder(word)
        assert "geheim" not in str(caught.value)
    with pytest.raises(UserError, match="OUT is empty"):
        out_folder(" ")


def test_a_source_without_images_is_refused_and_named(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "0.tar", [("1.txt", b"x")])
    with pytest.raises(UserError, match=r"No image of in could be read; see .*skipped.parquet"):
        write(tmp_path / "in", tmp_path / "out")
    assert pd.read_parquet(tmp_path / "out" / "skipped.parquet").key.tolist() == ["1"]


# from end to end


def mined(word: Path, run: Path) -> pd.DataFrame:
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.*")
    settings = MineSettings(StatisticsOptions(topk=6), max_skipped=1.0)
    mine(find_dataset(str(word)), network, traced, layers, run, torch.device("cpu"), settings)
    columns = ["layer", "unit", "rank", "activation", "key", "label", "label_name", "y", "x", "left", "top"]
    return pd.read_parquet(run / "exemplars")[columns]


def test_mining_the_shards_gives_what_mining_the_folder_gives(tmp_path: Path) -> None:
    source = pictures(tmp_path / "pets", 40)
    write(source, tmp_path / "out", 7)
    pd.testing.assert_frame_equal(mined(source, tmp_path / "a"), mined(tmp_path / "out", tmp_path / "b"))


def test_shards_are_written_to_s3_and_read_from_the_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    image_tar(tmp_path / "web" / "a.tar", 7)
    with s3_store(monkeypatch) as store, web_server(tmp_path / "web") as server:
        store.put("written", {})
        for word in (tmp_path / "here", out_folder("s3://written/x")):
            write_shards(find_dataset(f"{server.url}/a.tar"), word, 3)
        listed = store.client.list_objects_v2(Bucket="written")["Contents"]
        objects = {
            each["Key"]: store.client.get_object(Bucket="written", Key=each["Key"])["Body"].read() for each in listed
        }
        assert objects == {f"x/{name}": data for name, data in everything(tmp_path / "here").items()}
        assert good(find_dataset("s3://written/x")) == good(tmp_path / "web")


def test_the_command_says_what_it_did_and_how_to_go_on(tmp_path: Path) -> None:
    words = ["shards", "--source", str(pictures(tmp_path / "pets")), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(application(["shards"]), words)
    assert result.exit_code == 0, result.output
    for sentence in (
        "25 images in 1 shards",
        "2 samples were left out",
        f"-m actmine mine --dataset {tmp_path / 'out'}",
    ):
        assert sentence in result.stderr
    again = CliRunner().invoke(application(["shards"]), [*words, "--samples-per-shard", "3"])
    assert again.exit_code == 1 and "was begun differently" in again.stderr
    assert "Traceback" not in again.output
