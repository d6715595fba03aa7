"""A network by name with its weights, its preprocessing and the categories it was trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from actmine.pipeline.demo import network as demo
from actmine.pipeline.demo.concepts import CONCEPTS
from actmine.pipeline.network import (
    factories,
    open_clip_models,
    timm_models,
    torchvision_models,
    transformers_models,
)
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.loaded_model import LoadedModel, run_once
from actmine.pipeline.network.weights import (
    RANDOM,
    RANDOM_SEED,
    Filled,
    fill,
    looks_like_a_file,
    read_weights,
    weights_hash,
)
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides


@dataclass(frozen=True, slots=True)
class Network:
    """A network ready to be mined, in evaluation mode on the CPU.

    `weights` says where its tensors came from, `weights_hash` is the SHA-256 of all of them, `missing` names the
    tensors that its weights file lacked (they are random). `categories` are its classes in order, where known.
    `notices` are sentences about it that the user should see. `asked` is what it was asked for with: WEIGHTS, a file as
    its absolute path, and the flags that are not empty.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    weights: str
    weights_hash: str
    categories: tuple[str, ...] | None = None
    missing: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()
    asked: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`[C, H, W]` of one network input (pixels)."""
        return self.preprocessing.channels, *self.preprocessing.size

    def traced(self) -> Traced:
        """Its inside, to be checked with two pictures as its preprocessing makes them."""
        return Traced(self.module, self.input_shape, _two_pictures(self.preprocessing))


def load_network(name: str, weights: str = "", overrides: PreprocessingOptions = PreprocessingOptions()) -> Network:
    """The network `name`: `demo`, one of torchvision's, `timm/NAME`, `hf/OWNER/NAME`, `open_clip/NAME,TAG` or
    `package.module:factory`.

    `weights`: empty for its own, `random`, the name of some that come with it, or a `.safetensors`/`.pth` file.
    `overrides` change its preprocessing. Raises `UserError` for an unknown name, weights that do not fit, a file that
    cannot be read or downloaded, and a network that does not run on what its preprocessing gives.
    """
    check_name(name)
    made = _demo(weights, overrides) if name == "demo" else _library(name).make(name, weights, overrides)
    return network_made(
        name,
        made,
        overrides,
        asked_for(weights, overrides),
        runs=":" not in name and overrides == PreprocessingOptions(),
    )


def network_made(
    name: str, made: LoadedModel, overrides: PreprocessingOptions, asked: Mapping[str, str | int], runs: bool
) -> Network:
    """What was made, as a network. Raises `UserError` where it does not run on its input, unless it is known to."""
    if not runs:
        run_once(name, made.module, made.preprocessing)
    notices = list(made.notices)
    if not made.preprocessing.followed:
        notices.append(
            "The transform cannot be followed: boxes are in pixels of the network's input, and crops are whole."
        )
    if made.preprocessing.order is None:
        notices.append(
            "Pure colours do not show which channels of the input are red, green and blue: pictures that are drawn may "
            "have them exchanged. The numbers are right in any case."
        )
    return Network(
        name, made.module, made.preprocessing, made.weights, weights_hash(made.module), made.categories, made.missing,
        tuple(notices), asked,
    )  # fmt: skip


def asked_for(weights: str, overrides: PreprocessingOptions) -> dict[str, str | int]:
    """What a network is asked for with, as a run records it."""
    said = {name: value for name, value in asdict(overrides).items() if value}
    return {"weights": os.path.abspath(weights) if looks_like_a_file(weights) else weights, **said}


def check_name(name: str) -> None:
    """Raises `UserError` for a name that is no network's, with near matches; builds nothing."""
    if name != "demo":
        _library(name).check(name)


class _Library(Protocol):
    """A kind of MODEL: a further one is a file with these two, and its prefix in `_LIBRARIES`."""

    def check(self, name: str) -> None:
        """Raises `UserError` for a name that is none of its networks; builds nothing."""

    def make(self, name: str, weights: str, overrides: PreprocessingOptions) -> LoadedModel:
        """The network. Raises `UserError` for what cannot be had."""


_LIBRARIES: dict[str, _Library] = {
    timm_models.PREFIX: timm_models,
    transformers_models.PREFIX: transformers_models,
    open_clip_models.PREFIX: open_clip_models,
}


def _library(name: str) -> _Library:
    prefixed = (library for prefix, library in _LIBRARIES.items() if name.startswith(prefix))
    return next(prefixed, factories if factories.is_factory(name) else torchvision_models)


def _two_pictures(how: Preprocessing) -> Tensor:
    """Two pictures unlike each other as network input, `[2, C, H, W]`: a smooth one, a bright one full of detail."""
    random = np.random.Generator(np.random.PCG64(0))
    width, height = max(320, how.size[1]), max(240, how.size[0])
    coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
    detail = Image.fromarray(random.integers(64, 256, (height, width, 3), dtype=np.uint8))
    pixels = torch.from_numpy(np.stack([network_pixels(each, how) for each in (smooth, detail)]))
    return Normalize(how, torch.device("cpu"))(pixels)


def _demo(weights: str, overrides: PreprocessingOptions) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module = demo.demo_network().eval()
    how = Preprocessing.usual(demo.RESIZE, (demo.CROP, demo.CROP), "bilinear", tuple(demo.MEAN), tuple(demo.STD))
    filled, label = Filled(), RANDOM
    if weights != "random":
        path = Path(weights) if weights else demo.WEIGHTS_FILE
        filled = fill(module, read_weights(path))
        label = "trained on the demo" if not weights else path.name
    return LoadedModel(module, with_overrides(how, overrides), label, CONCEPTS, filled.missing, filled.notices)
