"""What is counted of work for a GPU is what it does; and what stages give one comes together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from actmine.pipeline.ascent.ascend import batch_size, budget
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.exemplars.effective_field import EffectiveField
from actmine.pipeline.exemplars.gradients import TOGETHER
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from benchmarks.gpu.counting import LAUNCH, Count, counted, peak, together
from benchmarks.gpu.launches import Stages

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages("demo")


def test_kernels_bytes_and_operations_of_a_convolution_are_counted_and_views_are_not():
    images, layer = torch.randn(2, 3, 8, 8), nn.Conv2d(3, 5, 3, padding=1)

    def work() -> None:
        with torch.inference_mode():
            layer(images).relu().flatten(1)[:, :7].detach()

    maps = 4 * 2 * 5 * 8 * 8
    convolution = 4 * images.numel() + 4 * (5 * 3 * 9 + 5) + maps
    assert counted(work) == Count(2, convolution + 2 * maps, 2 * 9 * 3 * 5 * 2 * 8 * 8)


def test_whatever_needs_a_value_of_the_device_waits_for_it():
    values = torch.randn(6, 4)
    assert counted(lambda: values.cpu()) == Count(waits=1, fetched=96)
    assert counted(lambda: values[values > 0]).waits == counted(lambda: values.sum().item()).waits == 1
    assert counted(lambda: values[torch.tensor([1, 2])]).waits == 0


def test_a_large_batch_is_on_the_line_through_small_ones():
    batches = {items: torch.randn(items, 10) for items in (2, 4, 100)}
    of = together(lambda items: lambda: batches[items] + 1, 100)
    assert of * 100 == counted(lambda: batches[100] + 1) == Count(1, 8000)
    assert of.floor("fp32")["launches"] == pytest.approx(LAUNCH / 100)


def test_a_peak_is_of_tensors_that_live_together():
    def work() -> None:
        first = torch.ones(1000)
        second = first + 1  # 8 kB
        del first
        third = second.view(10, 100) * 2  # 8 kB
        del second
        _ = third[:5].clone()  # 6 kB

    assert peak(work) == 8000


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_scan_has_as_many_kernels_in_a_large_batch_as_in_a_small_one(stages, precision):
    small, large = stages.scan(precision, 2) * 2, stages.scan(precision, 64) * 64
    assert small.kernels == large.kernels > len(stages.layers) / 2
    assert large.operations == 32 * small.operations > 0 and large.waits == 0


def test_nothing_is_waited_for_layer_by_layer_or_exemplar_by_exemplar(stages):
    assert len(stages.layers) > 8
    assert counted(stages.winners(8)).waits == 4  # fields of maps
    assert stages.gradients(EffectiveField).waits * TOGETHER == stages.crops().waits * TOGETHER == 1
    assert counted(stages.positions(8)).waits == 1


def test_only_what_exemplars_need_is_fetched_from_the_device(stages):
    crops, gradients = stages.crops(), stages.gradients(EffectiveField)
    assert crops.fetched == 4 and gradients.fetched == 4 * stages.how.channels * stages.how.size[0] * stages.how.size[1]


def test_pictures_that_rise_together_on_a_gpu_take_less_than_they_may_and_not_much_less():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 64, 9, padding=4), nn.ReLU(), nn.Conv2d(64, 48, 9, stride=2), nn.BatchNorm2d(48), nn.ReLU(),
        nn.Conv2d(48, 200, 9), nn.ReLU(),
    )  # fmt: skip
    traced = Traced(module.eval(), (3, 64, 64))
    layer = traced.choose("6")[0]
    field = receptive_fields(traced, [layer])[layer.name]
    preset = find_preset("default")
    whole = replace(preset, stages=(replace(preset.stages[-1], steps=2),), attempts=1)
    climb = Climb(Preprocessing.usual(64, (64, 64)), traced, layer, field, whole, CPU)
    climb([0], [0], 0, 0)  # builds its networks
    few, more = (peak(lambda count=some: climb(range(count), range(count), 0, 0)) for some in (2, 6))
    picture = (more - few) / 4
    memory = round(4 * 20 * picture)
    assert budget(memory) == memory // 4
    assert 0.4 < picture * batch_size(layer, climb, memory) / budget(memory) < 0.85
    assert batch_size(layer, climb, 80 << 30) == layer.units
