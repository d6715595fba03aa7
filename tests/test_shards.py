"""Shards: their samples are those of the webdataset library, whatever else lies among them becomes a row."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actmine.pipeline.datasets.folder_shards import FolderShard
from actmine.pipeline.datasets.samples import IMAGE_EXTENSIONS
from actmine.pipeline.datasets.shards import Place, Rejected, Sample, Shard, ShardError, read_bytes
from actmine.pipeline.datasets.tar_shards import TarShard
from tests.making import image_tar, jpeg, member, samples, write_folder, write_tar


def errors(shard: Shard | Path) -> dict[str, str]:
    return {sample.key: sample.error for sample in samples(shard) if isinstance(sample, Rejected)}


def only(shard: Shard | Path) -> Sample:
    (sample,) = samples(shard)
    assert isinstance(sample, Sample), sample
    return sample


def seen(path: Path) -> list[tuple[str, bytes]]:
    return [(sample.key, sample.data) for sample in samples(path) if isinstance(sample, Sample)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(
        st.tuples(
            st.text("ab_-é", min_size=1, max_size=6),
            st.lists(st.sampled_from(["jpg", "cls", "json", "seg.png", "txt", "JPG"]), min_size=1, max_size=4),
        ),
        max_size=6,
    )
)
def test_groups_are_those_of_the_webdataset_library(groups: list[tuple[str, list[str]]], tmp_path: Path) -> None:
    members = [
        (f"{number}{key}.{extension}", b"7" if extension in ("cls", "json") else jpeg(number))
        for number, (key, extensions) in enumerate(groups)
        for extension in dict.fromkeys(each.lower() for each in extensions)
    ]
    path = write_tar(tmp_path / "a.tar", [(name.replace(".jpg", ".JPG", 1), data) for name, data in members])
    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    theirs = {
        sample["__key__"]: sample["jpg"]
        if "jpg" in sample
        else next(iter([sample["seg.png"]] if "seg.png" in sample else []), None)
        for sample in dataset
    }
    ours = {sample.key: sample.data if isinstance(sample, Sample) else None for sample in samples(path)}
    assert ours == theirs


def test_shards_written_by_the_webdataset_library_read_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as sink:
        for number in range(6):
            sink.write({"__key__": f"{number:06d}", "jpg": jpeg(number), "cls": number, "json": {"n": number}})
    found = samples(path)
    assert [(s.key, s.data, s.label) for s in found if isinstance(s, Sample)] == [
        (s["__key__"], s["jpg"], int(s["cls"])) for s in webdataset.WebDataset(str(path), shardshuffle=False)
    ]


def test_an_empty_shard_has_no_samples(tmp_path: Path) -> None:
    assert samples(write_tar(tmp_path / "a.tar", [])) == []
    (tmp_path / "two-blocks.tar").write_bytes(bytes(1024))
    assert samples(tmp_path / "two-blocks.tar") == []


# members of every kind


def test_directories_are_no_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [member("x", kind=tarfile.DIRTYPE), ("x/1.jpg", jpeg())])
    assert only(path).key == "x/1"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_become_rows(kind: bytes, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", jpeg()), member("2.jpg", kind=kind, link="/etc/passwd")])
    assert errors(path) == {"2": "a link or device, not a file"}
    assert len(samples(path)) == 2


def test_a_label_that_is_a_link_does_not_just_go_missing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", jpeg()), member("1.cls", kind=tarfile.SYMTYPE, link="2.cls")])
    assert errors(path) == {"1": "unreadable label: a link or device, not a file"}


def test_names_are_keys_never_paths(tmp_path: Path) -> None:
    names = [
        "../../up.jpg",
        "/etc/root.jpg",
        "./here.jpg",
        "a/../b.jpg",
        "~/home.jpg",
        "C:\\c.jpg",
        "$(ls).jpg",
        "\n.jpg",
    ]
    path = write_tar(tmp_path / "in" / "a.tar", [(name, jpeg(n)) for n, name in enumerate(names)])
    before = sorted(tmp_path.rglob("*"))
    found = samples(path)
    assert [sample.key for sample in found] == [name.removesuffix(".jpg") for name in names]
    for number, sample in enumerate(found):
        assert isinstance(sample, Sample)
        assert read_bytes(TarShard(0, str(path)), sample.place) == jpeg(number)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_not_utf8_is_written_out(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [(os.fsdecode(b"caf\xe9.jpg"), jpeg()), ("b.jpg", jpeg(1))])
    sample = samples(path)[0]
    assert isinstance(sample, Sample)
    assert sample.key == "caf\\udce9"
    assert sample.key.encode()
    assert sample.place.path.encode()
    assert read_bytes(TarShard(0, str(path)), sample.place) == jpeg()


def test_a_sparse_member_becomes_a_row_and_the_rest_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {"1.jpg": b"", "2.jpg": jpeg(2)})
    with (folder / "1.jpg").open("wb") as hole:
        hole.truncate(1 << 20)
        hole.seek(1 << 19)
        hole.write(b"x")
    path = tmp_path / "a.tar"
    command = ["tar", "--sparse", "-cf", str(path), "-C", str(folder), "1.jpg", "2.jpg"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no tar command that writes sparse files here")
    if path.stat().st_size > 1 << 20:
        pytest.skip("this disk keeps no holes")
    assert "sparse" in errors(path)["1"]
    assert seen(path) == [("2", jpeg(2))]


def test_what_is_no_image_becomes_a_row(tmp_path: Path) -> None:
    names = ["README.txt", ".DS_Store", "LICENSE", "1.jpg", "data.npy", "__info__.json"]
    path = write_tar(tmp_path / "a.tar", [(name, jpeg()) for name in names])
    found = errors(path)
    assert found == {
        "README": "no image among its files (.txt)",
        ".DS_Store": "no image among its files (no extension)",
        "LICENSE": "no image among its files (no extension)",
        "data": "no image among its files (.npy)",
        "__info__": "no image among its files (.json)",
    }
    assert len(samples(path)) == 6


def test_of_a_key_that_comes_twice_the_first_image_is_seen(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [("1.jpg", jpeg(1)), ("1.png", jpeg(2)), ("2.jpg", jpeg(3)), ("1.jpg", jpeg(4)), ("2.cls", b"5")],
    )
    found = samples(path)
    assert [type(sample) for sample in found] == [Sample, Rejected, Sample, Rejected, Rejected]
    assert [sample.error for sample in found if isinstance(sample, Rejected)] == [
        "duplicate key: 1.png follows 1.jpg",
        "duplicate key: 1.jpg follows 1.jpg",
        "no image among its files (.cls)",
    ]


def test_a_mask_beside_an_image_is_not_a_second_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.seg.png", b""), ("1.jpg", jpeg()), ("1.depth.png", b"")])
    assert only(path).data == jpeg()


def test_a_dot_in_a_name_hides_neither_image_nor_label(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.final.jpg", jpeg()), ("1.final.cls", b"4")])
    assert (only(path).key, only(path).label) == ("1", 4)


# labels


@pytest.mark.parametrize(
    ("files", "label", "name"),
    [
        ({}, None, None),
        ({"cls": b"7"}, 7, None),
        ({"cls": b" -1\n"}, None, None),
        ({"cls": b"3."}, 3, None),
        ({"cls": b"\xef\xbb\xbf7"}, 7, None),
        ({"cls": b"tench"}, None, "tench"),
        ({"cls": "größe ²".encode()}, None, "größe ²"),
        ({"cls": "²".encode()}, None, "²"),
        ({"cls": b""}, None, None),
        ({"json": b'{"label": 3, "label_name": "dog"}'}, 3, "dog"),
        ({"json": b'{"label": 3, "class_name": "dog"}'}, 3, "dog"),
        ({"json": b'{"label": "dog"}'}, None, "dog"),
        ({"json": b'{"label": "12"}'}, 12, None),
        ({"json": b'{"label": true}'}, None, None),
        ({"json": b'{"label": 3.0, "label_name": "dog"}'}, 3, "dog"),
        ({"json": b'{"label": "3.0"}'}, 3, None),
        ({"json": b'{"label": -1, "label_name": "none"}'}, None, None),
        ({"json": b'{"label": [1, 2]}'}, None, None),
        ({"json": b'{"label_name": "\\ud83d"}'}, None, "\\ud83d"),
        ({"json": b"[1, 2]"}, None, None),
        ({"cls": b"7", "json": b'{"label": 3, "label_name": "dog"}'}, 7, "dog"),
        ({"cls": b"tench", "json": b'{"label": 3}'}, 3, "tench"),
    ],
)
def test_labels(files: dict[str, bytes], label: int | None, name: str | None, tmp_path: Path) -> None:
    members = {"1.jpg": jpeg()} | {f"1.{extension}": data for extension, data in files.items()}
    for shard in (
        write_tar(tmp_path / "a.tar", list(members.items())),
        FolderShard(0, str(write_folder(tmp_path / "in", members)), files=tuple(members)),
    ):
        assert (only(shard).label, only(shard).label_name) == (label, name)


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        ("json", b"{"),
        ("json", b""),
        ("json", b"\xff\xfe\xff"),
        ("json", b"[" * 100_000),
        ("json", b'{"label": 99999999999}'),
        ("json", b'{"label": 3.5}'),
        ("json", b'{"label": NaN}'),
        ("json", b'{"label": 1e99}'),
        ("cls", b"\xff\xff"),
        ("cls", b"4294967296"),
        ("cls", b"9" * 5000),
    ],
)
def test_a_malformed_label_becomes_a_row(extension: str, data: bytes, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.jpg", jpeg()), (f"1.{extension}", data), ("2.jpg", jpeg(1))])
    assert errors(path)["1"].startswith("unreadable label: ")
    assert len(samples(path)) == 2


def test_a_label_that_comes_twice_is_none(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.cls", b"5"), ("1.jpg", jpeg()), ("1.cls", b"7")])
    assert errors(path) == {"1": "unreadable label: 1.cls comes twice"}


# folders


def test_links_to_nothing_in_a_folder_become_rows(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", {"b.jpg": jpeg()})
    (root / "a.jpg").symlink_to("gone.jpg")
    (root / "c.jpg").symlink_to("c.jpg")
    (root / "d.jpg").symlink_to("b.jpg")
    os.mkfifo(root / "e.jpg")
    shard = FolderShard(0, str(root), files=("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"))
    assert errors(shard) == {
        "a": "a link to gone.jpg, which is not there",
        "c": "a link to c.jpg, which is not there",
        "e": "a device or pipe, not a file",
    }
    assert len(samples(shard)) == 5


def test_a_file_that_may_not_be_read_becomes_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("actmine.pipeline.datasets.folder_shards.open_regular", refuse)
    root = tmp_path / "in"
    root.mkdir()
    (root / "a.jpg").touch()
    assert errors(FolderShard(0, str(root), files=("a.jpg",))) == {"a": "it cannot be read (Permission denied)"}


def test_a_file_that_has_gone_since_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"gone\.jpg cannot be read \(No such file or directory\)\. Restore it"):
        samples(FolderShard(0, str(tmp_path), files=("gone.jpg",)))


def test_a_file_name_that_is_not_utf8_becomes_a_row(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(jpeg())
    assert errors(FolderShard(0, str(tmp_path), files=(name,))) == {"caf\\udce9": "its name is not UTF-8: rename it"}


def test_an_enormous_file_is_not_even_read(tmp_path: Path) -> None:
    with (tmp_path / "a.jpg").open("wb") as hole:
        hole.truncate(8 << 30)
    assert "bytes are more than the limit" in errors(FolderShard(0, str(tmp_path), files=("a.jpg",)))["a"]


def test_reading_again_what_has_changed_is_an_error(tmp_path: Path) -> None:
    path = image_tar(tmp_path / "a.tar")
    with pytest.raises(ShardError, match="its dataset changed"):
        read_bytes(TarShard(0, str(path)), Place("x", path.stat().st_size - 10, 20))
    with pytest.raises(ShardError, match="can no longer be read"):
        read_bytes(TarShard(0, str(tmp_path / "gone.tar")), Place("x", 0, 20))


def test_extensions_are_lower_case() -> None:
    assert all(extension == extension.lower() for extension in IMAGE_EXTENSIONS)
