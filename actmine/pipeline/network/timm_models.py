"""Networks of timm, by name, with the weights and the data config that come with them."""

from __future__ import annotations

import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from actmine.pipeline.errors import UserError, first_line, listed, near_matches
from actmine.pipeline.network.loaded_model import LoadedModel
from actmine.pipeline.network.weights import (
    RANDOM,
    RANDOM_SEED,
    Weights,
    fill,
    fits,
    looks_like_a_file,
    one_set,
    read_weights,
    tensors_only,
)
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides
from actmine.pipeline.preprocessing.transforms import follow
from actmine.pipeline.spoken import install

PREFIX = "timm/"
_FILES = ("model.safetensors", "pytorch_model.bin")
_SECONDS = 10.0


def check(name: str) -> None:
    """Raises `UserError` if timm is not installed or has no network `timm/ARCHITECTURE` or `timm/ARCHITECTURE.TAG`."""
    _config(*_split(name))


def make(name: str, weights: str, overrides: PreprocessingOptions) -> LoadedModel:
    """The network `name` with `weights`: empty for its trained ones, `random`, one of its tags, or a file.

    It is built for as many channels as are asked for, and where its architecture has one size, for the size. Raises
    `UserError` for weights that are none of these, do not fit or cannot be fetched.
    """
    timm = _timm(name)
    architecture, tag = _split(name)
    tags = _tags(timm, architecture)
    tag, weights = one_set(name, tag, weights, tags)
    config = _config(architecture, tag)
    how, options, notices = _input(timm, name, config, overrides)
    origin = f"{architecture}.{config.tag}" if config.tag else architecture
    if weights == "":
        module = _trained(timm, name, origin, config, options, tags)
        return LoadedModel(module, how, origin, _categories(timm, module), notices=notices)
    module = _random(timm, origin, options)
    categories = _categories(timm, module)
    if weights == "random":
        return LoadedModel(module, how, RANDOM, categories, notices=notices)
    if not looks_like_a_file(weights):
        raise UserError(
            f"{name} has no weights {weights!r}.{near_matches(weights, [*tags, 'random'])} "
            f"WEIGHTS is empty, random, {listed([*tags, 'a .safetensors/.pth file'], most=12)}."
        )
    read = read_weights(Path(weights))
    filled = fill(module, _translated(module, read))
    return LoadedModel(module, how, read.origin, categories, filled.missing, (*notices, *filled.notices))


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise UserError(f"MODEL={name} needs {error.name}: {install('timm')}.") from error
    return timm


def _split(name: str) -> tuple[str, str]:
    """Architecture and tag of weights, which may be empty."""
    architecture, _, tag = name.removeprefix(PREFIX).partition(".")
    return architecture, tag


def _tags(timm: ModuleType, architecture: str) -> list[str]:
    """The tags of the trained weights of an architecture."""
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    return [name.partition(".")[2] for name, config in known.items() if config.has_weights and "." in name]


def _config(architecture: str, tag: str) -> Any:
    """timm's config of the weights `tag`, of the default ones if it is empty."""
    timm = _timm(f"{PREFIX}{architecture}")
    if not timm.is_model(architecture):
        raise UserError(
            f"timm has no network {architecture!r}.{near_matches(architecture, timm.list_models())} "
            "timm.list_models() lists them."
        )
    if not tag:
        return timm.get_pretrained_cfg(architecture) or timm.models.PretrainedCfg(architecture=architecture)
    try:
        return timm.get_pretrained_cfg(f"{architecture}.{tag}", allow_unregistered=False)
    except RuntimeError as error:
        tags = _tags(timm, architecture)
        raise UserError(
            f"timm's {architecture} has no weights {tag!r}.{near_matches(tag, tags)} "
            f"It has {listed(tags, most=12) or 'none'}."
        ) from error


