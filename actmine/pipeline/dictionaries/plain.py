"""Dictionaries in one file of tensors: an encoder by the usual names, or a matrix of directions `[n, d]`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from actmine.pipeline.dictionaries.dictionary import Dictionary, KLargest, Rectified, Thresholded
from actmine.pipeline.dictionaries.tensors import Checked, tensors_of
from actmine.pipeline.errors import UserError, first_line

SUFFIXES = (".safetensors", ".npy", ".pt", ".pth", ".bin")
_MATRICES = ("directions", "weight", "components", "W", "vectors")
_MOST_NAMES = 1 << 26  # bytes


def is_one(path: Path) -> bool:
    """Whether a file may be one."""
    return path.is_file() and path.suffix in SUFFIXES


def read(path: Path) -> Dictionary:
    """The dictionary in a file. Raises `UserError` for what is damaged, or cannot be told.

    With `W_enc` it is an encoder: of the tensors beside it `threshold` makes it a JumpReLU, `k` a TopK, nothing a ReLU;
    `b_pre` is taken from vectors first, `b_dec` is not. With one matrix alone its rows are directions, each a unit that
    is the product with it, plus `bias` if there is one. Names of rows are the lines of FILE.txt beside it, or a JSON
    list under `names` in a safetensors' metadata.
    """
    if path.suffix == ".npy":
        try:
            found = torch.from_numpy(np.load(path, allow_pickle=False))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"DICTIONARY: {path} is no whole array of numbers ({first_line(error)}).") from error
        tensors = Checked(path, {"directions": found})
    else:
        tensors = Checked(path, tensors_of(path))
    made = _encoder(tensors) if "W_enc" in tensors.has else _directions(path, tensors)
    tensors.end()
    names = _names(path)
    if names and len(names) != made.latents:
        raise UserError(f"DICTIONARY: {path} has {made.latents} directions, and {len(names)} names.")
    made.names = names
    return made


def _encoder(tensors: Checked) -> Dictionary:
    encoder = tensors("W_enc", None, None)
    width, latents = encoder.shape

    def maybe(name: str, *shape: int) -> torch.Tensor | None:
        return tensors(name, *shape) if name in tensors.has else None

    rest = (maybe("b_enc", latents), maybe("b_pre", width), maybe("W_dec", latents, width), maybe("b_dec", width))
    if "k" in tensors.has:
        return KLargest(encoder, int(tensors.number("k")), *rest)
    if "threshold" in tensors.has:
        return Thresholded(encoder, tensors("threshold", latents), *rest)
    return Rectified(encoder, *rest)


def _directions(path: Path, tensors: Checked) -> Dictionary:
    names = [name for name in _MATRICES if name in tensors.has] or sorted(tensors.has - {"bias"})
    if len(names) != 1:
        raise UserError(
            f"DICTIONARY: {path} has {', '.join(sorted(tensors.has)[:6]) or 'no tensors'}. It should hold an encoder "
            "(W_enc [d, n], b_enc, W_dec, b_dec) or one matrix of directions [n, d] (directions)."
        )
    rows = tensors(names[0], None, None)
    bias = tensors("bias", len(rows)) if "bias" in tensors.has else None
    return Dictionary(rows.t(), bias)


def _names(path: Path) -> tuple[str, ...]:
    """What the rows are called, if anything says so."""
    beside = path.with_suffix(".txt")
    if beside.is_file() and beside.stat().st_size < _MOST_NAMES:
        return tuple(line.strip() for line in beside.read_text("utf-8", "replace").splitlines())
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get("names", "")
        try:
            found = json.loads(said) if said else []
        except ValueError:
            found = None
        if not isinstance(found, list):
            raise UserError(f"DICTIONARY: the names in the metadata of {path} are no JSON list.")
        return tuple(map(str, found))
    return ()
