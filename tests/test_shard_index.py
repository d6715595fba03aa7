"""The index beside a shard: what is not as it was written becomes a row, and another shard's index is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actmine.pipeline.datasets.shard_index import index_name, read_note, write_index
from actmine.pipeline.datasets.shards import Rejected, Sample, Shard, ShardError
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.datasets.tar_shards import TarShard
from tests.making import image_tar, jpeg, samples, write_index_of, write_tar


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    path = image_tar(tmp_path / "a.tar", 4)
    return TarShard(0, str(path), index=str(write_index_of(path)))


def rows(shard: Shard) -> dict[str, str]:
    return {each.key: each.error for each in samples(shard) if isinstance(each, Rejected)}


def change(path: str, offset: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[offset] ^= 1
    Path(path).write_bytes(data)


def test_a_whole_shard_reads_the_same_with_its_index(shard: Shard) -> None:
    assert samples(shard) == samples(Path(shard.url))
    (found,) = find_dataset(shard.url).shards
    assert found.index == shard.index


def test_the_index_of_a_tar_is_the_file_beside_it() -> None:
    for tar, index in (
        ("a/b.tar", "a/b.index.parquet"),
        ("s3://x/a?b.tar", "s3://x/a?b.index.parquet"),
        ("https://u:p@h/x/a.tar?sig=.tar", "https://u:p@h/x/a.index.parquet?sig=.tar"),
        ("a.tar.d/noext", "a.tar.d/noext.index.parquet"),
    ):
        assert index_name(tar) == index


def test_one_changed_bit_of_an_image_is_a_row(shard: Shard) -> None:
    third = samples(shard)[2]
    assert isinstance(third, Sample)
    change(shard.url, third.place.offset + 100)
    error = rows(shard)
    assert list(error) == ["0002"]
    assert error["0002"].startswith("its bytes are not those that were written: crc32 ")
    assert [each.position for each in samples(shard)] == [0, 1, 2, 3]


def test_a_changed_label_is_a_row(shard: Shard) -> None:
    third = samples(shard)[2]
    assert isinstance(third, Sample)
    data = Path(shard.url).read_bytes()
    change(shard.url, data.index(b"2", third.place.offset + third.place.nbytes + 512))
    assert rows(shard) == {"0002": "its label is not the one that was written: 3 thing 2, not 2 thing 2"}


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([0, 1, 2], r"as sample 3 it has 0003, the shard has the end of the tar"),
        ([0, 1, 2, 3, 4], r"as sample 4 it has no further sample, the shard has 0004"),
        ([0, 2, 1, 3], r"as sample 1 it has 0001, the shard has 0002"),
        ([], r"as sample 0 it has 0000, the shard has the end of the tar"),
        ([0, 1, 2, 5], r"as sample 3 it has 0003, the shard has 0005"),
    ],
)
def test_the_index_of_another_shard_is_an_error(members: list[int], sentence: str, shard: Shard) -> None:
    write_tar(Path(shard.url), [(f"{n:04d}.jpg", jpeg(n)) for n in range(4)])
    write_index_of(Path(shard.url))
    write_tar(Path(shard.url), [(f"{n:04d}.jpg", jpeg(n)) for n in members])
    with pytest.raises(ShardError, match=f"is not the index of shard .*{sentence}"):
        samples(shard)


def test_an_image_that_lies_elsewhere_is_an_error(shard: Shard) -> None:
    write_tar(Path(shard.url), [(f"{n:04d}.jpg", jpeg(n)) for n in range(4)])
    write_index_of(Path(shard.url))
    write_tar(Path(shard.url), [("0000.jpg", jpeg(0) + b"x")])
    with pytest.raises(ShardError, match=r"it has 0000.jpg at byte 512, .* the shard has 0000.jpg at byte 512"):
        samples(shard)


def no_parquet(path: Path) -> None:
    path.write_bytes(b"x" * 100)


def other_parquet(path: Path) -> None:
    pq.write_table(pa.table({"key": ["0000"]}), path)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [no_parquet, other_parquet, gone])
def test_an_index_that_is_none_is_an_error(spoil: Callable[[Path], None], shard: Shard) -> None:
    spoil(Path(str(shard.index)))
    with pytest.raises(ShardError, match=r"a\.index\.parquet, the index of shard .*, cannot be read as one"):
        samples(shard)


def test_a_damaged_index_never_passes_a_damaged_image(shard: Shard) -> None:
    whole, good = Path(str(shard.index)).read_bytes(), samples(shard)
    noticed = 0
    for offset in range(4, len(whole) - 4, 13):
        change(str(shard.index), offset)
        try:
            found = samples(shard)
        except ShardError:
            noticed += 1
        else:
            assert all(each == was or isinstance(each, Rejected) for each, was in zip(found, good, strict=True))
        Path(str(shard.index)).write_bytes(whole)
    assert noticed


def test_a_note_comes_out_again(tmp_path: Path) -> None:
    write_index(tmp_path / "a.index.parquet", [], {"next": [1, 2]})
    assert read_note(tmp_path / "a.index.parquet") == {"next": [1, 2]}
    assert len(pd.read_parquet(tmp_path / "a.index.parquet")) == 0
    no_parquet(tmp_path / "b.index.parquet")
    assert read_note(tmp_path / "b.index.parquet") == {}
