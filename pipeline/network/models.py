"""A network by name with its weights, its preprocessing and the categories it was trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from pipeline.demo import network as demo
from pipeline.demo.concepts import CONCEPTS
from pipeline.errors import UserError, first_line, near_matches
from pipeline.network import factories, timm_models, torchvision_models
from pipeline.network.made import Made
from pipeline.network.weights import RANDOM, RANDOM_SEED, Filled, fill, looks_like_a_file, read_weights, weights_hash
from pipeline.preprocessing.images import Preprocessing
from pipeline.preprocessing.wishes import Wishes, with_wishes


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


def load_network(name: str, weights: str = "", wishes: Wishes = Wishes()) -> Network:
    """The network `name`: `demo`, one of torchvision's, `timm/NAME`, or `package.module:factory`.

    `weights`: empty for its own, `random`, the name of some that come with it, or a `.safetensors`/`.pth` file.
    `wishes` change its preprocessing. Raises `UserError` for an unknown name, weights that do not fit, a file that
    cannot be read or downloaded, and a network that does not run on what its preprocessing gives.
    """
    check_name(name)
    if name == "demo":
        made = _demo(weights, wishes)
    elif name.startswith(timm_models.PREFIX):
        made = timm_models.make(name, weights, wishes)
    elif ":" in name:
        made = factories.make(name, weights, wishes)
    else:
        made = torchvision_models.make(name, weights, wishes)
    if ":" in name or wishes != Wishes():
        _try(name, made)
    notices = list(made.notices)
    if not made.preprocessing.followed:
        notices.append(
            "The transform cannot be followed: boxes are in pixels of the network's input, and crops are whole."
        )
    return Network(
        name, made.module, made.preprocessing, made.weights, weights_hash(made.module), made.categories, made.missing,
        tuple(notices), _asked(weights, wishes),
    )  # fmt: skip


def _asked(weights: str, wishes: Wishes) -> dict[str, str | int]:
    said = {name: value for name, value in asdict(wishes).items() if value}
    return {"weights": os.path.abspath(weights) if looks_like_a_file(weights) else weights, **said}


def check_name(name: str) -> None:
    """Raises `UserError` for a name that is no network's, with near matches; builds nothing."""
    if name.startswith(timm_models.PREFIX):
        timm_models.check(name)
    elif ":" in name:
        factories.check(name)
    elif name != "demo" and name not in (known := torchvision_models.names()):
        raise UserError(
            f"There is no network {name!r}.{near_matches(name, ['demo', *known])} MODEL is demo, any name of "
            "torchvision.models.list_models(), timm/NAME, or package.module:factory."
        )


def _demo(weights: str, wishes: Wishes) -> Made:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module = demo.demo_network().eval()
    how = Preprocessing.usual(demo.RESIZE, (demo.CROP, demo.CROP), "bilinear", tuple(demo.MEAN), tuple(demo.STD))
    filled, label = Filled(), RANDOM
    if weights != "random":
        path = Path(weights) if weights else demo.WEIGHTS_FILE
        filled = fill(module, read_weights(path))
        label = "trained on the demo" if not weights else path.name
    return Made(module, with_wishes(how, wishes), label, CONCEPTS, filled.missing, filled.notices)


def _try(name: str, made: Made) -> None:
    """Runs one black image through the network. Raises `UserError` where it fails, with a guess at what it takes."""
    how = made.preprocessing
    try:
        with torch.no_grad():
            made.module(torch.zeros(1, how.channels, *how.size))
    except Exception as error:  # whatever anyone's network raises
        first = next((part for part in made.module.modules() if isinstance(part, nn.Conv2d)), None)
        takes = first.in_channels if first is not None else how.channels
        guess = f"its first convolution takes {takes} channel{'s' * (takes > 1)}. " if takes != how.channels else ""
        raise UserError(
            f"{name} does not run on images of {how.size[0]} x {how.size[1]} pixels and {how.channels} "
            f"channel{'s' * (how.channels > 1)}: {first_line(error).rstrip('.')}. "
            f"{guess[:1].upper()}{guess[1:]}--resize, --crop and --channels say what it gets."
        ) from error
