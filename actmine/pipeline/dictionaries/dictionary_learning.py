"""Dictionaries of dictionary_learning: a folder with `ae.pt` and `config.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from actmine.pipeline.dictionaries.dictionary import Dictionary, Gated, KLargest, Rectified, Thresholded
from actmine.pipeline.dictionaries.tensors import Checked, refuse_unknown, settings_of, tensors_of
from actmine.pipeline.errors import UserError

CONFIG, WEIGHTS = "config.json", "ae.pt"
_KNOWN = (
    "AutoEncoder, AutoEncoderNew, GatedAutoEncoder, AutoEncoderTopK, BatchTopKSAE, MatryoshkaBatchTopKSAE and "
    "JumpReluAutoEncoder"
)


def is_one(path: Path) -> bool:
    """Whether a folder, or a file in it, is a dictionary of this kind."""
    folder = path if path.is_dir() else path.parent
    return (folder / WEIGHTS).is_file() and (path.is_dir() or path.name in (CONFIG, WEIGHTS))


def read(path: Path) -> Dictionary:
    """The dictionary in a folder. Raises `UserError` for what is damaged, and for a variant that is not known."""
    folder = path if path.is_dir() else path.parent
    config = folder / CONFIG
    if not config.is_file():
        raise UserError(f"DICTIONARY: {folder} has {WEIGHTS}, but no {CONFIG} that says of which kind it is.")
    trainer = settings_of(config).get("trainer")
    kind = trainer.get("dict_class") if isinstance(trainer, dict) else None
    tensors = Checked(folder / WEIGHTS, tensors_of(folder / WEIGHTS))
    if kind in ("MatryoshkaBatchTopKSAE", "JumpReluAutoEncoder"):
        made = _of_matrices(tensors, kind)
    elif kind in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE"):
        made = _of_modules(tensors, kind)
    else:
        raise refuse_unknown(config, "dict_class", kind, _KNOWN)
    tensors.end()
    return made


def _of_modules(tensors: Checked, kind: str) -> Dictionary:
    """Of kinds whose encoder and decoder are linear modules, `[latents, width]` and `[width, latents]`."""
    encoder = tensors("encoder.weight", None, None).t()
    width, latents = encoder.shape
    decoder = tensors("decoder.weight", width, latents).t()
    rest: dict[str, Any] = {"decoder": decoder}
    if kind == "GatedAutoEncoder":
        rest["before"] = rest["after"] = tensors("decoder_bias", width)
        scale, magnitude = tensors("r_mag", latents).exp(), tensors("mag_bias", latents)
        return Gated(encoder, scale, magnitude, tensors("gate_bias", latents), **rest)
    bias = tensors("encoder.bias", latents)
    if kind == "AutoEncoderNew":
        return Rectified(encoder, bias, after=tensors("decoder.bias", width), **rest)
    after = tensors("bias" if kind == "AutoEncoder" else "b_dec", width)
    rest |= {"before": after, "after": after}
    if kind == "AutoEncoder":  # its library makes the decoder's rows of length one as it loads them
        norms = decoder.norm(dim=1)
        return Rectified(encoder * norms, bias * norms, **{**rest, "decoder": decoder / norms[:, None]})
    if kind == "AutoEncoderTopK":
        tensors.ignore("threshold")
        return KLargest(encoder, int(tensors.number("k")), bias, **rest)
    tensors.ignore("k")
    return Thresholded(encoder, torch.full((latents,), tensors.number("threshold")), bias, **rest)


def _of_matrices(tensors: Checked, kind: str) -> Dictionary:
    """Of kinds that keep their matrices as they are."""
    encoder = tensors("W_enc", None, None)
    width, latents = encoder.shape
    decoder, bias, after = tensors("W_dec", latents, width), tensors("b_enc", latents), tensors("b_dec", width)
    if kind == "JumpReluAutoEncoder":
        return Thresholded(encoder, tensors("threshold", latents), bias, decoder=decoder, after=after)
    tensors.ignore("k", "group_sizes", "group_indices", "active_groups")
    threshold = torch.full((latents,), tensors.number("threshold"))
    return Thresholded(encoder, threshold, bias, after, decoder, after)
