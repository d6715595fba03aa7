"""DICTIONARY: layers whose units are the latents of a dictionary on another layer's tensor, called `LAYER:NAME`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.dictionaries.files import read_dictionary
from actmine.pipeline.dictionaries.of_code import ByCode
from actmine.pipeline.errors import UserError
from actmine.pipeline.network import factories
from actmine.pipeline.network.encoded import has_tokens, pooled
from actmine.pipeline.network.grids import grids
from actmine.pipeline.network.layer import POOLS, Latents
from actmine.pipeline.network.layers import Layer, Traced

GIVEN = "as it was given"
"""What stands for the file of a dictionary that somebody holds."""
ALL, PATCH, CLASS = "all", "patch", "cls"
TOKENS = (ALL, PATCH, CLASS)
"""Which tokens a dictionary encodes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A dictionary as it is asked for: of which layer, called how (empty: as its file), where it is.

    `what` is a path, a `package.module:factory`, or an object: a matrix of directions `[n, d]`, or a module with
    `encode`. `tokens` is one of `TOKENS` or empty, `pool` one of `POOLS`.
    """

    layer: str
    name: str
    what: Any
    tokens: str = ""
    pool: str = "max"


def parse_dictionaries(word: str, tokens: str = "", pool: str = "max") -> list[Asked]:
    """What DICTIONARY says: `LAYER=PATH` or `LAYER:NAME=PATH`, several behind commas. Raises `UserError`.

    `pool` may also be `cls`: the class token alone.
    """
    tokens, pool = _which(tokens, pool)
    found = []
    for part in filter(None, (each.strip() for each in word.split(","))):
        layer, sign, what = (each.strip() for each in part.partition("="))
        if not (layer and sign and what):
            raise UserError(f"DICTIONARY={part!r}: say LAYER=PATH, as layer4.1=saes/layer4; several behind commas.")
        layer, _, name = layer.partition(":")
        where = what if is_code(what) else os.path.abspath(what)
        found.append(Asked(layer, name, where, tokens, pool))
    return found


def of_objects(given: Mapping[str, Any], tokens: str = "", pool: str = "max") -> list[Asked]:
    """Dictionaries that somebody holds, by `LAYER` or `LAYER:NAME`; each a path or an object."""
    tokens, pool = _which(tokens, pool)
    found = []
    for key, what in given.items():
        layer, _, name = key.partition(":")
        if isinstance(what, str | Path):
            found += parse_dictionaries(f"{key}={what}", tokens, pool)
        else:
            found.append(Asked(layer, name, what, tokens, pool))
    return found


def _which(tokens: str, pool: str) -> tuple[str, str]:
    """TOKENS and POOL, checked."""
    if pool == CLASS:
        tokens, pool = CLASS, "max"
    if tokens not in ("", *TOKENS):
        raise UserError(f"TOKENS={tokens!r} is one of {', '.join(TOKENS)}.")
    if pool not in POOLS:
        raise UserError(f"POOL={pool!r} is one of {', '.join(POOLS)} and {CLASS}.")
    return tokens, pool


def attach(traced: Traced, asked: Iterable[Asked]) -> None:
    """Adds the layers of dictionaries to those that can be chosen. Raises `UserError` for what does not fit."""
    for each in asked:
        layer = _layer(traced, each.layer)
        dictionary = _made(each, layer)
        name = f"{layer.name}:{each.name or _name_of(each.what, dictionary)}"
        if name in traced.dictionaries:
            raise UserError(f"DICTIONARY: there are two called {name}. Say LAYER:NAME=PATH to tell them apart.")
        if dictionary.width != layer.units:
            raise UserError(
                f"DICTIONARY: {_said(each)} is of vectors of {dictionary.width} numbers, and {layer.name} has "
                f"{layer.units} units."
            )
        traced.dictionaries[name] = dictionary
        traced.latent_layers.append(_latents(traced, layer, name, dictionary, each))


def recorded(record: Mapping[str, Any], given: Iterable[Asked] = ()) -> list[Asked]:
    """The dictionaries that a run's record names, for `attach`; those that are `given` anew in place of their files."""
    anew = {f"{each.layer}:{each.name}": each.what for each in given}
    read = record.get("asked", {}).get("dictionaries", {})
    found = []
    for name, about in record.get("dictionaries", {}).items():
        layer, _, short = name.rpartition(":")
        found.append(Asked(layer, short, anew.get(name, read.get(name, GIVEN)), about["tokens"], about["pool"]))
    return found


def latents_of(traced: Traced, layer: Layer, tokens: str = "") -> Latents:
    """Which vectors of a layer a dictionary that is yet to be made is of. Raises `UserError` as `attach` does."""
    if not has_tokens(layer):
        return Latents(layer, "")
    first, count, said = _tokens(traced, layer, Asked(layer.name, "", "", tokens))
    return Latents(layer, "", first, count, tokens=said)


