"""Networks of torchvision by name: of classification, segmentation and detection, with their weights and transforms."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import detection, segmentation

from actmine.pipeline.errors import UserError, first_line, near_matches
from actmine.pipeline.network.loaded_model import LoadedModel
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
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides
from actmine.pipeline.preprocessing.transforms import follow

_MODULES = (torchvision.models, segmentation, detection)
_WITH_AUX = ("googlenet", "inception_v3")
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)")


def names() -> list[str]:
    """Every network of classification, segmentation and detection."""
    return [name for module in _MODULES for name in torchvision.models.list_models(module=module)]


def check(name: str) -> None:
    """Raises `UserError` for a name that is no network's, with near matches."""
    if name not in (known := names()):
        raise UserError(
            f"There is no network {name!r}.{near_matches(name, ['demo', *known])} MODEL is demo, any name of "
            "torchvision.models.list_models(), timm/NAME, hf/OWNER/NAME, open_clip/NAME,TAG, or package.module:factory."
        )


def make(name: str, weights: str, overrides: PreprocessingOptions) -> LoadedModel:
    """The network `name` with `weights`: empty for its default ones, `random`, one of its weights' names, or a file.

    Raises `UserError` for weights that are none of these, do not fit or cannot be downloaded.
    """
    choice = torchvision.models.get_model_weights(name)
    source = choice.DEFAULT
    owner, _, word = weights.rpartition(".")
    if word in choice.__members__ and owner in ("", choice.__name__):
        source, weights = choice[word], ""
    preprocessing, notices = _preprocessing(name, source, overrides)
    how = with_overrides(preprocessing, overrides)
    categories = tuple(source.meta["categories"]) if _is(name, torchvision.models) else None
    if weights == "":
        return LoadedModel(_mined(_pretrained(name, source)), how, str(source), categories, notices=notices)
    if weights == "random":
        return LoadedModel(_mined(_random(name)), how, RANDOM, categories, notices=notices)
    if not looks_like_a_file(weights):
        raise UserError(
            f"{name} has no weights {weights!r}.{near_matches(weights, [*choice.__members__, 'random'])} "
            f"WEIGHTS is empty, random, {', '.join(choice.__members__)}, or a .safetensors/.pth file."
        )
    read = read_weights(Path(weights))
    module = _for_file(name, read)
    filled = _filled(module, read)
    return LoadedModel(_mined(module), how, read.origin, categories, filled.missing, (*notices, *filled.notices))


class Backbone(nn.Module):
    """What a network of detection sees images with: one tensor in; its own transform and its boxes are left out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.backbone: Any = network.backbone

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps at all scales."""
        found = self.backbone(images)
        return tuple(found.values()) if isinstance(found, dict) else (found,)


def _mined(network: nn.Module) -> nn.Module:
    """The part of a network that takes a batch of images of one size: all of it, or the backbone of a detector."""
    return Backbone(network).eval() if hasattr(network, "transform") and hasattr(network, "backbone") else network


def _is(name: str, module: Any) -> bool:
    return name in torchvision.models.list_models(module=module)


def _preprocessing(name: str, source: Any, overrides: PreprocessingOptions) -> tuple[Preprocessing, tuple[str, ...]]:
    """What the weights' transform does; to squares, where it leaves each image its shape; and what to say of it."""
    if _is(name, torchvision.models):
        return follow(source.transforms()), ()
    detects = not _is(name, segmentation)
    if detects:
        its: Any = _random(name).transform
        side, way, mean, std = int(min(its.min_size)), "bilinear", its.image_mean, its.image_std
    else:
        its = source.transforms()
        side, way, mean, std = int(its.resize_size[0]), its.interpolation.value, its.mean, its.std
    said: tuple[str, ...] = ("Its backbone is mined, without the boxes that it finds.",) if detects else ()
    if not (overrides.resize or overrides.crop):
        said += (
            "Its own transform leaves each image its shape: here the middle is cut to "
            f"{side} x {side}. --resize and --crop change it.",
        )
    return Preprocessing.usual(side, (side, side), way, tuple(mean), tuple(std)), said


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
    if not _is(name, torchvision.models):
        options["weights_backbone"] = None
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
