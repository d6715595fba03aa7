"""Tensors and settings of a dictionary's files: read without running anything, and checked by shape."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from actmine.pipeline.errors import UserError, first_line, listed

Tensors = Mapping[str, Tensor]
_NO_PICKLE = (
    "Only tensors are read, never a pickle that runs code. Where you trust the file, write them out once: "
    'safetensors.torch.save_file({"W_enc": …, "b_enc": …, "W_dec": …, "b_dec": …}, "dictionary.safetensors").'
)


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, mapped into memory, or of one that `torch.save` wrote.

    Raises `UserError` for a file that is damaged, or holds more than tensors.
    """
    if path.suffix != ".safetensors":
        return unpickled(path, path.read_bytes())
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"DICTIONARY: {path} is no whole file of tensors ({first_line(error)}).") from error


def unpickled(path: Path, data: bytes) -> dict[str, Tensor]:
    """Tensors by name that `torch.save` wrote as bytes. Raises `UserError` for whatever else they hold."""
    try:
        found: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, OSError, AttributeError) as error:
        raise UserError(f"DICTIONARY: {path} cannot be read ({first_line(error).rstrip('.')}). {_NO_PICKLE}") from error
    if isinstance(found, Tensor):
        return {"directions": found}
    if not isinstance(found, Mapping) or not all(isinstance(each, Tensor) for each in found.values()):
        raise UserError(f"DICTIONARY: {path} holds other things than tensors by name. {_NO_PICKLE}")
    return dict(found)


def settings_of(path: Path) -> dict[str, Any]:
    """What a JSON file says. Raises `UserError` where it says nothing by names."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"DICTIONARY: {path} is no whole JSON file ({first_line(error)}).") from error
    if not isinstance(found, dict):
        raise UserError(f"DICTIONARY: {path} does not hold settings by name.")
    return found


class Checked:
    """Tensors of one file, each asked for by name and shape; what is left over is refused."""

    def __init__(self, path: Path, tensors: Tensors) -> None:
        self.path, self._left = path, dict(tensors)
        self.has = frozenset(tensors)

    def __call__(self, name: str, *shape: int | None) -> Tensor:
        """A tensor as float32; a None in `shape` is any length, no shape at all any shape. Raises `UserError`."""
        if name not in self._left:
            raise UserError(f"DICTIONARY: {self.path} has no tensor {name!r}; it has {listed(sorted(self.has))}.")
        found = self._left.pop(name)
        wanted = "x".join("any" if each is None else str(each) for each in shape)
        fits = len(shape) == found.dim() and all(
            each in (None, size) for each, size in zip(shape, found.shape, strict=False)
        )
        if shape and not fits:
            raise UserError(f"DICTIONARY: {name} of {self.path} has the shape {list(found.shape)}, not {wanted}.")
        if not found.is_floating_point():
            raise UserError(f"DICTIONARY: {name} of {self.path} holds {found.dtype}, not real numbers.")
        return found.to(torch.float32)

    def number(self, name: str) -> float:
        """A tensor of one number, whatever its type."""
        found = self._left.pop(name)
        if found.numel() != 1:
            raise UserError(f"DICTIONARY: {name} of {self.path} has the shape {list(found.shape)}, not one number.")
        return float(found.item())

    def ignore(self, *names: str) -> None:
        """Tensors that say nothing about how latents are made."""
        for name in names:
            self._left.pop(name, None)

    def end(self) -> None:
        """Raises `UserError` for tensors that nobody asked for: they may change what latents are."""
        if self._left:
            raise UserError(
                f"DICTIONARY: {self.path} has tensors that this kind of dictionary knows no use for: "
                f"{listed(sorted(self._left))}. Convert it to a kind that docs/guides/directions.md lists."
            )


def refuse_unknown(path: Path, what: str, value: object, known: object) -> UserError:
    """An error about a setting that is not known: nothing is approximated."""
    return UserError(f"DICTIONARY: {path} says {what} {value!r}, which is not known. Known are {known}.")
