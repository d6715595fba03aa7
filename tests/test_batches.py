"""Batches: in order, never across shards, the same for any number of workers, and no thread is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actmine.pipeline.datasets import decode_worker
from actmine.pipeline.datasets.batches import Batch, ahead, read_batches
from actmine.pipeline.datasets.shards import Sample, Shard, ShardError
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.preprocessing.images import decode, network_pixels
from tests.making import SMALL, image_tar, jpeg, samples, write_tar


@pytest.fixture(autouse=True)
def no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while left := set(threading.enumerate()) - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def make_shards(root: Path, counts: list[tuple[int, int]]) -> list[Shard]:
    """One tar for each pair of numbers: of images, and of broken ones among and behind them."""
    shards = []
    for number, (good, bad) in enumerate(counts):
        files = [(f"{n}.jpg", jpeg(n % 3, 8, 8)) for n in range(good)] + [(f"bad{n}.jpg", b"x") for n in range(bad)]
        order = np.random.default_rng(number).permutation(len(files))
        path = write_tar(root / f"{number}.tar", [files[n] for n in order])
        shards.append(TarShard(number, str(path)))
    return shards


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        (a.shard, a.members, a.rejected, a.last) == (b.shard, b.members, b.rejected, b.last)
        and np.array_equal(a.pixels, b.pixels)
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=4),
    size=st.integers(1, 6),
    workers=st.integers(1, 5),
)
def test_batches_depend_on_shards_and_size_alone(
    counts: list[tuple[int, int]], size: int, workers: int, tmp_path: Path
) -> None:
    shards = make_shards(tmp_path, counts)
    found = list(read_batches(shards, SMALL, size, workers))
    assert same(found, list(read_batches(shards, SMALL, size, 1)))
    for shard, (good, bad) in zip(shards, counts, strict=True):
        mine = [batch for batch in found if batch.shard is shard]
        assert [batch.last for batch in mine] == [False] * (len(mine) - 1) + [True]
        assert all(len(batch.members) == size for batch in mine[:-1])
        members = [member for batch in mine for member in batch.members]
        rejected = [lost for batch in mine for lost in batch.rejected]
        assert (len(members), len(rejected), sum(batch.samples for batch in mine)) == (good, bad, good + bad)
        assert [member.position for member in members] == sorted(member.position for member in members)
        assert sorted(each.position for each in (*members, *rejected)) == list(range(good + bad))
    order = [batch.shard.number for batch in found]
    assert order == sorted(order)


def test_a_batch_holds_the_pixels_of_its_members(tmp_path: Path) -> None:
    path = image_tar(tmp_path / "a.tar", 7)
    expected = [network_pixels(decode(s.data), SMALL) for s in samples(path) if isinstance(s, Sample)]
    found = list(read_batches([TarShard(0, str(path))], SMALL, 3, 2))
    assert [batch.pixels.shape for batch in found] == [(3, 16, 16, 3), (3, 16, 16, 3), (1, 16, 16, 3)]
    assert np.array_equal(np.concatenate([batch.pixels for batch in found]), np.stack(expected))
    first = found[0].members[0]
    assert (first.key, first.width, first.height, first.label, first.label_name) == ("0000", 40, 30, 0, "thing 0")


def test_an_empty_shard_is_one_empty_last_batch(tmp_path: Path) -> None:
    (batch,) = read_batches([TarShard(0, str(write_tar(tmp_path / "a.tar", [])))], SMALL, 4, 2)
    assert (batch.pixels.shape, batch.samples, batch.last) == ((0, 16, 16, 3), 0, True)


def test_what_was_whole_before_a_damaged_shard_comes_out_before_its_error(tmp_path: Path) -> None:
    shards = make_shards(tmp_path, [(5, 1), (6, 0)])
    path = Path(shards[1].url)
    path.write_bytes(path.read_bytes()[:1500])
    found: list[Batch] = []
    with pytest.raises(ShardError, match=r"1\.tar"):
        found.extend(read_batches(shards, SMALL, 2, 3))
    assert sum(batch.samples for batch in found if batch.shard is shards[0]) == 6
    assert not any(batch.last for batch in found if batch.shard is shards[1])


def test_a_defect_in_a_decode_thread_comes_out_where_batches_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data: bytes, upright: bool) -> None:
        raise AssertionError("a defect")

    monkeypatch.setattr(decode_worker, "decode", fail)
    with pytest.raises(AssertionError, match="a defect"):
        list(read_batches(make_shards(tmp_path, [(5, 0)]), SMALL, 2, 2))


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_reader_that_leaves_early_ends_every_thread_soon(
    taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def slowly(data: bytes, upright: bool) -> object:
        decoded.append(threading.current_thread().name)
        time.sleep(0.02)
        return decode(data, upright)

    monkeypatch.setattr(decode_worker, "decode", slowly)
    reading = read_batches(make_shards(tmp_path, [(200, 0)]), SMALL, 20, 2)
    for _ in range(taken):
        next(reading)
    start = time.monotonic()
    reading.close()  # type: ignore[attr-defined]
    assert time.monotonic() - start < 0.4
    assert len(decoded) < 20 * (taken + 3) + 50
    assert all(name.startswith("decode") for name in decoded)


def test_an_error_of_the_one_who_reads_ends_every_thread(tmp_path: Path) -> None:
    def read() -> None:
        for _ in read_batches(make_shards(tmp_path, [(50, 0)]), SMALL, 4, 2):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()


def test_reading_ahead_keeps_order_and_never_runs_further_than_told() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in ahead(numbers(), depth=3):
        time.sleep(0.002)
        assert len(made) <= number + 1 + 3 + 1
    assert made == list(range(20))
    assert list(ahead(iter(()), depth=1)) == []


def test_reading_ahead_closes_what_it_reads_from() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    reading = ahead(endless(), depth=2)
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert closed.is_set()
