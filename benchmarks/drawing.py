"""What does drawing cost on this CPU? `python -m benchmarks.drawing [--weights FILE]`.

Every layer of SqueezeNet 1.1 `features.*` by `--preset`: core-seconds and seconds a unit of a whole layer, from two
ascents of each on all cores, and both over all units. Then two units of the demo's network by each preset that needs
neither exemplars nor a generator, as somebody asks for them who looks at a unit.
"""

from __future__ import annotations

import argparse
import time
from datetime import date

import torch

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.ascent.ascend import batch_size, draw
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import PRESETS, find_preset
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields

CPU = torch.device("cpu")
BAR, BAR_OF_TWO = 0.10, 60


def main() -> None:
    """Prints what a unit of each layer and of all takes, and two units by each preset, with the bars."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--weights", default="random")
    words.add_argument("--preset", default="default")
    given = words.parse_args()
    keep_freed_memory()
    compute_exactly()
    print(f"{date.today()}  torch {torch.__version__}, {usable_cores()} cores, preset {given.preset}")
    of_layers("squeezenet1_1", given.weights, find_preset(given.preset))
    two_of_the_demo()


def of_layers(name: str, weights: str, preset: Preset) -> None:
    """Two ascents of each layer on all cores."""
    network = load_network(name, weights)
    cores = usable_cores()
    units = used = took = 0.0
    for layer, climb in climbs(network, "features.*", preset):
        size = batch_size(layer, climb, None)
        count = min(layer.units, size * cores)
        draw(climb, list(range(count)), size, 0, cores=cores)  # warms up
        core_seconds, seconds = measured(climb, list(range(count)), size)
        print(f"{layer.name:32} {size:3} at once  {core_seconds / count:.3f} core-s  {seconds / count:.3f} s a unit")
        units, used = units + layer.units, used + core_seconds / count * layer.units
        took += seconds / count * layer.units
    print(f"all {units:,.0f} units: {used / units:.3f} core-s a unit (bar {BAR}), {took:.0f} s")


def two_of_the_demo() -> None:
    """Units 3 and 7 of its last layer by every preset."""
    network = load_network("demo")
    for name, preset in PRESETS.items():
        if preset.references or name == "gan-prior":
            continue
        ((layer, climb),) = climbs(network, "block5.relu", preset)
        core_seconds, seconds = measured(climb, [3, 7], batch_size(layer, climb, None))
        print(f"two units of the demo by {name:18} {seconds:5.1f} s, {core_seconds:5.1f} core-s (bar {BAR_OF_TWO} s)")


def climbs(network: Network, layers: str, preset: Preset) -> list[tuple[Layer, Climb]]:
    """What draws units of each of the layers that a glob selects."""
    traced = network.traced()
    chosen = traced.choose(layers)
    fields = receptive_fields(traced, chosen)
    how = network.preprocessing
    return [(layer, Climb(how, traced, layer, fields[layer.name], preset, CPU)) for layer in chosen]


def measured(climb: Climb, units: list[int], size: int) -> tuple[float, float]:
    """Core-seconds and seconds that drawing takes on all cores."""
    used, start = time.process_time(), time.perf_counter()
    draw(climb, units, size, 0, cores=usable_cores())
    return time.process_time() - used, time.perf_counter() - start


if __name__ == "__main__":
    main()
