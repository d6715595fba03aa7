"""Tars: read as Python's tarfile reads them while they are whole, and never short in silence when they are not."""

from __future__ import annotations

import gzip
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actmine.pipeline.datasets.shards import Rejected, Sample, ShardError, read_bytes
from actmine.pipeline.datasets.tar_shards import TarShard, tar_key
from tests.damage import KINDS, damaged, has_right_sum, header_blocks
from tests.making import account, encoded, image_tar, jpeg, picture, samples, write_folder, write_index_of, write_tar

BLOCK = tarfile.BLOCKSIZE
LAYOUTS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def contents(path: Path) -> list[tuple[str, bytes]]:
    """Key and bytes of every image, by Python's tarfile."""
    with tarfile.open(path) as tar:
        return [
            (tar_key(info.name), tar.extractfile(info).read())  # type: ignore[union-attr]
            for info in tar
            if info.name.endswith(".jpg")
        ]


def seen(path: Path) -> list[tuple[str, bytes]]:
    return [(sample.key, sample.data) for sample in samples(path) if isinstance(sample, Sample)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_tar_reads_as_tarfile_reads_it(layout: str, tmp_path: Path) -> None:
    long = "/".join(["a-folder-with-a-name"] * 7)  # beyond the 100 bytes of a plain header
    names = ["0.jpg", f"{long}/1.jpg", "folder/2.jpg", f"{long}/3.jpg"]
    if layout != "ustar":
        names += [f"{long}{long}/größe 📷.jpg", "x" * 300 + ".jpg"]
    path = write_tar(tmp_path / "a.tar", [(name, jpeg(n)) for n, name in enumerate(names)], LAYOUTS[layout])
    assert seen(path) == contents(path)
    assert [key for key, _ in seen(path)] == [name.removesuffix(".jpg") for name in names]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_image_can_be_read_again_by_its_place(layout: str, tmp_path: Path) -> None:
    long = "/".join(["a-folder-with-a-name"] * 7)
    path = write_tar(tmp_path / "a.tar", [(f"{long}/{n}.jpg", jpeg(n)) for n in range(4)], LAYOUTS[layout])
    for sample in samples(path):
        assert isinstance(sample, Sample)
        assert read_bytes(TarShard(0, str(path)), sample.place) == sample.data
        assert path.read_bytes()[sample.place.offset :][: sample.place.nbytes] == sample.data


def test_a_tar_that_gnu_tar_wrote_reads_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", {f"{'deep/' * 30}{n}.jpg": jpeg(n) for n in range(3)})
    for layout in ("gnu", "posix", "v7", "ustar", "oldgnu"):
        path = tmp_path / f"{layout}.tar"
        command = ["tar", f"--format={layout}", "-cf", str(path), "-C", str(tmp_path / "in"), "."]
        try:
            made = subprocess.run(command, capture_output=True)
        except FileNotFoundError:
            pytest.skip("there is no tar command here")
        if made.returncode == 0:
            assert seen(path) == contents(path)
            assert len(seen(path)) == 3 or layout == "v7"


def complaint(path: Path) -> str:
    """What the reader says of a damaged tar, or nothing."""
    try:
        samples(path)
    except ShardError as error:
        return str(error)
    return ""


def expect_error_or_everything(path: Path, whole: list[tuple[str, bytes]]) -> bool:
    """True if the damage was noticed."""
    text = complaint(path)
    assert "\n" not in text
    assert str(path) in text or seen(path) == whole
    return bool(text)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tar_cut_anywhere_is_an_error_until_its_end_marker(layout: str, tmp_path: Path) -> None:
    path = image_tar(tmp_path / "a.tar", 3, LAYOUTS[layout])
    data, whole = path.read_bytes(), contents(path)
    with tarfile.open(path) as tar:
        end = max(info.offset_data + -(-info.size // BLOCK) * BLOCK for info in tar)
    cuts = {0, 1, 511, 512, 513, end - 1, end, end + 1, end + 511, end + 512, end + 1000, len(data) - 1}
    cuts |= set(np.random.default_rng(1).integers(0, end, 40).tolist()) | set(range(0, end, BLOCK))
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        noticed = expect_error_or_everything(path, whole)
        assert noticed or cut > end, cut


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_header_is_always_an_error(layout: str, tmp_path: Path) -> None:
    path = image_tar(tmp_path / "a.tar", 4, LAYOUTS[layout])
    data, whole = path.read_bytes(), contents(path)
    with tarfile.open(path) as tar:
        headers = [info.offset_data - BLOCK for info in tar]
    random = np.random.default_rng(2)
    for _ in range(100):
        damaged = bytearray(data)
        place = int(random.choice(headers)) + int(random.integers(0, BLOCK))
        damaged[place] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        noticed = expect_error_or_everything(path, whole)
        in_checksum = 148 <= (place % BLOCK) < 156  # where a space and a zero mean the same
        assert noticed or in_checksum, place


def test_a_zeroed_header_is_never_taken_for_the_end(tmp_path: Path) -> None:
    path = image_tar(tmp_path / "a.tar", 4)
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        headers = [info.offset for info in tar]
    for header in headers:
        path.write_bytes(data[:header] + bytes(BLOCK) + data[header + BLOCK :])
        with pytest.raises(ShardError, match=r"(damaged|data follow its end marker)"):
            samples(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_damage_anywhere_never_loses_a_sample_in_silence(layout: str, tmp_path: Path) -> None:
    """Inside an image it cannot be noticed by a tar: then the image decodes or is a row, and the count holds."""
    long = "a-long-name/" * 12
    members = [(f"{long if layout == 'pax' else ''}{n}.jpg", jpeg(n)) for n in range(6)]
    path = write_tar(tmp_path / "a.tar", members, LAYOUTS[layout])
    data = path.read_bytes()
    random = np.random.default_rng(3)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), int(random.integers(1, 4))):
            damaged[place] = int(random.integers(0, 256))
        path.write_bytes(damaged)
        try:
            good, rejected = account([TarShard(0, str(path))])
        except ShardError:
            continue
        assert len(good) + len(rejected) == 6


def told_apart(path: Path) -> dict[str, tuple[object, ...]]:
    """Everything the reader says of the images of a tar, by position."""
    return {
        str(each.position): (each.key, each.place, each.data, each.label, each.label_name)
        for each in samples(path)
        if isinstance(each, Sample)
    }


def layout_tar(path: Path, layout: str) -> Path:
    """Six images with labels, the names of some so long that they need a header of their own."""
    long = "a-long-name/" * 12 if layout != "ustar" else ""
    members = [
        (f"{long if n % 2 else ''}{n}.{kind}", data)
        for n in range(6)
        for kind, data in (("cls", b"%d" % n), ("jpg", jpeg(n, 40 + 60 * (n % 3))))
    ]
    return write_tar(path, members, LAYOUTS[layout])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_is_an_error_or_stays_within_the_files_it_hit(layout: str, tmp_path: Path) -> None:
    """Hundreds of trials of every kind: an error, or a row, or it has left every name, place and other file right.

    Two things no tar can tell: an extended header's own text, and a header that is not the one that was written and
    whose sum is right all the same (as of two that changed places).
    """
    path = layout_tar(tmp_path / "a.tar", layout)
    data, whole = path.read_bytes(), told_apart(path)
    headers, texts = header_blocks(path)
    spans = {}
    with tarfile.open(path) as tar:
        for info in tar:
            spans.setdefault(tar_key(info.name), []).append((info.offset_data, info.offset_data + info.size))
    kinds: dict[str, list[bool]] = {}
    for kind, copy in damaged(data, 720, seed=LAYOUTS[layout]):
        path.write_bytes(copy)
        noticed = bool(complaint(path)) or any(isinstance(each, Rejected) for each in samples(path))
        kinds.setdefault(kind, []).append(noticed)
        if noticed:
            continue
        found = told_apart(path)
        hit = [block for block in headers if copy[block : block + BLOCK] != data[block : block + BLOCK]]
        if any(copy[block : block + BLOCK] != data[block : block + BLOCK] for block in texts):
            assert len(found) >= 1
        elif hit:
            assert all(has_right_sum(copy[block : block + BLOCK]) for block in hit), kind
        else:
            assert found.keys() == whole.keys(), kind
            for position, what in whole.items():
                untouched = all(copy[begin:end] == data[begin:end] for begin, end in spans[str(what[0])])
                if untouched:
                    assert found[position] == what, kind
                else:
                    assert found[position][:2] == what[:2], kind
    assert set(kinds) == set(KINDS)
    for kind in ("the end cut off", "bytes taken out", "a block deleted", "a block doubled in place"):
        assert any(kinds[kind]), kind


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_an_index_nothing_wrong_ever_comes_out(layout: str, tmp_path: Path) -> None:
    """Hundreds of trials of every kind: an error, or every sample is as it was written or a row that says it is not."""
    path = layout_tar(tmp_path / "a.tar", layout)
    data, whole = path.read_bytes(), samples(path)
    index = write_index_of(path)
    shard = TarShard(0, str(path), index=str(index))
    assert samples(shard) == whole
    noticed = silent = 0
    for kind, copy in damaged(data, 720, seed=10 + LAYOUTS[layout]):
        path.write_bytes(copy)
        try:
            found = samples(shard)
        except ShardError:
            noticed += 1
            continue
        assert [each.key for each in found] == [each.key for each in whole], kind
        assert all(each == was or isinstance(each, Rejected) for each, was in zip(found, whole, strict=True)), kind
        rows = [each for each in found if isinstance(each, Rejected)]
        noticed += bool(rows)
        silent += not rows
    assert noticed > 5 * silent  # what stays silent hit padding, or fields of headers that say nothing of the image


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(
        st.tuples(
            st.sampled_from(["path", "size", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.minor",
                             "GNU.sparse.size", "GNU.sparse.realsize", "GNU.sparse.offset", "GNU.sparse.numbytes",
                             "hdrcharset", "mtime"]),
            st.one_of(st.text("0123456789,-.", max_size=12), st.text(max_size=4)),
        ),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_odd_extended_headers_end_in_a_sentence(records: list[tuple[str, str]], tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.jpg")
    info.size = len(jpeg())
    body = tarfile.TarInfo._create_pax_generic_header(dict(records), tarfile.XHDTYPE, "utf-8")  # type: ignore[attr-defined]
    plain = info.tobuf(tarfile.USTAR_FORMAT) + jpeg() + bytes(-len(jpeg()) % BLOCK)
    path = tmp_path / "a.tar"
    path.write_bytes(body + plain + bytes(2 * BLOCK))
    assert str(path) in complaint(path) or len(samples(path)) <= 1


def test_headers_nested_without_end_are_an_error(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    (tmp_path / "a.tar").write_bytes((info.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(BLOCK - 1)) * 2000)
    with pytest.raises(ShardError, match="damaged"):
        samples(tmp_path / "a.tar")


def test_bytes_behind_the_end_marker_are_an_error(tmp_path: Path) -> None:
    path = image_tar(tmp_path / "a.tar", 2)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ShardError, match="data follow its end marker"):
        samples(path)


def test_compressed_and_other_files_are_named_for_what_they_are(tmp_path: Path) -> None:
    plain = image_tar(tmp_path / "a.tar", 2).read_bytes()
    packed = tmp_path / "packed.tar"
    for data in (gzip.compress(plain), gzip.compress(plain)[:200]):
        packed.write_bytes(data)
        with pytest.raises(ShardError, match=r"packed\.tar is compressed \(gzip\)"):
            samples(packed)
    for data in (b"\x80no tar", b"", b"\0x" * 5000):
        packed.write_bytes(data)
        with pytest.raises(ShardError, match=r"packed\.tar is damaged at its very start, or not a tar"):
            samples(packed)
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": [jpeg()]}), table)
    stream = pa.BufferOutputStream()
    with pa.ipc.new_file(stream, pa.schema([("image", pa.binary())])):
        pass
    others = {
        "a Parquet file": table.getvalue().to_pybytes(), "an Arrow file": stream.getvalue().to_pybytes(),
        "a JPEG image": jpeg(), "a PNG image": encoded(picture(9, 9), "PNG"),
        "a text file": "größe,label\n".encode() * 99,
    }  # fmt: skip
    for what, data in others.items():
        packed.write_bytes(data)
        with pytest.raises(ShardError, match=rf"packed\.tar is no tar but {what}\. .* folder"):
            samples(packed)


def test_a_tar_whose_first_name_looks_like_another_kind_of_file_is_read(tmp_path: Path) -> None:
    for name in ("PAR1.jpg", "BZh9.jpg", "GIF89a.jpg"):
        assert [sample.key for sample in samples(write_tar(tmp_path / "a.tar", [(name, jpeg())]))] == [name[:-4]]
    with pytest.raises(ShardError, match="No such file or directory"):
        samples(tmp_path / "gone.tar")
