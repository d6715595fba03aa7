"""Receptive fields that were found before, in a folder of the user, by a fingerprint of the network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from actmine.pipeline.errors import UserError
from actmine.pipeline.network.computation import constants, settings, tensor_digest
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.storage.files import user_cache, write_bytes
from actmine.pipeline.storage.fingerprint import fingerprint

AxisEntry = tuple[int, int, int | None, int]
"""Length, start, stride and size."""
Entry = tuple[tuple[AxisEntry, AxisEntry], np.ndarray, str | None]
"""Both axes, the bounds, the note."""

_OWN = ("receptive_fields/*.py", "network/layouts.py", "network/*_trace.py")
"""The files that decide what a field is: fields found by other rules are found anew."""


class FieldCache:
    """The file of one network. A cache that cannot be read or written is as good as none."""

    def __init__(self, traced: Traced) -> None:
        self.file = user_cache() / "fields" / f"{network_fingerprint(traced)}.npz"

    def read(self) -> list[tuple[str, Entry]]:
        """What is known, by layer; nothing where the file is not there or damaged."""
        try:
            with np.load(self.file, allow_pickle=False) as arrays:
                words = json.loads(bytes(arrays["words"]).decode())
                return [(word["layer"], _entry(word, arrays[f"bounds{i}"])) for i, word in enumerate(words)]
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return []

    def write(self, entries: Mapping[str, Entry]) -> None:
        """Keeps `entries` for the next time, if the folder lets us."""
        words = [{"layer": layer, "axes": axes, "note": note} for layer, (axes, _, note) in entries.items()]
        arrays = {f"bounds{i}": bounds for i, (_, bounds, _) in enumerate(entries.values())}
        data = io.BytesIO()
        arrays["words"] = np.frombuffer(json.dumps(words).encode(), np.uint8)
        np.savez_compressed(data, **arrays)  # type: ignore[arg-type]
        with suppress(UserError, OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(self.file, data.getvalue())


def _entry(word: dict[str, Any], bounds: np.ndarray) -> Entry:
    rows, columns = (tuple(axis) for axis in word["axes"])
    if len(rows) != 4 or len(columns) != 4 or bounds.ndim != 3 or bounds.dtype != np.int32:
        raise ValueError
    return (rows, columns), bounds, word["note"]


def network_fingerprint(traced: Traced) -> str:
    """Equal for networks whose fields must be equal: their code, settings, shapes and constants, not their weights."""
    module = traced.module
    kinds = sorted({type(part) for part in module.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__))
    return fingerprint(
        {
            "rules": _own_code(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "packages": _versions({kind.__module__.partition(".")[0] for kind in kinds}),
            "sources": _sources(kinds),
            "input": traced.input_shape,
            "network": str(module),
            "graph": str(traced.graph) if traced.graph is not None else None,
            "parameters": [(name, list(each.shape), str(each.dtype)) for name, each in module.named_parameters()],
            "constants": [(name, tensor_digest(each)) for name, each in constants(module)],
            "settings": [(name, settings(part)) for name, part in module.named_modules()],
        }
    )


def _own_code() -> str:
    library = Path(__file__).parents[1]
    files = sorted(file for pattern in _OWN for file in library.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {}
    for package in sorted(packages):
        with suppress(importlib.metadata.PackageNotFoundError, ValueError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _sources(kinds: Iterable[type]) -> list[tuple[str, str]]:
    """The files that define classes of modules, helpers beside them included."""
    found = {}
    for kind in kinds:
        with suppress(OSError, TypeError):  # defined where there is no file
            file = inspect.getsourcefile(kind)
            if file is not None and file not in found:
                found[file] = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return sorted(
        {(kind.__module__ + "." + kind.__qualname__, "") for kind in kinds} | {("", d) for d in found.values()}
    )
