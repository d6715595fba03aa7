"""How long do focus and crop checks take? `python -m benchmarks.focus --images PHOTOGRAPHS --weights SQUEEZENET`.

Photographs are mined with SqueezeNet 1.1 `features.*`, k = 9. Then exemplars of some images are measured, in rounds, on
one core: as `focus` and `check` do it, an image at a time over what its exemplars depend on; and whole, each exemplar
by a way of its own through the network below its layer, in batches. Seconds are the core's own. Values are compared as
well. Without `--images`, pictures of noise.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import numpy as np
import torch

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.exemplars.crop_check import Crops, CropTask
from actmine.pipeline.exemplars.effective_field import EffectiveField, energy_of
from actmine.pipeline.exemplars.exemplar_parts import ExemplarTask, input_pixels
from actmine.pipeline.exemplars.focus_box import smallest_box
from actmine.pipeline.exemplars.shown_alone import shown_alone
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.subnetwork import subnetwork
from actmine.pipeline.preprocessing.geometry import Box, original_box
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.progress import Silent
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.check_crops import _Checking
from actmine.pipeline.stages.focus import _Focusing
from actmine.pipeline.stages.mine import MineSettings, mine
from benchmarks.photographs import photographs
from benchmarks.rounds import interleaved

COUNT, BAR = 622, 3.0
FIRST = 9
CPU = torch.device("cpu")
_TOGETHER = {"focus": 6, "checks": 16}
Row = tuple[int, int]


def main() -> None:
    """Prints milliseconds of an exemplar both ways, and their ratio with its bar."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--images", type=Path, help="a folder of images; generated ones by default")
    words.add_argument("--weights", default="random", help="of SqueezeNet 1.1; a file may lack the head")
    words.add_argument("--every", type=int, default=20, help="one image in so many is measured")
    words.add_argument("--rounds", type=int, default=3)
    given = words.parse_args()
    keep_freed_memory()
    compute_exactly()
    torch.set_num_threads(1)
    images = given.images or photographs(Path(gettempdir()) / f"actmine-photographs-{COUNT}", COUNT)
    with TemporaryDirectory() as folder:
        run, network = Path(folder) / "run", load_network("squeezenet1_1", given.weights)
        traced = Traced(network.module, network.input_shape)
        layers = dict(enumerate(traced.choose("features.*")))
        dataset = find_dataset(str(images))
        mine(dataset, network, traced, list(layers.values()), run, CPU, MineSettings(StatisticsOptions(FIRST)))
        subject, engine, opened = Subject(network, traced, list(layers.values())), LocalEngine(CPU, 1), open_run(run)
        focusing = _Focusing(run, dataset.by_number, subject, engine, Silent(), FIRST)
        checking = _Checking(opened, subject, engine, Silent(), FIRST, None)
        looked = [task for part in focusing.parts() for task in part.tasks][:: given.every]
        crops = [task for part in checking.parts() for task in part.tasks][:: given.every]
        print(f"{date.today()}  one core, exemplars of {len(looked)} and {len(crops)} images")
        wide = {number: layers[number] for number in focusing.todo}
        field = EffectiveField(network.preprocessing, traced, wide, CPU)
        how = network.preprocessing
        told("focus", given.rounds, sum(len(task.rows) for task in looked), {
            "parts": lambda: {
                (layer, row): box
                for task in looked for layer, row, box in field(task, input_pixels(task, how, "stop"))
            },
            "whole": lambda: whole_focus(looked, network, traced, wide),
        })  # fmt: skip
        alone = Crops(how, traced, layers, CPU)
        told("checks", given.rounds, sum(len(task.rows) for task in crops), {
            "parts": lambda: {(layer, row): value for task in crops for layer, row, value, _ in alone(task)},
            "whole": lambda: whole_checks(crops, network, traced, layers),
        })  # fmt: skip


