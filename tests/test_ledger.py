"""The ledger: what it keeps comes back, what is damaged or foreign is refused."""

from __future__ import annotations

import pyarrow as pa
import pytest
import torch

from pipeline.errors import UserError
from pipeline.ledger import Ledger
from pipeline.scan import MEMBERS, BlockState
from pipeline.statistics import Statistics
from pipeline.taps import Readings
from pipeline.topk import TopK
from schemas.shards import SHARDS
from schemas.skipped import SKIPPED


def a_state(block: int) -> BlockState:
    readings = Readings(torch.tensor([[1.0, -2.0], [3.0, torch.nan]]), torch.tensor([[4, 5], [6, 7]]))
    topk, statistics = TopK(2, 3), Statistics(2)
    for accumulator in (topk, statistics):
        accumulator.update(readings, torch.arange(2))
    row = {"image": 0, "shard": block, "key": "ключ", "path": "a.jpg", "offset": 512, "nbytes": 9, "width": 3,
           "height": 2, "label": None, "label_name": None}  # fmt: skip
    return BlockState(
        block,
        {"topk": topk, "statistics": statistics},
        pa.Table.from_pylist([row], MEMBERS),
        pa.Table.from_pylist([{"shard": block, "url": "x.tar", "members": 2, "seen": 2, "skipped": 0}], SHARDS),
        SKIPPED.empty_table(),
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
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"block-000000.* is damaged .*Delete it"):
        ledger.load(0)


def test_another_identity_is_refused_naming_each_difference(tmp_path):
    Ledger(tmp_path, {"topk": 3, "layers": ["a"], "model": "x"})
    with pytest.raises(UserError, match=r'layers was \["a"\], now \["b"\]; topk was 3, now 4'):
        Ledger(tmp_path, {"topk": 4, "layers": ["b"], "model": "x"})