def described(layers: Iterable[Layer], traced: Traced) -> dict[str, dict[str, Any]]:
    """What the latents of layers depend on, by the layer's name: for a run's identity."""
    return {
        layer.name: {
            "kind": traced.dictionaries[layer.name].kind, "digest": traced.dictionaries[layer.name].digest(),
            "tokens": layer.latents.tokens, "pool": layer.latents.pool,
        }
        for layer in layers
        if layer.latents is not None
    }  # fmt: skip


def rectified_spans(traced: Traced, layers: Iterable[Layer]) -> tuple[tuple[int, int], ...]:
    """Which units of all `layers`, counted on from layer to layer, are latents that are 0 where they do not fire."""
    found, first = [], 0
    for layer in layers:
        if layer.latents is not None and traced.dictionaries[layer.name].rectified:
            found.append((first, first + layer.units))
        first += layer.units
    return tuple(found)


def origins(layers: Iterable[Layer]) -> dict[str, str]:
    """Where the dictionary of each layer was read, by the layer's name: for a run to read it again."""
    return {layer.name: layer.latents.origin for layer in layers if layer.latents is not None}


def is_code(what: str) -> bool:
    """Whether a dictionary is named as `package.module:factory`."""
    return bool(re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", what)) and not os.path.exists(what)


def _said(asked: Asked) -> str:
    return asked.what if isinstance(asked.what, str) else f"the one given for {asked.layer}"


def _layer(traced: Traced, name: str) -> Layer:
    if any(sign in name for sign in "*?["):
        raise UserError(f"DICTIONARY: {name!r} is a glob; a dictionary is of one layer. Say its name.")
    (layer,) = traced.choose(name, dependent=True)
    return layer


def _made(asked: Asked, layer: Layer) -> Dictionary:
    what = asked.what
    if isinstance(what, Dictionary):
        return what.eval()
    if isinstance(what, Tensor):
        if what.dim() != 2 or not what.is_floating_point():
            raise UserError(f"DICTIONARY: a matrix of directions is [n, {layer.units}], not {list(what.shape)}.")
        return Dictionary(what.detach().float().cpu().t())
    if isinstance(what, str) and is_code(what):
        factories.check(what, "DICTIONARY")
        return _by_code(factories.make_module(what, "DICTIONARY"), layer, f"DICTIONARY={what}")
    if isinstance(what, nn.Module):
        return _by_code(what.eval(), layer, f"DICTIONARY: {type(what).__name__}")
    if isinstance(what, str | Path):
        return read_dictionary(Path(what)).eval()
    raise UserError(f"DICTIONARY: {type(what).__name__} is no path, no matrix of directions and no module.")


def _by_code(module: nn.Module, layer: Layer, word: str) -> Dictionary:
    if not callable(getattr(module, "encode", None)):
        raise UserError(f"{word} gives a {type(module).__name__} without encode(x), which gives latents [P, n] of x.")
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return ByCode(module, layer.units, word).eval()


def _name_of(what: Any, dictionary: Dictionary) -> str:
    """A short name of a dictionary: its file's, its folder's, or its kind."""
    if not isinstance(what, str):
        return dictionary.kind
    if is_code(what):
        return what.rpartition(":")[2]
    path = Path(what)
    plain = path.parent if path.name in ("ae.pt", "cfg.json", "sae_weights.safetensors", "config.json") else path
    return re.sub(r"[^\w.-]+", "-", plain.name if plain.is_dir() else plain.stem) or dictionary.kind


def _latents(traced: Traced, layer: Layer, name: str, dictionary: Dictionary, asked: Asked) -> Layer:
    """The layer of latents."""
    first, count, tokens = 0, None, ""
    if has_tokens(layer):
        first, count, tokens = _tokens(traced, layer, asked)
    height = layer.height if count is None else count
    width = layer.width
    if asked.pool != "max":
        height = width = None
    return Layer(
        name, f"{layer.kind} + {dictionary.kind} dictionary", dictionary.latents, height, width, layer.node,
        pooled(layer.layout, asked.pool), layer.dependence,
        Latents(layer, name, first, count, asked.pool, tokens, asked.what if isinstance(asked.what, str) else GIVEN),
    )  # fmt: skip


def _tokens(traced: Traced, layer: Layer, asked: Asked) -> tuple[int, int | None, str]:
    """The first token that is encoded, how many are (None: all), and how that is called."""
    grid = grids(traced, [layer]).get(layer.name)
    if grid is None:
        if asked.tokens in (PATCH, CLASS):
            raise UserError(f"TOKENS={asked.tokens}: which tokens of {layer.name} are patches is not known.")
        return 0, None, ALL
    patches = grid.height * grid.width
    others = (layer.height or 0) - patches
    if not asked.tokens and others:
        raise UserError(
            f"DICTIONARY: {layer.name} has {patches} patches and {others} other token{'s' * (others > 1)}. Say on "
            "which of them the dictionary was trained: TOKENS=patch, cls or all."
        )
    if asked.tokens == PATCH and others:
        return grid.first, patches, PATCH
    if asked.tokens == CLASS:
        if not grid.first:
            raise UserError(f"TOKENS=cls: {layer.name} has no token before its patches.")
        return 0, 1, CLASS
    return 0, None, asked.tokens or ALL
