"""The scan: one block of shards through the tapped network into accumulators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from actmine.pipeline.datasets.batches import Batch, Member, read_batches
from actmine.pipeline.datasets.decoding import decode_processes
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.datasets.sources import Block
from actmine.pipeline.network.devices import sent
from actmine.pipeline.preprocessing.device_decode import DeviceDecoder
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.accumulators import Accumulator, Feed, held_images, new_accumulators
from actmine.pipeline.readings.batch_index import NO_LABEL, BatchIndex, identity
from actmine.pipeline.readings.maxima import Collected, Maxima, Stored
from actmine.pipeline.readings.positions import draws
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.scanning.compute import Compute, Runner
from actmine.pipeline.scanning.finishing import Behind
from actmine.pipeline.words import SAMPLED
from actmine.schemas.fields import field, table
from actmine.schemas.shards import SHARDS
from actmine.schemas.skipped import SKIPPED

MEMBERS = table(
    field("image", pa.int64(), "number of the sample within its block, from 0"),
    field("shard", pa.int32(), "number of the shard"),
    field("key", pa.string(), "name without extension"),
    field("path", pa.string(), "file within the shard"),
    field("offset", pa.int64(), "where its bytes begin (bytes)"),
    field("nbytes", pa.int64(), "length of the encoded image (bytes)"),
    field("crc32", pa.int64(), "CRC-32 of these bytes"),
    field("width", pa.int32(), "width (pixels)"),
    field("height", pa.int32(), "height (pixels)"),
    field("label", pa.int32(), "class number", nullable=True),
    field("label_name", pa.string(), "class in words, if the shard says", nullable=True),
    field("signature", pa.binary(), "what near-duplicates share, where they are looked for", nullable=True),
)
"""The images of one block that may still be shown for a unit; all of them where every activation is kept."""

NAMES = table(
    field("label", pa.int32(), "class number"),
    field("label_name", pa.string(), "class in words, as the first image of it says"),
)
"""The labels of a block in words; those of images that no unit shows too."""

_NOBODY_ELSE = nullcontext()
_PRUNED_FROM, _PRUNED_FROM_ELSEWHERE = {"cpu": 1 << 12}, 1 << 16
"""Images of a block that are remembered before those are forgotten that no unit holds: asking a GPU for them waits."""


@dataclass(frozen=True, slots=True)
class BlockState:
    """What a block came to: its accumulators, and its part of the tables `MEMBERS`, `SHARDS`, `SKIPPED` and `NAMES`.

    Image numbers count the block's samples, seen or skipped, from 0. `maxima`, where they are kept, is the block's part
    of the matrix of all image activations; of a committed state only where to find it.
    """

    block: int
    accumulators: dict[str, Accumulator]
    members: pa.Table
    shards: pa.Table
    skipped: pa.Table
    names: pa.Table
    maxima: Maxima | Stored | None = None

    def on_cpu(self) -> BlockState:
        """The same with all tensors on the CPU, so that a process without a GPU can take it."""
        accumulators = {
            name: type(accumulator).from_state({part: tensor.cpu() for part, tensor in accumulator.state().items()})
            for name, accumulator in self.accumulators.items()
        }
        return replace(self, accumulators=accumulators)


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What the result of a scan depends on beside the network.

    `decoder` is pillow, which is exact, or nvjpeg: JPEGs are decoded on the device, see `device_decode`.
    """

    preprocessing: Preprocessing
    keep: StatisticsOptions
    compute: Compute
    decoder: str = "pillow"


def scan(
    blocks: Iterable[Block],
    runner: Runner,
    settings: ScanSettings,
    on_batch: Callable[[Batch], None] = lambda batch: None,
    turn: AbstractContextManager[Any] = _NOBODY_ELSE,
    processes: int | None = None,
) -> Iterator[BlockState]:
    """The state of each block in turn, its tensors on the CPU.

    Images of the next block are decoded while the last ones are computed.
    `blocks` are taken as they are needed. Where several scans share a process, only the one that holds `turn`
    computes, and the next one decodes its first images meanwhile. So many `processes` decode, or threads (0); no byte
    depends on it. None: what feeds the device; where scans share a process they are short, and threads do.
    """
    block_of: dict[int, Block] = {}

    def shards() -> Iterator[Shard]:
        for block in blocks:
            block_of.update({shard.number: block for shard in block.shards})
            yield from block.shards

    current: _Block | None = None
    on_device = settings.decoder != "pillow"
    how, size, signed = settings.preprocessing, settings.compute.batch_size, settings.keep.unique
    if processes is None:
        alone = isinstance(turn, nullcontext)
        processes = decode_processes(runner.how.device.type, runner.threads) if alone else 0
    batches = read_batches(shards(), how, size, runner.threads, encoded=on_device, signed=signed, processes=processes)
    decoder = DeviceDecoder(how, runner.how.device) if on_device else None

    def opened(batch: Batch) -> tuple[Batch, np.ndarray | Tensor]:
        if decoder is None:
            return batch, batch.pixels
        pixels, lost = decoder(batch.encoded)
        return batch.without(lost), pixels

    drawn = _drawn if settings.keep.positions == SAMPLED else None
    behind: Behind[BlockState] = Behind(runner.how.device)
    with closing(behind):
        for batch, readings in runner.map(_in_turn(batches, turn), opened, drawn):
            block = block_of[batch.shard.number]
            if current is None:
                current = _Block(block, runner.units, settings.keep, runner.how.device)
            if readings is not None:
                current.read(readings, batch)
            current.account(batch)
            on_batch(batch)
            if batch.last and batch.shard is block.shards[-1]:
                current.feed.settle()
                yield from behind(current.finish)
                current = None
        yield from behind.rest()


