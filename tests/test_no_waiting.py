"""Nothing in the loop over batches waits for a GPU: a fake one refuses whatever would have to."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actmine.pipeline.datasets.batches import Batch
from actmine.pipeline.datasets.decoding import Member
from actmine.pipeline.datasets.shards import Place
from actmine.pipeline.dictionaries.dictionary import KLargest, Thresholded
from actmine.pipeline.network.dictionary_layers import attach, of_objects
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.density import Density
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import Readings, TappedNetwork
from actmine.pipeline.scanning import scan
from actmine.pipeline.scanning.compute import PRECISIONS, Whole
from actmine.pipeline.words import EVERY, NO_POSITIONS, SAMPLED
from tests.fake_gpu import CUDA, Waited, fake_gpu

UNITS, BATCH = 40, 256


class Shard:
    """What the loop asks of one."""

    number, url, is_far = 3, "shard", False


def batch(first: int, labelled: int) -> Batch:
    """Images of a shard; one in so many has no label."""
    members = tuple(
        Member(first + n, f"{first + n}", Place("x", 0, 1, 0), 9, 9, n % 7 if n % labelled else None, None)
        for n in range(BATCH)
    )
    return Batch(Shard(), torch.empty(0).numpy(), members, (), False)  # type: ignore[arg-type]


def readings(keep: StatisticsOptions) -> Readings:
    """Some of everything that is kept."""
    values, place = torch.empty(BATCH, UNITS, device=CUDA), torch.empty(BATCH, UNITS, dtype=torch.int64, device=CUDA)
    return Readings(
        values, place,
        *((values, place) if keep.minima else (None, None)),
        values if keep.positions == SAMPLED else None,
        torch.empty(UNITS, scan_buckets(), dtype=torch.int32, device=CUDA) if keep.positions == EVERY else None,
        place.int() if keep.density else None,
    )  # fmt: skip


def scan_buckets() -> int:
    from actmine.pipeline.readings.bucket_edges import BUCKETS

    return BUCKETS


EVERYTHING = [
    StatisticsOptions(9, maxima="none"),
    StatisticsOptions(9, maxima="passing"),
    StatisticsOptions(9, maxima="float16"),
    StatisticsOptions(300, "both", bands=(50.0, 90.0), random_images=5, positions=SAMPLED, maxima="float32"),
    StatisticsOptions(5, "both", positions=EVERY, maxima="none", labels=False),
    StatisticsOptions(5, "min", density=True, rectified=((3, 20),), unique=True, maxima="none"),
]


@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize("keep", EVERYTHING, ids=str)
def test_what_is_kept_of_batches_is_never_waited_for(keep, triton, monkeypatch):
    with fake_gpu(monkeypatch, triton) as gpu:
        block = scan._Block(None, UNITS, keep, CUDA)  # type: ignore[arg-type]
        for number in range(20):
            some = batch(number * BATCH, 3 if number % 2 else 10**9)
            block.read(readings(keep), some)
            block.account(some)
    assert gpu.copied >= 40, "numbers and identities went there"
    assert keep.labels == ("labels" in block.feed.accumulators) and len(block.feed.accumulators) >= 4


class Small(nn.Module):
    """A convolution with its normalization and ReLU, added to another; then tokens, then features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.again, self.tokens, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 6), nn.Linear(6, 5)

    def forward(self, images: Tensor) -> Tensor:
        first = self.relu(self.norm(self.conv(images)))
        second = torch.relu(self.again(first) + first)
        return self.head(self.tokens(second.flatten(2).transpose(1, 2)).mean(1))


def traced_with_latents() -> tuple[Traced, list[Layer]]:
    """The network, its layers, and two of latents."""
    torch.manual_seed(0)
    traced = Traced(Small().eval(), (3, 16, 16))
    bias = torch.zeros(600)
    attach(traced, of_objects({"relu:best": KLargest(torch.randn(8, 600), 4, bias),
                               "relu:above": Thresholded(torch.randn(8, 9000), torch.ones(9000))}))  # fmt: skip
    return traced, [*traced.unit_bearing(), *traced.latent_layers]


@pytest.mark.parametrize("triton", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("minima", "positions", "most_norm"),
    [*itertools.product([False, True], [NO_POSITIONS, SAMPLED, EVERY], [0.0]), (False, NO_POSITIONS, 10.0)],
)
def test_no_tap_waits(minima, positions, most_norm, precision, triton, monkeypatch):
    traced, layers = traced_with_latents()
    assert {"maps", "tokens", "features"} <= {layer.layout for layer in layers}
    tapped = TappedNetwork(traced, layers, minima, positions, most_norm)
    how = Preprocessing.usual(None, (16, 16))
    with fake_gpu(monkeypatch, triton), torch.no_grad(), monkeypatch.context() as sending:
        sending.setattr("tests.fake_gpu.FakeGpu._copy", lambda *given: None)  # weights go there once
        whole = Whole(tapped.network, Normalize(how, CUDA), PRECISIONS[precision], (3, 16, 16), CUDA, True).to(CUDA)
        sending.undo()
        pixels = torch.empty(4, 16, 16, 3, dtype=torch.uint8, device=CUDA)
        marks = [torch.empty(4, dtype=torch.int64, device=CUDA)] if tapped.marked else []
        found = tapped.readings(whole(pixels, *marks), 3)
    assert {tensor.device.type for tensor in traced.module.state_dict().values()} == {"cpu"}, "the network stays here"
    assert found.maximum.shape == (3, sum(layer.units for layer in layers)) and found.maximum.device.type == "cuda"
    assert found.fired is not None and (found.minimum is None) == (not minima)


PLANTED: dict[str, Any] = {
    "item": lambda values: values.sum().item(),
    "bool": lambda values: bool((values > 0).any()),
    "nonzero": lambda values: (values > 0).nonzero(),
    "mask": lambda values: values[values > 0],
    "written by a mask": lambda values: values.__setitem__(values > 0, torch.zeros((), device=CUDA)),
    "cpu": lambda values: values.cpu(),
    "numpy": lambda values: values.cpu().numpy(),
    "list": lambda values: values.sum(1).tolist(),
    "unique": lambda values: values.int().unique(),
    "sent at once": lambda values: values + torch.ones(UNITS).to(CUDA),
    "not pinned": lambda values: values + torch.ones(UNITS).to(CUDA, non_blocking=True),
}


@pytest.mark.parametrize("name", PLANTED)
def test_an_accumulator_that_waits_is_caught(name, monkeypatch):
    keep = StatisticsOptions(9, density=True, maxima="none")
    update = Density.update

    def waiting(self: Density, readings: Readings, index: BatchIndex) -> None:
        update(self, readings, index)
        PLANTED[name](readings.maximum)

    monkeypatch.setattr(Density, "update", waiting)
    with fake_gpu(monkeypatch):
        block = scan._Block(None, UNITS, keep, CUDA)  # type: ignore[arg-type]
        with pytest.raises(Waited):
            block.read(readings(keep), batch(0, 3))