def _input(
    timm: ModuleType, name: str, config: Any, overrides: PreprocessingOptions
) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """The preprocessing, and how a network has to be built to take what it gives; the notices say so."""
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    how = with_overrides(follow(timm.data.create_transform(**data, is_training=False)), overrides)
    channels, *size = data["input_size"]
    options: dict[str, Any] = {}
    if how.channels != channels:
        options["in_chans"] = how.channels
    if config.fixed_input_size and how.size != tuple(size):
        options["img_size"] = how.size
    wanted = f"{how.size[0]} x {how.size[1]} pixels and {how.channels} channel{'s' * (how.channels > 1)}"
    return how, options, (f"{name} is built for {wanted}; timm adapts trained weights to that.",) if options else ()


def _random(timm: ModuleType, origin: str, options: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        return timm.create_model(origin, pretrained=False, **options).eval()


def _trained(
    timm: ModuleType, name: str, origin: str, config: Any, options: dict[str, Any], tags: list[str]
) -> nn.Module:
    if not config.has_weights:
        others = f"one of its tags ({listed(tags)}), " if tags else ""
        raise UserError(
            f"timm has no trained weights of {name.removeprefix(PREFIX)}. WEIGHTS is {others}random or a file."
        )
    place = f"{config.hf_hub_id} on the Hugging Face hub" if config.hf_hub_id else config.url
    own_file = config.hf_hub_id and not config.hf_hub_filename and not isinstance(config.custom_load, str)
    try:
        given = {"file": str(_fetched(config.hf_hub_id)), "custom_load": False} if own_file else {}
        with tensors_only(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)  # of whatever timm does not find in the file
            module = timm.create_model(origin, pretrained=True, pretrained_cfg_overlay=given, **options)
    except _NETWORK as error:
        raise _unfetched(name, place, error) from error
    except Exception as error:  # the errors of several libraries for http, which change with their versions
        if not type(error).__module__.partition(".")[0].startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        raise _unfetched(name, place, error) from error
    return module.eval()


_NETWORK = (urllib.error.URLError, OSError, RuntimeError, ValueError)


def _unfetched(name: str, place: str, error: Exception) -> UserError:
    file = "that file" if "://" in place else _FILES[0]
    return UserError(
        f"The weights of {name} could not be fetched from {place} ({type(error).__name__}: {first_line(error)}). "
        f"Download {file} elsewhere and say WEIGHTS=path/to/it, or WEIGHTS=random."
    )


def _fetched(place: str) -> Path:
    """The file of weights of a repository on the hub, of this machine once it was downloaded.

    Asks once whether it can be reached at all: downloads are tried again and again for minutes.
    """
    import huggingface_hub as hub
    from huggingface_hub.utils import EntryNotFoundError

    repository, _, revision = place.partition("@")
    last: Exception | None = None
    for file in _FILES:
        where: dict[str, Any] = {"repo_id": repository, "filename": file, "revision": revision or None}
        if isinstance(kept := hub.try_to_load_from_cache(**where), str):
            return Path(kept)
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(**where), timeout=_SECONDS)
            return Path(hub.hf_hub_download(**where))
        except EntryNotFoundError as error:
            last = error
    raise FileNotFoundError(f"it has none of {', '.join(_FILES)}") from last


def _translated(module: nn.Module, weights: Weights) -> Weights:
    """The tensors as timm's own loader would hand them on: files of other projects, positions of another image size."""
    translate: Callable[..., Any] | None = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if translate is None or fits(module, weights):
        return weights
    try:
        tensors = translate(dict(weights.tensors), module)
    except Exception:  # not made for such a file: what does not fit is then told by name
        return weights
    return Weights(weights.origin, tensors, weights.notices)


def _categories(timm: ModuleType, module: Any) -> tuple[str, ...] | None:
    """The classes in words where there are as many as ImageNet's."""
    if getattr(module, "num_classes", 0) != 1000:
        return None
    return tuple(timm.data.ImageNetInfo().label_descriptions())
