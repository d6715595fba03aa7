"""The ledger: what it keeps comes back, what is damaged or foreign is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

import actmine.pipeline.scanning.merge
from actmine.pipeline.errors import UserError
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.maxima import Maxima, Stored, opened
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.readings.topk import TopK
from actmine.pipeline.scanning.ledger import Ledger
from actmine.pipeline.scanning.merge import merge
from actmine.pipeline.scanning.scan import MEMBERS, NAMES, BlockState
from actmine.schemas.shards import SHARDS
from actmine.schemas.skipped import SKIPPED


def a_state(block: int) -> BlockState:
    readings = Readings(torch.tensor([[1.0, -2.0], [3.0, torch.nan]]), torch.tensor([[4, 5], [6, 7]]))
    topk, statistics = TopK(2, 3), Statistics(2)
    for accumulator in (topk, statistics):
        accumulator.update(readings, BatchIndex.of(torch.arange(2)))
    row = {"image": 0, "shard": block, "key": "ключ", "path": "a.jpg", "offset": 512, "nbytes": 9, "crc32": 5,
           "width": 3, "height": 2, "label": None, "label_name": None}  # fmt: skip
    return BlockState(
        block,
        {"topk": topk, "statistics": statistics},
        pa.Table.from_pylist([row], MEMBERS),
        pa.Table.from_pylist([{"shard": block, "url": "x.tar", "members": 2, "seen": 2, "skipped": 0}], SHARDS),
        SKIPPED.empty_table(),
        NAMES.empty_table(),
    )


def test_a_committed_state_comes_back_whole(tmp_path):
    ledger = Ledger(tmp_path, {"topk": 3})
    ledger.commit(a_state(1))
    assert ledger.missing(range(3)) == [0, 2]
    back, wanted = Ledger(tmp_path, {"topk": 3}).load(1), a_state(1)
    for name, accumulator in wanted.accumulators.items():
        for part, tensor in accumulator.state().items():
            assert torch.equal(back.accumulators[name].state()[part], tensor)
    assert back.members.equals(wanted.members) and back.shards.equals(wanted.shards)
    assert back.skipped.schema.equals(wanted.skipped.schema)


def test_committing_again_gives_the_same_bytes(tmp_path):
    ledger = Ledger(tmp_path, {"topk": 3})
    ledger.commit(a_state(0))
    (file,) = ledger.folder.glob("block-*")
    before = file.read_bytes()
    ledger.commit(a_state(0))
    assert file.read_bytes() == before


def test_a_damaged_state_is_named_with_what_to_do(tmp_path):
    ledger = Ledger(tmp_path, {})
    ledger.commit(a_state(0))
    (file,) = ledger.folder.glob("block-*")
    whole = file.read_bytes()
    for damaged in (whole[:-10], b"", whole[:-10] + bytes(10), bytes([0]) + whole[1:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"block-000000.* is damaged .*scans its block again"):
            ledger.load(0)
    file.unlink()
    with pytest.raises(UserError, match=r"block-000000.* has gone"):
        ledger.load(0)


def test_the_state_of_another_run_is_refused(tmp_path):
    ledger, other = Ledger(tmp_path / "one", {"topk": 3}), Ledger(tmp_path / "other", {"topk": 4})
    other.commit(a_state(0))
    (foreign,) = other.folder.glob("block-*")
    (ledger.folder / foreign.name.replace(other.fingerprint, ledger.fingerprint)).write_bytes(foreign.read_bytes())
    with pytest.raises(UserError, match="it is that of another run"):
        ledger.load(0)


@pytest.mark.parametrize(("version", "word"), [(99, "a newer"), (4, "an older"), (None, "an older")])
def test_a_run_of_another_version_is_refused(version, word, tmp_path):
    Ledger(tmp_path, {"topk": 3})
    (tmp_path / "state" / "identity.json").write_text(json.dumps({"topk": 3, "state_version": version}))
    with pytest.raises(UserError, match=f"was begun by {word} version of actmine"):
        Ledger(tmp_path, {"topk": 3})


def resident(kind: str) -> int:
    """Memory of this process of a kind (bytes): RssAnon is its own, RssFile that of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_loading_a_state_takes_no_memory_of_our_own(tmp_path):
    ledger, units, k = Ledger(tmp_path, {}), 50_000, 50
    small = a_state(0)
    topk = TopK(units, k)
    topk._keys = torch.arange(units * k).reshape(units, k)
    ledger.commit(replace(small, accumulators={"topk": topk, "statistics": Statistics(units)}))
    before = resident("RssAnon")
    state = ledger.load(0)
    assert resident("RssAnon") - before < units * k * 12 / 4
    assert torch.equal(state.accumulators["topk"].state()["keys"][0].sort().values, torch.arange(k))


def test_merging_forgets_images_that_win_no_more(monkeypatch):
    whole = merge(map(a_state, range(9)))
    monkeypatch.setattr(actmine.pipeline.scanning.merge, "_MANY_IMAGES", 1)
    assert merge(map(a_state, range(9))).images.equals(whole.images)


def test_another_identity_is_refused_naming_each_difference(tmp_path):
    Ledger(tmp_path, {"topk": 3, "layers": ["a"], "model": "x"})
    with pytest.raises(UserError, match=r'layers was \["a"\], now \["b"\]; topk was 3, now 4'):
        Ledger(tmp_path, {"topk": 4, "layers": ["b"], "model": "x"})


def test_a_block_without_images_keeps_an_empty_part_of_the_matrix(tmp_path):
    ledger = Ledger(tmp_path, {"topk": 3, "maxima": "float32"})
    none = np.empty(0, np.int64)
    ledger.commit(
        replace(
            a_state(0),
            maxima=Maxima(none, np.lib.stride_tricks.as_strided(none, strides=(0,)), np.empty((0, 2), np.float32)),
        )
    )
    back = ledger.load(0).maxima
    assert isinstance(back, Stored) and len(back.numbers) == len(back.labels) == 0
    with opened([back]) as matrix:
        assert matrix is not None and matrix.units(0, 2).shape == (0, 2)
