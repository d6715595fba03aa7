"""The kernels of the GPU path by Triton's interpreter, against what a CPU does: values, first positions, counts."""

from __future__ import annotations

import copy
import os

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from actmine.pipeline.network.devices import new_enough
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.readings.batch_index import BatchIndex, halves
from actmine.pipeline.readings.buckets import BUCKETS, count_positions
from actmine.pipeline.readings.fused_taps import _plainly, fused
from actmine.pipeline.readings.labels import Labels
from actmine.pipeline.readings.reductions import read_layer, read_map
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.taps import Readings, TappedNetwork
from actmine.pipeline.readings.topk import EMPTY, TopK

triton = pytest.importorskip("triton", reason="needs triton, which comes with torch for NVIDIA GPUs")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("Triton was not begun as an interpreter, because there is a GPU", allow_module_level=True)
if not new_enough(triton.__version__):
    pytest.skip("the kernels need Triton 3.3 or later", allow_module_level=True)

from actmine.pipeline.readings.chain_kernel import chain  # noqa: E402
from actmine.pipeline.readings.tap_kernel import Tile, sweep  # noqa: E402
from actmine.pipeline.readings.unit_kernels import add_labelled, add_statistics, count, in_two, keep_best  # noqa: E402

TYPES = (torch.float32, torch.bfloat16, torch.float16)
VALUES = st.sampled_from([-torch.inf, -3.5, -0.0, 0.0, 1.0, 2.0, 2.5, 300.0, 1e-5, 1e-41, -1e-30, 1e30, torch.inf])