def _drawn(batch: Batch) -> Tensor:
    """What the position of each image of a batch is drawn by."""
    return draws(identity(batch.shard.number, _positions(batch)))


def _positions(batch: Batch) -> Tensor:
    """Where in the shard each image of a batch is, int64 `[B]`."""
    return torch.tensor([member.position for member in batch.members])


def _in_turn(batches: Iterator[Batch], turn: AbstractContextManager[Any]) -> Iterator[Batch]:
    """The same batches; once the first is there it waits for the turn, and gives it up behind the last."""
    for first in batches:
        with turn:
            yield first
            yield from batches


class _Block:
    """One block while it is being scanned."""

    def __init__(self, block: Block, units: int, keep: StatisticsOptions, device: torch.device) -> None:
        self.block = block
        self.device = device
        self.units, self.keep = units, keep
        self.collected = Collected(torch.float16 if keep.maxima == "float16" else torch.float32)
        also = [self.collected] if keep.collects_maxima else []
        self.feed = Feed(new_accumulators(units, keep, device), also)
        self.members: dict[int, tuple[int, Member]] = {}
        self.names: dict[int, str] = {}
        self.shards: list[dict[str, object]] = []
        self.skipped: list[dict[str, object]] = []
        self.first = 0  # number of the current shard's first sample within the block
        self.seen = self.lost = self.turned = 0  # samples of the current shard so far
        self.least = _PRUNED_FROM.get(device.type, _PRUNED_FROM_ELSEWHERE)
        self.prune_at = self.least

    def read(self, readings: Readings, batch: Batch) -> None:
        """Feeds the readings of the members of a batch to every accumulator."""
        positions = _positions(batch)
        labels = torch.tensor([NO_LABEL if member.label is None else member.label for member in batch.members])
        numbers, identities = (
            sent(values, self.device) for values in (positions + self.first, identity(batch.shard.number, positions))
        )
        self.feed(readings, BatchIndex(numbers, identities, labels))

    def account(self, batch: Batch) -> None:
        """Writes down what became of every sample of the batch."""
        shard = batch.shard
        self.members |= {self.first + member.position: (shard.number, member) for member in batch.members}
        for member in batch.members:
            if member.label is not None and member.label_name is not None:
                self.names.setdefault(member.label, member.label_name)
        self.skipped += [
            {"shard": shard.number, "position": lost.position, "key": lost.key, "error": lost.error}
            for lost in batch.rejected
        ]
        self.seen += len(batch.members)
        self.lost += len(batch.rejected)
        self.turned += sum(member.turned for member in batch.members)
        if batch.last:
            samples = self.seen + self.lost
            self.shards.append(
                {"shard": shard.number, "url": shard.url, "members": samples, "seen": self.seen, "skipped": self.lost,
                 "turned": self.turned}
            )  # fmt: skip
            self.first += samples
            self.seen = self.lost = self.turned = 0
        if len(self.members) > self.prune_at and not self.keep.keeps_maxima:
            self._keep_winners()
            self.prune_at = max(self.least, 2 * len(self.members))

    def finish(self) -> BlockState:
        """The block's result."""
        accumulators = self.feed.settle()
        if not self.keep.keeps_maxima:
            self._keep_winners()
        rows = [_row(image, shard, member) for image, (shard, member) in sorted(self.members.items())]
        state = BlockState(
            self.block.number,
            accumulators,
            pa.Table.from_pylist(rows, MEMBERS),
            pa.Table.from_pylist(self.shards, SHARDS),
            pa.Table.from_pylist(self.skipped, SKIPPED),
            pa.Table.from_pydict({"label": [*self.names], "label_name": [*self.names.values()]}, NAMES),
            self.collected.finish(self.units) if self.keep.collects_maxima else None,
        )
        return state if self.device.type == "cpu" else state.on_cpu()

    def _keep_winners(self) -> None:
        winners = set(held_images(self.feed.settle()).tolist())
        self.members = {image: entry for image, entry in self.members.items() if image in winners}


def _row(image: int, shard: int, member: Member) -> dict[str, object]:
    return {
        "image": image, "shard": shard, "key": member.key, "path": member.place.path,
        "offset": member.place.offset, "nbytes": member.place.nbytes, "crc32": member.place.crc32,
        "width": member.width, "height": member.height, "label": member.label, "label_name": member.label_name,
        "signature": member.signature,
    }  # fmt: skip
