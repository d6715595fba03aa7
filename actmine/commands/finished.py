"""What commands on a finished run share: its network, the layers and units that are meant, and who does the work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.shared import EngineName
from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.ascent.generators import load_generator
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.ascent.presets.gan_prior import with_generator
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.choose import choose_layers, choose_units, parse_units
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.engines.ray import RayEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.mined_network import mined_network, mined_trace
from actmine.pipeline.network.devices import compute_exactly, pick_device
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.run import Run


@dataclass(frozen=True, slots=True)
class Asked:
    """A run with its network again, and what is asked for: `layers`, and of each by name its `units`."""

    run: Run
    network: Network
    traced: Traced
    layers: list[Layer]
    units: dict[str, list[int]]

    @property
    def count(self) -> int:
        """How many units are asked for."""
        return sum(map(len, self.units.values()))


def asked(run: Run, layers: str, units: str = "", weights: str = "", live: Live = NOTHING_LIVE) -> Asked:
    """What LAYERS (names and globs) and UNITS (numbers and spans) mean of a run; empty means all.

    Its network is loaded again, or is the `live` one.

    Raises `UserError` for what the run does not have, and where its network cannot be loaded again.
    """
    names = choose_layers(run, [name.strip() for name in layers.split(",") if name.strip()])
    chosen = choose_units(run, names, parse_units(units) if units.strip() else None, None)
    network = mined_network(run, weights, live.module, live.transform)
    traced = mined_trace(run, network, live.latents())
    at = traced.choose(",".join(name for name in names if chosen[name]), bool(run.record.get("dependent")))
    return Asked(run, network, traced, at, {name: list(numbers) for name, numbers in chosen.items()})


def recipe_of(preset: str, generator: str) -> Preset:
    """The preset called so, with what PRESET=gan-prior draws with. Raises `UserError` for what is not there."""
    return with_generator(find_preset(preset), load_generator(generator) if generator else None)


def prepared(engine: EngineName, device: str) -> torch.device:
    """Readies this process for exact work, and gives its own device; Ray's workers have theirs.

    Raises `UserError` for a device that is not there.
    """
    keep_freed_memory()
    compute_exactly()
    return pick_device(device if engine is EngineName.local else "cpu")


def workforce(
    engine: EngineName, device: str, place: torch.device, worker_cores: int, block_seconds: float, display: Display,
    workers: int = 0,
) -> LocalEngine | RayEngine:  # fmt: skip
    """This process on its `prepared` place, or a Ray cluster, which is begun here: to be used in `with` at once."""
    if engine is EngineName.ray:
        return RayEngine(device, worker_cores, block_seconds, display)
    return LocalEngine(place, workers)


def mined_dataset(run: Run, dataset: str, data: Path, live: Live, display: Display) -> Dataset:
    """The dataset that a run was mined over, where it is now (`dataset`; empty: where it was), or the `live` one.

    Raises `UserError` where it is not there, or another.
    """
    asked = run.record.get("asked", {})
    word = dataset or asked.get("dataset", "")
    if live.dataset is None and not word:
        raise UserError(f"{run.path} does not say where its dataset is. Say DATASET=….")
    root = Path(asked["data"]) if not dataset and asked.get("data") else data
    found = live.dataset or find_dataset(word, root, display)
    if found.fingerprint != run.record["dataset_fingerprint"]:
        raise UserError(f"{word or found.name} is not what {run.path} was mined over: its files are others.")
    return found
