"""Checkpoints of saev: a line of JSON, then the tensors as `torch.save` writes them.

Its versions differ: the first one took b_dec from a vector before it was encoded, later ones do not; its TopK keeps
what is below zero, its BatchTopK of schemas 3 to 5 has a threshold for use and is a TopK of each vector before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from actmine.pipeline.dictionaries.dictionary import Dictionary, KLargest, Rectified, Thresholded
from actmine.pipeline.dictionaries.tensors import Checked, refuse_unknown, unpickled
from actmine.pipeline.errors import UserError

_SCHEMAS = (1, 2, 3, 4, 5)
_LONGEST = 1 << 20


def is_one(path: Path) -> bool:
    """Whether a file begins with a line of JSON."""
    if not path.is_file() or path.suffix == ".safetensors":  # whose first byte may be anything
        return False
    with path.open("rb") as file:
        return file.read(1) == b"{"


def read(path: Path) -> Dictionary:
    """The dictionary in a file. Raises `UserError` for what is damaged, and for a variant that is not known."""
    with path.open("rb") as file:
        line, data = file.readline(_LONGEST), file.read()
    try:
        header: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"DICTIONARY: the first line of {path} is no whole JSON.") from error
    schema = header.get("schema")
    if schema is not None and schema not in _SCHEMAS:
        raise refuse_unknown(path, "schema", schema, ", ".join(map(str, _SCHEMAS)))
    tensors = Checked(path, unpickled(path, data))
    encoder = tensors("W_enc", None, None)
    width, latents = encoder.shape
    decoder, after, bias = tensors("W_dec", latents, width), tensors("b_dec", width), tensors("b_enc", latents)
    rest: dict[str, Any] = {"decoder": decoder, "after": after}
    if schema is None:
        made: Dictionary = Rectified(encoder, bias, before=after, **rest)
    else:
        kind, k = _activation(path, header)
        if kind == "Relu":
            made = Rectified(encoder, bias, **rest)
        elif kind == "BatchTopK" and "activation.threshold" in tensors.has:
            threshold = max(tensors.number("activation.threshold"), 0.0)
            made = Thresholded(encoder, torch.full((latents,), threshold), bias, **rest)
        elif kind == "BatchTopK" and schema > 2:
            raise UserError(f"DICTIONARY: {path} is a BatchTopK without its threshold, so that it cannot be used.")
        elif kind in ("TopK", "BatchTopK"):
            made = KLargest(encoder, k, bias, rectifies=False, **rest)
        else:
            raise refuse_unknown(path, "activation", kind, "Relu, TopK and BatchTopK")
    tensors.end()
    return made


def _activation(path: Path, header: dict[str, Any]) -> tuple[str, int]:
    """The activation that a header names, and its k."""
    said, kind = header.get("cfg"), header.get("cls", "")
    if not isinstance(said, dict):
        raise UserError(f"DICTIONARY: the first line of {path} has no settings (cfg).")
    about = said.get("activation")
    if header["schema"] == 1 and not about:
        kind, parameters = ("Relu" if kind in ("", "SparseAutoencoderConfig") else kind), said
    elif isinstance(about, dict) and isinstance(about.get("params"), dict):
        kind, parameters = about.get("cls"), about["params"]
    else:
        raise UserError(f"DICTIONARY: the first line of {path} does not say the activation.")
    k = parameters.get("top_k", 32)
    if not isinstance(k, int) or k < 1:
        raise refuse_unknown(path, "top_k", k, "numbers from 1")
    return str(kind), k
