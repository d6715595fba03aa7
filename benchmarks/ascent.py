"""How fast is drawing beside lucent? `python -m benchmarks.ascent` (needs `pip install 'actmine[bench]'`).

SqueezeNet 1.1 with random weights. actmine draws a batch of a layer's units by a preset (`--preset`), lucent 0.1 one
unit after the other (`render_vis`, its own Fourier image, transforms and Adam), both on a canvas of the layer's
receptive field and for as many steps. Every `--every`th layer is measured, in turn and in rounds; one that is not
counts as the nearest that is, the earlier of two. The ratio is that of the times that all units of all convolutional
layers take for a step. Each in a process of its own: lucent with memory as it comes, as its users have it, actmine as
its commands run.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import date
from importlib.metadata import version

import torch

from actmine.pipeline.ascent.ascend import batch_size
from actmine.pipeline.ascent.climb import Climb
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from benchmarks.elsewhere import Elsewhere
from benchmarks.subject import PREPROCESSING, layers_of, network

BAR = 10
CPU = torch.device("cpu")


def main() -> None:
    """Prints seconds per unit and step of each measured layer, and the ratio over all units with its bar."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--every", type=int, default=4)
    words.add_argument("--preset", default="default")
    given = words.parse_args()
    layers = convolutional()
    chosen = measured(len(layers), given.every)
    names = [layers[number].name for number in chosen]
    seconds: dict[str, list[list[float]]] = {"actmine": [[] for _ in chosen], "lucent": [[] for _ in chosen]}
    print(f"{date.today()}  lucent {version('torch-lucent')}, preset {given.preset}, cpu, {len(chosen)} layers")
    with (
        Elsewhere(drawing, names, given.preset, keep=True) as ours,
        Elsewhere(rendering, names, given.preset, keep=False) as theirs,
    ):
        candidates = {"actmine": ours, "lucent": theirs}
        for number in range(given.rounds + 1):  # the first one warms up
            for place in range(len(chosen)):
                for name in list(candidates) if number % 2 else reversed(list(candidates)):
                    took = candidates[name]()
                    if number:
                        seconds[name][place].append(took)
    medians = {name: [statistics.median(values) for values in its] for name, its in seconds.items()}
    for place, name in enumerate(names):
        mine, other = medians["actmine"][place], medians["lucent"][place]
        print(f"{name:38} {1e3 * mine:8.3f} ms a unit and step, lucent {1e3 * other:8.3f}: {other / mine:6.1f} x")
    totals = {name: total(layers, chosen, values) for name, values in medians.items()}
    units = sum(layer.units for layer in layers)
    ratio = totals["lucent"] / totals["actmine"]
    print(f"{units:,} units, a step of each: actmine {totals['actmine']:.2f} s, lucent {totals['lucent']:.2f} s")
    print(f"lucent / actmine = {ratio:.1f} (bar {BAR}: {'reached' if ratio >= BAR else 'missed'})")


def convolutional() -> list[Layer]:
    """Every convolution's layer, behind its activation."""
    return [layer for layer in layers_of(network())[1] if layer.name.startswith("features")]


def measured(count: int, every: int) -> list[int]:
    """The numbers of the layers that are measured: every so many, and the last."""
    return sorted({*range(0, count, every), count - 1})


def total(layers: list[Layer], chosen: list[int], seconds: list[float]) -> float:
    """Seconds that a step of all units takes, each layer at the speed of the nearest measured one."""
    return sum(
        layer.units * seconds[min(range(len(chosen)), key=lambda place: (abs(chosen[place] - number), place))]
        for number, layer in enumerate(layers)
    )


def _steps(preset: str) -> int:
    return sum(stage.steps for stage in find_preset(preset).stages)


def drawing(names: list[str], preset: str) -> Callable[[], float]:
    """Each call draws a batch of the next layer; seconds per unit and step."""
    traced, bearing = layers_of(network())
    layers = {layer.name: layer for layer in bearing}
    fields = receptive_fields(traced, bearing)
    climbs = {
        name: Climb(PREPROCESSING, traced, layers[name], fields[name], find_preset(preset), CPU) for name in names
    }
    turn = itertools.cycle(names)

    def run() -> float:
        name = next(turn)
        units = list(range(batch_size(layers[name], climbs[name], None)))
        start = time.perf_counter()
        climbs[name](units, units, 0, 0)
        return (time.perf_counter() - start) / len(units) / _steps(preset)

    return run


def rendering(names: list[str], preset: str) -> Callable[[], float]:
    """Each call renders one unit of the next layer; seconds per step."""
    warnings.filterwarnings("ignore")
    from lucent.optvis import param, render

    module = network()
    traced, bearing = layers_of(module)
    fields = receptive_fields(traced, bearing)
    layers = {layer.name: layer for layer in bearing}
    sides = {
        name: Climb(PREPROCESSING, traced, layers[name], fields[name], find_preset(preset), CPU).size for name in names
    }
    turn = itertools.cycle(names)

    def run() -> float:
        name = next(turn)
        height, width = sides[name]
        start = time.perf_counter()
        render.render_vis(
            module, f"{name.replace('.', '_')}:0", lambda: param.image(width, height), thresholds=(_steps(preset),),
            progress=False, show_image=False, fixed_image_size=(height, width),
        )  # fmt: skip
        return (time.perf_counter() - start) / _steps(preset)

    return run


if __name__ == "__main__":
    main()
