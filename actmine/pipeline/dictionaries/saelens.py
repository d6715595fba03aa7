"""Dictionaries as SAELens keeps them: a folder with `cfg.json` and `sae_weights.safetensors`.

Conventions are those of its version 6; configurations before it are read with the defaults that it gives them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from actmine.pipeline.dictionaries.dictionary import (
    CONSTANT_NORM,
    LAYER_NORM,
    NONE,
    Dictionary,
    Gated,
    KLargest,
    Rectified,
    Thresholded,
)
from actmine.pipeline.dictionaries.tensors import Checked, refuse_unknown, settings_of, tensors_of
from actmine.pipeline.errors import UserError, listed

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_FOLDED = ("expected_average_only_in", "covariance_whitening")  # only in training: folded into the weights since
_BY_THRESHOLD = ("jumprelu", "batchtopk", "matryoshka_batchtopk")
_KNOWN = ("standard", "gated", "topk", *_BY_THRESHOLD)
_LEAST_NORM = 1e-8
_OLD_NAMES = {"activation_fn_str": "activation_fn", "hook_point": "hook_name"}


def is_one(path: Path) -> bool:
    """Whether a folder, or a file in it, is a dictionary of this kind."""
    folder = path if path.is_dir() else path.parent
    return (folder / CONFIG).is_file() and (path.is_dir() or path.name in (CONFIG, WEIGHTS))


def read(path: Path) -> Dictionary:
    """The dictionary in a folder. Raises `UserError` for what is damaged, and for a variant that is not known."""
    folder = path if path.is_dir() else path.parent
    config, weights = folder / CONFIG, folder / WEIGHTS
    said = _as_of_now(settings_of(config))
    if not weights.is_file():
        raise UserError(f"DICTIONARY: {folder} has {CONFIG}, but no {WEIGHTS}.")
    kind = said.get("architecture", "standard")
    if kind not in _KNOWN:
        raise refuse_unknown(config, "architecture", kind, listed(list(_KNOWN), most=9))
    _refuse_options(config, said, kind)
    tensors = Checked(weights, tensors_of(weights))
    encoder = tensors("W_enc", _count(config, said, "d_in"), _count(config, said, "d_sae"))
    width, latents = encoder.shape
    decoder, after = tensors("W_dec", latents, width), tensors("b_dec", width)
    if said.get("finetuning_scaling_factor") and "finetuning_scaling_factor" in tensors.has:
        raise UserError(f"DICTIONARY: {config} has a finetuning_scaling_factor, which is not known. Fold it first.")
    tensors.ignore("finetuning_scaling_factor")
    before = after if said.get("apply_b_dec_to_input", True) else None
    normalization = said.get("normalize_activations", NONE)
    rest: dict[str, Any] = {
        "before": before, "decoder": decoder, "after": after,
        "normalization": NONE if normalization in _FOLDED else normalization,
    }  # fmt: skip
    if kind == "gated":
        scale, magnitude = tensors("r_mag", latents).exp(), tensors("b_mag", latents)
        made: Dictionary = Gated(encoder, scale, magnitude, tensors("b_gate", latents), **rest)
    else:
        bias = tensors("b_enc", latents)
        if said.get("rescale_acts_by_decoder_norm", False):  # as if the decoder's rows were of length one
            norms = decoder.norm(dim=-1)
            if float(norms.min()) < _LEAST_NORM:
                raise UserError(f"DICTIONARY: {weights} is scaled by its decoder, some of whose rows are 0.")
            encoder, bias = encoder * norms, bias * norms
            rest["decoder"] = decoder / norms[:, None]
        if "topk_threshold" in tensors.has:  # of training
            made = Thresholded(encoder, torch.full((latents,), tensors.number("topk_threshold")), bias, **rest)
        elif kind in _BY_THRESHOLD:
            made = Thresholded(encoder, tensors("threshold", latents), bias, **rest)
        elif kind == "topk":
            made = KLargest(encoder, _count(config, said, "k"), bias, **rest)
        else:
            made = Rectified(encoder, bias, **rest)
    tensors.end()
    return made


def written_as(dictionary: KLargest, metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A top-k dictionary as this library keeps it: its `cfg.json`, and its tensors by name."""
    config = {
        "architecture": "topk", "d_in": dictionary.width, "d_sae": dictionary.latents, "k": dictionary.k,
        "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": dictionary.before is not None,
        "normalize_activations": dictionary.normalization, "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False, "metadata": {"sae_lens_version": "6.0.0", **metadata},
    }  # fmt: skip
    tensors = {
        "W_enc": dictionary.encoder, "b_enc": dictionary.bias, "W_dec": dictionary.decoder, "b_dec": dictionary.after
    }  # fmt: skip
    return config, tensors


def _as_of_now(said: dict[str, Any]) -> dict[str, Any]:
    """Settings of a version before 6.0, as version 6 takes them."""
    said = {_OLD_NAMES.get(name, name): value for name, value in said.items()}
    version = said.get("sae_lens_version") or (said.get("metadata") or {}).get("sae_lens_version") or ""
    if str(version).partition(".")[0].isdigit() and int(str(version).partition(".")[0]) >= 6:
        return said
    k = (said.get("activation_fn_kwargs") or {}).get("k")
    if said.get("activation_fn") == "topk" and k is not None:
        said |= {"architecture": "topk", "k": k}
    normalization = said.get("normalize_activations")
    if normalization is None or isinstance(normalization, bool):
        said["normalize_activations"] = "expected_average_only_in" if normalization else NONE
    if "reshape_activations" not in said and "hook_z" in str(said.get("hook_name", "")):
        said["reshape_activations"] = "hook_z"
    return said


def _refuse_options(config: Path, said: dict[str, Any], kind: str) -> None:
    normalization = said.get("normalize_activations", NONE)
    if normalization not in (NONE, LAYER_NORM, CONSTANT_NORM, *_FOLDED):
        known = listed([NONE, LAYER_NORM, CONSTANT_NORM, *_FOLDED])
        raise refuse_unknown(config, "normalize_activations", normalization, known)
    activation = said.get("activation_fn", "relu")
    if activation not in ("relu", "topk") or ((activation == "topk") and kind != "topk"):
        raise refuse_unknown(config, "activation_fn", activation, "relu, and topk of k latents")
    if kind in ("standard", "gated", "jumprelu") and said.get("rescale_acts_by_decoder_norm"):
        raise refuse_unknown(config, "rescale_acts_by_decoder_norm of", kind, "topk and batchtopk")
    if said.get("reshape_activations", NONE) not in (NONE, None):
        raise UserError(
            f"DICTIONARY: {config} is of the heads of an attention (reshape_activations "
            f"{said['reshape_activations']}), whose vectors are no units of a layer."
        )


def _count(config: Path, said: dict[str, Any], name: str) -> int:
    found = said.get(name)
    if not isinstance(found, int) or found < 1:
        raise UserError(f"DICTIONARY: {config} gives no number for {name}.")
    return found
