"""What a run records of itself in `run.json`, and the identity that its ledger refuses to mix."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from actmine.pipeline.checked_record import parsed
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.computation import digest
from actmine.pipeline.network.dictionary_layers import described
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.scanning.compute import Compute
from actmine.pipeline.storage.files import alone, write_bytes

_PACKAGES = (
    "actmine",
    "torch",
    "torchvision",
    "numpy",
    "pyarrow",
    "pandas",
    "pillow",
    "webdataset",
    "safetensors",
)
_IF_USED = {"timm"}


def identity(
    dataset: Dataset,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    keep: StatisticsOptions,
    how: Compute,
    decoder: str = "pillow",
    pictures: str = "",
    maps: int = 0,
) -> dict[str, Any]:
    """Everything that the bytes of a scan's tables depend on; nothing else.

    `dependent`, where there are such layers, says what else than the image has a say in them; `dictionaries` what
    latents depend on.
    """
    dependent = {layer.name: layer.dependence for layer in layers if layer.dependence}
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "model": network.name,
        "weights": network.weights,
        "weights_hash": network.weights_hash,
        "computes": digest(traced),
        "preprocessing": network.preprocessing.described(),
        "layers": [layer.name for layer in layers],
        **keep.described(),
        "batch_size": how.batch_size,
        "device": how.device.type,
        "precision": how.precision,
        "compiled": how.compiled,
        "decoder": decoder if decoder == "pillow" else f"{decoder} (not exact)",
        "pictures": pictures,
        "maps": maps,
        **({"dependent": dependent} if dependent else {}),
        **({"dictionaries": latents} if (latents := described(layers, traced)) else {}),
    }


def versions() -> dict[str, str]:
    """Versions of everything that has a say in the numbers."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *_IF_USED.intersection(sys.modules)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed (run from a checkout)"
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """Where it ran."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def read_record(run: Path) -> dict[str, Any]:
    """`run.json`, or nothing where a run has not come that far."""
    file = run / "run.json"
    try:
        return parsed(file.read_bytes(), file)
    except (OSError, UserError):
        return parsed(b"{}", file)  # not there, or not ours: whatever is in the way shows when it is written


def note(run: Path, name: str, about: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Records something of a run beside what is there; `say` hears of waiting for another command."""
    with alone(run, say):
        write_record(run, read_record(run) | {name: dict(about)})


def write_record(run: Path, record: dict[str, Any]) -> None:
    """Writes `run.json` whole or not at all."""
    write_bytes(run / "run.json", json.dumps(record, indent=1).encode() + b"\n")
