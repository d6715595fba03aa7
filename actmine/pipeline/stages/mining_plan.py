"""What mining is going to do: its stages, about how long each takes and what it writes; and how far the whole is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.errors import is_memory_full
from actmine.pipeline.exemplars.crops import NONE, ORIGINAL
from actmine.pipeline.exemplars.maps import MOST_CELLS
from actmine.pipeline.network.devices import free, let_go
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.twin import on_device
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.progress import Progress, duration
from actmine.pipeline.readings.sketches import Sketches
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.stages.drawing_plan import SECONDS
from actmine.pipeline.stages.mine import MineSettings

# Measured (docs/benchmarks.md), on one core: what decoding an image takes; writing an exemplar, and a unit; a sheet
_DECODE, _AN_EXEMPLAR, _A_UNIT, _A_SHEET = 0.0045, 4e-5, 8e-4, 0.2
_A_PAIR = 1.2e-8  # comparing two units
# Bytes that a picture, an exemplar, a unit, a unit's sketch and a drawn picture take; a map about half of its cells
_PICTURE, _EXEMPLAR, _UNIT, _SKETCH, _DRAWN, _SHEET = 70_000, 25, 400, 4_000, 56_000, 1_800_000
_AT_ONCE = {"cpu": 4, "cuda": 64}  # images of the batch that is timed


@dataclass(frozen=True, slots=True)
class Planned:
    """A stage: by what `titles` progress calls it, what it `does`, to how many, about how long (seconds), and how much
    it writes (bytes); `without` says how to leave it out."""

    titles: tuple[str, ...]
    does: str
    count: int
    of: str
    seconds: float
    nbytes: int
    without: str = ""


def seconds_an_image(network: Network, traced: Traced, layers: Sequence[Layer], device: torch.device) -> float:
    """What reading `layers` of one image takes a core or a GPU: a small batch of black, the second time (seconds)."""
    tapped = on_device(TappedNetwork(traced, layers).network, device)
    count = _AT_ONCE.get(device.type, 4)
    try:
        while True:
            try:
                return _timed(tapped, network.preprocessing, count, device)
            except RuntimeError as error:
                if count == 1 or not is_memory_full(error):
                    raise
            free()
            count //= 2
    finally:
        del tapped
        if device.type != "cpu":
            let_go()


def _timed(tapped: nn.Module, how: Preprocessing, count: int, device: torch.device) -> float:
    """Seconds an image of a batch of `count` black ones takes the second time."""
    threads = torch.get_num_threads()
    black = torch.zeros(count, *how.size, how.channels, dtype=torch.uint8, device=device)
    seconds = 0.0
    torch.set_num_threads(1)
    try:
        for _ in range(2):
            start = time.perf_counter()
            with torch.inference_mode():
                found = tapped(Normalize(how, device)(black).contiguous(memory_format=torch.channels_last))
                float(found[0].sum())  # waits for a GPU
            seconds = (time.perf_counter() - start) / count
    finally:
        torch.set_num_threads(threads)
    return seconds


def mining_plan(
    dataset: Dataset,
    layers: Sequence[Layer],
    settings: MineSettings,
    an_image: float,
    device: torch.device,
    drawing: float = 0.0,
    sheets: int = 0,
) -> list[Planned]:
    """The stages of mining in their order, of a dataset whose size is about known.

    `an_image` is what `seconds_an_image` measured, `drawing` what drawing all units is estimated at (seconds; 0: none
    are drawn), `sheets` how many sheets and overviews there will be. Estimates are good to a factor of two or three.
    """
    cores, keep, images = usable_cores(), settings.keep, dataset.about
    units = sum(layer.units for layer in layers)
    ends = 2 if keep.direction == "both" else 1
    exemplars = units * (
        min(keep.topk, images) * ends
        + len(keep.bands) * min(keep.band_images, images)
        + min(keep.random_images, images)
    )
    own = cores if device.type == "cpu" else 1
    look = max(an_image, _DECODE / cores) if device.type == "cuda" else (an_image + _DECODE) / own
    winning = min(images, exemplars)
    mapped = sum(
        layer.units * min(layer.height * (layer.width or 1), MOST_CELLS**2) for layer in layers if layer.height
    )
    file = dataset.nbytes // max(images, 1)
    kept = winning * {NONE: 0, ORIGINAL: file}.get(settings.pictures, min(file, _PICTURE))
    maps = settings.maps * ends * mapped // 2
    words = "pictures, maps" if maps and kept else "maps" if maps else "pictures"
    found = [Planned(("Scanning",), "scan", images, "images", images * look, 0)]
    if maps or kept:
        seconds = winning * (look if maps else _DECODE / cores)
        found.append(Planned(("Keeping pictures",), words, winning, "images", seconds, kept + maps, "--maps 0"))
    seconds = (exemplars * _AN_EXEMPLAR + units * _A_UNIT) / cores
    sketched = _SKETCH * units if keep.sketch and Sketches.fit(units) else 0
    found.append(Planned(("Writing tables",), "tables", len(layers), "layers", seconds,
                         exemplars * _EXEMPLAR + units * _UNIT + sketched))  # fmt: skip
    if sketched:
        alike = ("Finding units alike",)
        found.append(Planned(alike, "units alike", units, "units", units**2 * _A_PAIR / cores, 0, "--sketch 0"))
    if drawing:
        share = min(1.0, SECONDS / drawing)
        found.append(Planned(("Drawing",), "visualizations", round(units * share), "units", drawing * share,
                             round(units * share) * _DRAWN, "--no-visualize"))  # fmt: skip
    if sheets:
        found.append(Planned(("overviews", "sheets"), "overviews, sheets", sheets, "pictures",
                             sheets * _A_SHEET / cores, sheets * _SHEET, "--no-sheets"))  # fmt: skip
    return found


class Overall:
    """A `Progress` that also says how long all that is planned will still take, corrected by how long it has taken."""

    def __init__(self, shown: Progress, planned: Sequence[Planned]) -> None:
        self._shown, self._planned = shown, planned
        self._factor = 1.0

    def say(self, sentence: str) -> None:
        """One line for the person watching."""
        self._shown.say(sentence)

    @contextmanager
    def stage(self, name: str, total: int | None, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
        """As `Progress.stage`, with the time left in all behind the note."""
        at = next((number for number, each in enumerate(self._planned) if name in each.titles), None)
        start, count, known = time.monotonic(), done, total
        with self._shown.stage(name, total, unit, done) as advance:

            def counted(more: int, note: str = "", total: int | None = None) -> None:
                nonlocal count, known
                count, known = count + more, known if total is None else total
                seconds = time.monotonic() - start
                left = seconds * (known - count) / (count - done) if known and count > done else None
                if at is not None and left is not None and seconds > 1:
                    if at == 0 and (expected := self._planned[0].seconds) > 0:
                        self._factor = min(max((seconds + left) / expected, 0.1), 30.0)
                    rest = sum(each.seconds for each in self._planned[at + 1 :]) * self._factor
                    if rest > 1:
                        note = ", ".join(filter(None, [note, f"{duration(left + rest)} left in all"]))
                advance(more, note, total)

            yield counted