@st.composite
def maps(draw: st.DrawFn) -> torch.Tensor:
    """Of few values, so that ties are common, in any order of memory."""
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 5), st.integers(1, 7)))
    flat = draw(st.lists(VALUES, min_size=1, max_size=40))
    many = torch.tensor(flat * (-(-torch.Size(shape).numel() // len(flat))))[: torch.Size(shape).numel()]
    found = many.reshape(shape).to(draw(st.sampled_from(TYPES)))
    order = draw(st.sampled_from(["contiguous", "channels_last", "tokens", "turned"]))
    if order == "channels_last":
        return found.to(memory_format=torch.channels_last)
    if order == "tokens":
        return found.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).unsqueeze(3)
    return found.transpose(2, 3) if order == "turned" else found


@settings(max_examples=40, deadline=None)
@given(maps(), st.integers(0, 1 << 62), st.sampled_from([None, Tile(4, 2, 2, 1), Tile(2, 1, 4, 1), Tile(8, 4, 1, 1)]))
def test_a_sweep_finds_extremes_first_positions_one_drawn_and_counts(image, draw, tile):
    marks = (torch.arange(len(image)) + draw) % 2
    maximum, position, minimum, lowest, counts = sweep(image, marks, both=True, counted=True, tile=tile)
    for found, place, values in ((maximum, position, image), (-minimum, lowest, -image)):
        wanted, first = read_map(values)
        assert torch.equal(found, wanted) and torch.equal(place.long(), first)
    assert torch.equal(counts, count_positions(image, marks))
    drawn = torch.arange(len(image)) * 7 + draw
    sampled = sweep(image, drawn, sampled=True, tile=tile)[2]
    flat = image.flatten(2)
    assert torch.equal(sampled, flat[torch.arange(len(image)), :, drawn % flat.shape[2]].float())


def test_a_map_in_parts_gives_the_first_of_equal_maxima_and_nan_wins():
    image = torch.zeros(1, 3, 40, 40)
    image[0, 0, 39, 1] = image[0, 0, 39, 39] = image[0, 0, 20, 5] = 2.0
    image[0, 1, 30, 0] = torch.nan
    for order in (image, image.to(memory_format=torch.channels_last)):
        maximum, position = sweep(order)
        assert maximum[0].tolist()[::2] == [2.0, 0.0] and maximum[0, 1].isnan()
        assert position[0].tolist()[::2] == [20 * 40 + 5, 0]


def test_a_nan_has_a_place_within_the_map():
    image = torch.zeros(1, 4, 1, 5).to(memory_format=torch.channels_last)
    image[0, :, 0, 4] = torch.nan
    for across in (1, 2, 8, 16):
        maximum, position, minimum, lowest = sweep(image, both=True, tile=Tile(4, across, 2, 1))
        assert maximum.isnan().all() and minimum.isnan().all()
        assert all(0 <= int(place) < 5 for place in (*position[0], *lowest[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 30), st.integers(0, 10**6))
def test_the_best_kept_by_a_kernel_are_those_of_a_sort(k, units, images, seed):
    draw = torch.Generator().manual_seed(seed)
    exact, kernel = TopK(units, k), TopK(units, k)
    for batch in range(2):
        values = torch.randint(-3, 4, (images, units), generator=draw).float()
        values[values == 3] = torch.tensor([torch.nan, torch.inf, -0.0])[batch]
        place = torch.randint(0, 99, (images, units), generator=draw, dtype=torch.int32)
        numbers = torch.arange(images) + 1000 * batch
        exact.update(Readings(values, place), BatchIndex.of(numbers))
        keep_best(kernel._keys, kernel._positions, values, place, numbers)
    there = exact.state()["keys"] != EMPTY
    assert torch.equal(kernel.state()["keys"], exact.state()["keys"])
    assert torch.equal(kernel.state()["positions"][there], exact.state()["positions"][there])


def test_statistics_and_histograms_of_a_kernel_are_those_of_a_cpu():
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(50, 70, generator=draw) * 10
    values[values > 15] = torch.nan
    exact, kernel = Statistics(70), Statistics(70)
    for part in values.split(30):
        exact.update(Readings(part, torch.zeros_like(part, dtype=torch.int32)), BatchIndex.of(torch.arange(len(part))))
        add_statistics(kernel._of, part.contiguous())
    for name, wanted in exact.state().items():
        torch.testing.assert_close(kernel.state()[name], wanted, rtol=1e-12, atol=0)
    for kind in (torch.int32, torch.int64):
        counts = torch.zeros(70, BUCKETS, dtype=kind)
        count(counts, values)
        assert torch.equal(counts, count_positions(values[:, :, None, None], torch.zeros(50)).to(kind))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 140), st.integers(0, 10**6))
def test_a_kernel_adds_images_to_their_labels_as_a_cpu_does(images, labels, units, seed):
    draw = torch.Generator().manual_seed(seed)
    exact, kernel = Labels(units), Labels(units)
    for _ in range(2):
        values = torch.randint(-3, 4, (images, units), generator=draw) / 4
        values[values == 0.75] = torch.nan
        its = torch.randint(-1, labels, (images,), generator=draw)
        index = BatchIndex.of(torch.randint(0, 1 << 40, (images,), generator=draw), labels=its.tolist())
        exact.update(Readings(values, torch.zeros_like(values, dtype=torch.int32)), index)
        if bool((known := its >= 0).any()):
            kernel._widen(its[known].unique())
            row = 2 * torch.searchsorted(kernel.labels, its[known]) + halves(index.identities)[known]
            kernel.seen.view(-1).index_add_(0, row, torch.ones_like(row))
            sums = (each.flatten(0, 1) for each in (kernel.missing, kernel.total, kernel.maximum))
            add_labelled(values[known].contiguous(), row, *sums, kernel.square)
    for name, wanted in exact.state().items():
        torch.testing.assert_close(kernel.state()[name], wanted, rtol=1e-12, atol=0)


def test_a_float_is_the_sum_of_its_upper_bits_and_the_rest():
    values = torch.tensor([[1.0, -3.1415927, 1e-41, 3e38, torch.nan, torch.inf, -torch.inf, -0.0]]).repeat(3, 200)
    upper, rest = in_two(values).double().split(3)
    assert torch.equal(upper + rest, values.nan_to_num(0.0, torch.inf, -torch.inf).double())
    assert not bool((upper.float().view(torch.int32) & 0x1FFF).any())


def test_a_kernel_counts_every_float_into_the_bucket_that_a_cpu_finds():
    upper = torch.arange(1 << 16, dtype=torch.int32) << 16
    values = torch.cat([upper, upper | 0xFFFF]).view(torch.float32).reshape(256, 512)
    counts = torch.zeros(512, BUCKETS, dtype=torch.int32)
    count(counts, values)
    assert torch.equal(counts, count_positions(values[:, :, None, None], torch.zeros(256)))


@pytest.mark.parametrize(
    ("dtype", "activation"),
    [(torch.float32, "gelu"), (torch.bfloat16, "relu"), (torch.float16, "relu6"), (torch.float32, "none")],
)
def test_a_chain_in_one_sweep_rounds_and_reads_as_step_by_step(dtype, activation):
    draw = torch.Generator().manual_seed(0)
    left, right = (4 * torch.randn(2, 5, 9, generator=draw).to(dtype) for _ in range(2))
    norms = [tuple(torch.rand(9, generator=draw) + 0.5 for _ in range(2)) for _ in range(2)]
    for sides in ((left, None, None, None), (left, norms[0], right, None), (left, norms[0], right, norms[1])):
        taps = [True, sides[2] is not None, sides[2] is not None, True]
        out = torch.empty_like(left)
        found = chain(*sides, activation, tuple(taps), out)
        wanted = _plainly(*sides, activation, taps, tokens=True)
        step = 4 * torch.finfo(dtype).eps  # the interpreter cuts bfloat16 off where a GPU rounds it
        loose = {"rtol": step, "atol": 8 * step}
        torch.testing.assert_close(out, wanted[0], **loose)
        for value, other in zip(found[::2], wanted[1::2], strict=True):
            torch.testing.assert_close(value, other, **loose)
        places = zip(found[1::2], wanted[2::2], strict=True)
        assert min((place == other).float().mean() for place, other in places) > (
            0.8 if dtype is torch.bfloat16 else 0.97
        )


def test_gelu_in_a_sweep_is_that_of_float64_but_for_rounding():
    values = torch.cat([torch.linspace(-9, 9, 4001), torch.tensor([-1e18, 1e18, torch.inf, -1e-30, 0.0])])
    out = torch.empty(1, len(values), 1)
    chain(values.reshape(1, -1, 1), None, None, None, "gelu", (False, False, False, True), out)
    wanted = torch.nn.functional.gelu(values.double())
    off = (out.flatten().double() - wanted).abs() / values.double().abs().clamp(1e-30)
    assert float(off[wanted.isfinite()].max()) < 2e-7 and out[0, -3, 0] == torch.inf
    values[7] = torch.nan
    assert chain(values.reshape(1, -1, 1), None, None, None, "gelu", (False, False, False, True), out)[0].isnan().all()


@pytest.mark.parametrize(
    ("model", "side", "separate"),
    [("resnet18", 64, 1), ("vit_b_32", 224, 2), ("squeezenet1_1", 64, 0), ("mobilenet_v2", 64, 1)],
)
def test_a_network_in_sweeps_reads_what_it_read_before(model, side, separate):
    torch.manual_seed(0)
    module = torchvision.models.get_model(model, weights=None).eval()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    traced = Traced(module, (3, side, side))
    network = TappedNetwork(traced, traced.unit_bearing()).network.to(memory_format=torch.channels_last)
    images = torch.randn(2, 3, side, side).to(memory_format=torch.channels_last)
    swept = fused(copy.deepcopy(network), (3, side, side))
    with torch.inference_mode():
        before, after = network(images), swept(images)
    torch.testing.assert_close(after[0], before[0], rtol=1e-4, atol=1e-4)
    assert (after[1] == before[1]).float().mean() > 0.999
    assert sum(node.target is read_layer for node in swept.graph.nodes) == separate