def told(what: str, rounds: int, count: int, ways: Mapping[str, Callable[[], Mapping[Row, object]]]) -> None:
    """Measures both ways and prints what they take and where they differ."""
    found: dict[str, Mapping[Row, object]] = {}
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(name: str) -> Callable[[], None]:
        def go() -> None:
            start = time.thread_time()
            found[name] = ways[name]()
            seconds[name].append(time.thread_time() - start)

        return go

    interleaved({name: timed(name) for name in ways}, rounds, warmup=1)
    each = {name: float(np.median(its[1:])) / count for name, its in seconds.items()}
    ratio = each["whole"] / each["parts"]
    print(f"{what}: {count:,} exemplars, {1e3 * each['parts']:.2f} ms each; whole {1e3 * each['whole']:.2f} ms: "
          f"{ratio:.2f} x (bar {BAR}: {'reached' if ratio >= BAR else 'missed'})")  # fmt: skip
    print(f"  {differing(found['parts'], found['whole'])}")


def differing(some: Mapping[Row, object], others: Mapping[Row, object]) -> str:
    """How far the values of two ways are apart, in words."""
    assert some.keys() == others.keys()
    pairs = [(some[row], others[row]) for row in some]
    if not all(isinstance(value, float) for pair in pairs for value in pair):
        return f"{sum(a != b for a, b in pairs):,} boxes differ"
    values = np.array(pairs)
    apart = np.abs(values[:, 0] - values[:, 1]) / np.maximum(np.abs(values[:, 1]), 1e-3)
    return f"largest relative difference {apart.max():.1e}"


def whole_focus(
    tasks: Iterable[ExemplarTask], network: Network, traced: Traced, layers: Mapping[int, Layer]
) -> dict[Row, Box | None]:
    """The focus of exemplars, layer by layer, in batches of whole images."""
    how, found = network.preprocessing, {}
    normalize = Normalize(how, CPU)
    for number, layer in layers.items():
        below = subnetwork(traced, layer).to(memory_format=torch.channels_last)
        each = []
        for task in tasks:
            if its := np.flatnonzero(task.layers == number).tolist():
                pixels = input_pixels(task, how, "stop")
                each += [(task, at, pixels) for at in its]
        for begin in range(0, len(each), _TOGETHER["focus"]):
            some = each[begin : begin + _TOGETHER["focus"]]
            images = normalize(torch.from_numpy(np.stack([pixels for *_, pixels in some]))).requires_grad_()
            units, y, x = ([int(getattr(task, name)[at]) for task, at, _ in some] for name in ("units", "y", "x"))
            (gradients,) = torch.autograd.grad(below(images)[range(len(some)), units, y, x].sum(), images)
            for (task, at, _), gradient in zip(some, gradients, strict=True):
                field = task.field(at)
                box = smallest_box(energy_of(gradient).numpy()[field.top : field.bottom, field.left : field.right])
                if box is not None:
                    box = Box(
                        box.left + field.left, box.top + field.top, box.right + field.left, box.bottom + field.top
                    )
                    box = original_box(box, task.width, task.height, how)
                found[number, int(task.rows[at])] = box
    return found


def whole_checks(
    tasks: Iterable[CropTask], network: Network, traced: Traced, layers: Mapping[int, Layer]
) -> dict[Row, float]:
    """What crops drive units to, layer by layer, in batches of whole images."""
    how, found = network.preprocessing, {}
    normalize = Normalize(how, CPU)
    for number, layer in layers.items():
        below = subnetwork(traced, layer).to(memory_format=torch.channels_last)
        each = [(task, at) for task in tasks for at in np.flatnonzero(task.layers == number).tolist()]
        for begin in range(0, len(each), _TOGETHER["checks"]):
            some = each[begin : begin + _TOGETHER["checks"]]
            pictures = []
            for task, at in some:
                pixels = task.pixels[task.crops[at]]
                image, _ = pixels.sharp()
                assert image is not None
                pictures.append(shown_alone(image, pixels.box[:2], (task.width, task.height), how))
            with torch.inference_mode():
                output = below(normalize(torch.from_numpy(np.stack(pictures))))
            for place, (task, at) in enumerate(some):
                value = output[place, task.units[at], task.y[at], task.x[at]].item()
                found[number, int(task.rows[at])] = value
    return found


if __name__ == "__main__":
    main()
