"""Networks of open_clip: the tower of images of a CLIP model, by its name, with the transform that comes with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torchvision import transforms

from actmine.pipeline.errors import UserError, first_line, listed, near_matches
from actmine.pipeline.network.hub import ADVICE, asked_once
from actmine.pipeline.network.loaded_model import LoadedModel
from actmine.pipeline.network.weights import (
    RANDOM,
    RANDOM_SEED,
    fill,
    looks_like_a_file,
    one_set,
    read_weights,
    tensors_only,
)
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides
from actmine.pipeline.preprocessing.transforms import follow
from actmine.pipeline.spoken import install

PREFIX = "open_clip/"
_FILE = "open_clip_model.safetensors"


def check(name: str) -> None:
    """Raises `UserError` if open_clip is not installed, or has no `open_clip/NAME` or `open_clip/NAME,PRETRAINED`."""
    library = _open_clip(name)
    architecture, tag = _split(name)
    if architecture not in (known := library.list_models()):
        raise UserError(
            f"open_clip has no network {architecture!r}.{near_matches(architecture, known)} "
            "open_clip.list_models() lists them."
        )
    tags = library.list_pretrained_tags_by_model(architecture)
    if tag and tag not in tags:
        raise UserError(f"open_clip's {architecture} has no weights {tag!r}. It has {listed(tags, most=12) or 'none'}.")


def make(name: str, weights: str, overrides: PreprocessingOptions) -> LoadedModel:
    """The tower of images with `weights`: empty for those that the name says, `random`, one of its tags, or a file.

    A file may hold the tower alone, or the whole model, whose texts are left out. Raises `UserError` for weights that
    are none of these, do not fit or cannot be fetched.
    """
    library = _open_clip(name)
    architecture, tag = _split(name)
    tags = library.list_pretrained_tags_by_model(architecture)
    tag, weights = one_set(name, tag, weights, tags)
    if weights == "" and not tag:
        raise UserError(
            f"{name} says no weights: MODEL={PREFIX}{architecture},TAG with one of {listed(tags, most=12) or 'none'}, "
            "or WEIGHTS=random or a file."
        )
    if weights not in ("", "random") and not looks_like_a_file(weights):
        raise UserError(f"{name} has no weights {weights!r}. It has {listed(tags, most=12)}, random, or a file.")
    settings = library.get_pretrained_cfg(architecture, tag) if tag else {}
    with _quietly(), tensors_only(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        model, transform = _made(library, name, architecture, "" if weights else tag, settings)
    module = model.visual.float().eval()
    how = with_overrides(follow(_known(transform)), overrides)
    if not looks_like_a_file(weights) or weights == "random":
        return LoadedModel(module, how, RANDOM if weights else f"{architecture},{tag}")
    read = read_weights(Path(weights))
    filled = fill(module, _of_the_tower(read))
    return LoadedModel(module, how, read.origin, None, filled.missing, filled.notices)


def _made(library: ModuleType, name: str, architecture: str, tag: str, settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """The whole model and its transform in evaluation, as the weights of these `settings` want both.

    The library loads weights that were trained with QuickGELU into a network with GELU; here it gets QuickGELU.
    """
    seen = {
        "image_mean": settings.get("mean"), "image_std": settings.get("std"),
        "image_interpolation": settings.get("interpolation"), "image_resize_mode": settings.get("resize_mode"),
    }  # fmt: skip
    try:
        with _reaching(library, architecture, settings if tag else {}):
            model, _, transform = library.create_model_and_transforms(
                architecture, tag or None, force_quick_gelu=bool(settings.get("quick_gelu")), **seen
            )
    except Exception as error:  # of the hub and of several libraries for http, which change with their versions
        if isinstance(error, AttributeError | TypeError | NameError):
            raise
        what = f"The weights {tag} of {name}" if tag else f"What {name} is made of"
        way = "Download them elsewhere and say WEIGHTS=path/to/it, or WEIGHTS=random. " if tag else ""
        raise UserError(
            f"{what} could not be fetched ({type(error).__name__}: {first_line(error).rstrip('.')}). {way}{ADVICE}"
        ) from error
    return model, transform


def _reaching(library: ModuleType, architecture: str, settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """A block that does not wait long for a hub that does not answer, where weights or the tower of texts need one."""
    repository, _, file = str(settings.get("hf_hub", "")).rpartition("/")
    texts = library.get_model_config(architecture)["text_cfg"].get("hf_model_name", "")
    if repository:
        return asked_once(repository, file or _FILE)
    return asked_once(texts, "config.json") if texts else nullcontext()


def _known(transform: Any) -> Any:
    """The transform with torchvision's parts in place of its own that do the same to an image in colour."""
    named = {type(part).__name__: part for part in transform.transforms}
    instead = {"MaybeToTensor": transforms.ToTensor(), "MaybeConvertMode": None, "function": None}
    parts = [instead.get(name, part) for name, part in named.items()]
    return transforms.Compose([part for part in parts if part is not None])


def _of_the_tower(weights: Any) -> Any:
    """The tensors of the tower, where a file holds the whole model."""
    begin = "visual."
    own = {name.removeprefix(begin): tensor for name, tensor in weights.tensors.items() if name.startswith(begin)}
    return type(weights)(weights.origin, own, weights.notices) if own else weights


def _open_clip(name: str) -> ModuleType:
    try:
        import open_clip
    except ImportError as error:
        raise UserError(f"MODEL={name} needs {error.name}: {install('open-clip')}.") from error
    return open_clip


def _split(name: str) -> tuple[str, str]:
    """The architecture, and the tag of its weights, which may be empty."""
    architecture, _, tag = name.removeprefix(PREFIX).partition(",")
    return architecture, tag


@contextmanager
def _quietly() -> Iterator[None]:
    """A block in which the library does not say that weights are random."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        root.setLevel(before)
