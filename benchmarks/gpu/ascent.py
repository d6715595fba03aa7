"""Units a second that the default recipe draws of three layers of ResNet-50, by precision, and all units from them."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from actmine.pipeline.ascent.ascend import batch_size, draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.engines.engine import device_memory
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from benchmarks.gpu.mining import HOW, network
from benchmarks.gpu.setting import Setting

LAYERS = ("layer1.1.relu_2", "layer2.2.relu_1", "layer3.3.relu_2", "layer4.1.relu_2")
PRECISIONS = ("fp32", "tf32", "bf16")
MINUTES = 15


def speed(setting: Setting) -> None:
    """A line for each layer; what all units would take if those of a stage take as long as its layer here."""
    traced = Traced(network("resnet18" if setting.small else "resnet50"), (3, 224, 224))
    names = ("layer1.1.relu_1",) if setting.small else LAYERS
    chosen = [traced.choose(name)[0] for name in names]
    fields = receptive_fields(traced, chosen)
    preset = find_preset("default")
    total = dict.fromkeys(PRECISIONS, 0.0)
    units_of = {
        name: sum(layer.units for layer in traced.unit_bearing() if layer.name.startswith(name[:6])) for name in names
    }
    print(
        "ascent, default recipe, resnet50 with random weights: seconds a unit, largest activation against that of fp32"
    )
    for layer in chosen:
        reached: dict[str, np.ndarray] = {}
        for precision in PRECISIONS:
            climb = Climb(HOW, traced, layer, fields[layer.name], preset, setting.device)
            climb.climbs_in = precision
            size = 2 if setting.small else batch_size(layer, climb, device_memory(setting.device))
            units = list(range(size))
            kept: list[np.ndarray] = []

            def once(
                climb: Climb = climb, units: list[int] = units, size: int = size, kept: list[np.ndarray] = kept
            ) -> None:
                kept[:] = [np.array([found.activation for found in draw(climb, units, size, 0)])]

            timing = setting.timed({precision: partial(torch.inference_mode(False)(once))}, warmup=1)[precision]
            reached[precision] = kept[0]
            seconds = timing.median / size
            total[precision] += seconds * units_of[layer.name]
            share = float(np.median(reached[precision] / np.maximum(reached["fp32"], 1e-9)))
            print(f"  {layer.name} {precision}: {seconds:.4f} s ({size} together, {share:.3f} of fp32)", flush=True)
            setting.keep("ascent", **{f"{layer.name} {precision}": seconds})
    every = sum(units_of.values())
    for precision, seconds in total.items():
        what = f"ascent, all {every:,} units, {precision}, from {len(names)} layers"
        bar = setting.judged(what, seconds / 60, MINUTES, "minutes", most=True)
        print(f"  all {every:,} units in {precision}: {seconds / 60:.1f} minutes {bar}")
