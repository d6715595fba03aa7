"""Networks of torchvision, for classification, by name, with the weights and the transforms that come with them."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from actmine.pipeline.errors import UserError, first_line, near_matches
from actmine.pipeline.network.made import Made
from actmine.pipeline.network.weights import (
    RANDOM,
    RANDOM_SEED,
    Filled,
    Weights,
    fill,
    looks_like_a_file,
    read_weights,
    tensors_only,
)
from actmine.pipeline.preprocessing.transforms import follow
from actmine.pipeline.preprocessing.wishes import Wishes, with_wishes

_WITH_AUX = ("googlenet", "inception_v3")
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


def names() -> list[str]:
    """Every classification network."""
    return list(torchvision.models.list_models(module=torchvision.models))


def make(name: str, weights: str, wishes: Wishes) -> Made:
    """The network `name` with `weights`: empty for its default ones, `random`, one of its weights' names, or a file.

    Raises `UserError` for weights that are none of these, do not fit or cannot be downloaded.
    """
    choice = torchvision.models.get_model_weights(name)
    source = choice.DEFAULT
    owner, _, word = weights.rpartition(".")
    if word in choice.__members__ and owner in ("", choice.__name__):
        source, weights = choice[word], ""
    how = with_wishes(follow(source.transforms()), wishes)
    categories = tuple(source.meta["categories"])
    if weights == "":
        return Made(_pretrained(name, source), how, str(source), categories)
    if weights == "random":
        return Made(_random(name), how, RANDOM, categories)
    if not looks_like_a_file(weights):
        raise UserError(
            f"{name} has no weights {weights!r}.{near_matches(weights, [*choice.__members__, 'random'])} "
            f"WEIGHTS is empty, random, {', '.join(choice.__members__)}, or a .safetensors/.pth file."
        )
    read = read_weights(Path(weights))
    module = _for_file(name, read)
    filled = _filled(module, read)
    return Made(module, how, read.origin, categories, filled.missing, filled.notices)


def _pretrained(name: str, source: Any) -> nn.Module:
    try:
        with tensors_only():
            return torchvision.models.get_model(name, weights=source).eval()
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"The weights {source} of {name} could not be downloaded from {source.url} ({first_line(error)}). "
            f"Download that file elsewhere and say WEIGHTS=path/to/it, or WEIGHTS=random."
        ) from error


def _random(name: str, **options: Any) -> nn.Module:
    if name in _WITH_AUX:
        options["init_weights"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return torchvision.models.get_model(name, weights=None, **options).eval()


def _for_file(name: str, weights: Weights) -> nn.Module:
    """The network as torchvision builds it for trained weights."""
    if name not in _WITH_AUX:
        return _random(name)
    auxiliary = any(re.search(r"(^|\.)aux", key, re.IGNORECASE) for key in weights.tensors)
    module = _random(name, aux_logits=auxiliary)
    module.transform_input = True  # type: ignore[assignment]
    return module


def _filled(module: nn.Module, weights: Weights) -> Filled:
    """Filled as torchvision does it, which renames what its own files of DenseNet hold."""
    tensors = {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in weights.tensors.items()}
    return fill(module, Weights(weights.origin, tensors, weights.notices))
