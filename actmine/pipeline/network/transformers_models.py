"""Networks of the library transformers: by their name on the Hugging Face hub, or in a folder."""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from actmine.pipeline.errors import UserError, first_line, listed
from actmine.pipeline.network.hub import ADVICE, asked_once
from actmine.pipeline.network.image_processors import preprocessing_of
from actmine.pipeline.network.loaded_model import LoadedModel
from actmine.pipeline.network.weights import RANDOM, RANDOM_SEED, fill, fits, looks_like_a_file, read_weights
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides
from actmine.pipeline.spoken import install

PREFIX = "hf/"
_NO_NAME = re.compile(r"LABEL_\d+")


def check(name: str) -> None:
    """Raises `UserError` if transformers is not installed, or `hf/…` names neither a repository nor a folder."""
    _transformers(name)
    place = _place(name)
    if place.startswith((".", "/", "~")) and not _is_folder(place):
        raise UserError(f"MODEL={name}: there is no folder {place}.")
    if not _is_folder(place) and not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", place):
        raise UserError(f"MODEL={name}: say hf/OWNER/NAME, a repository of the Hugging Face hub, or hf/./folder.")


def make(name: str, weights: str, overrides: PreprocessingOptions) -> LoadedModel:
    """The network `name` with `weights`: empty for its own, `random`, or a file.

    Of a network of images and texts it is the tower of images. Its image processor becomes the preprocessing: exactly,
    or as it is, where boxes cannot be followed through it. Code that comes with a repository is never run. Raises
    `UserError` for what cannot be fetched, is no network of images, or does not fit.
    """
    library, place = _transformers(name), _place(name)
    where, _, revision = place.partition("@")
    given: dict[str, Any] = {"trust_remote_code": False, **({"revision": revision} if revision else {})}
    with _fetching(name, place, revision):
        config = library.AutoConfig.from_pretrained(where, **given)
        kind, config = _kind(library, name, config)
        processor = library.AutoImageProcessor.from_pretrained(where, **given)
        how, notices = preprocessing_of(name, processor)
        how = with_overrides(how, overrides)
        if weights == "":
            origin = _origin(place, revision)
            module, missing = _loaded(kind, where, config, origin, **given)
            told = (f"{place} has no {listed(sorted(missing))}: random (seed {RANDOM_SEED}).",) if missing else ()
            return LoadedModel(module, how, origin, _categories(config), missing, (*notices, *told))
    if weights == "random":
        return LoadedModel(_random(kind, config), how, RANDOM, _categories(config), notices=notices)
    if not looks_like_a_file(weights):
        raise UserError(f"{name} has no weights {weights!r}. WEIGHTS is empty, random, or a .safetensors/.pth file.")
    read, module = read_weights(Path(weights)), _random(kind, config)
    if fits(module, read):
        filled = fill(module, read)
        return LoadedModel(module, how, read.origin, _categories(config), filled.missing, notices)
    tensors = dict(read.tensors)
    with _quietly():
        module, missing = _loaded(kind, None, config, read.origin, state_dict=tensors, ignore_mismatched_sizes=True)
    return LoadedModel(module, how, read.origin, _categories(config), missing, (*notices, *read.notices))


def _random(kind: Any, config: Any) -> nn.Module:
    with _quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module: nn.Module = kind._from_config(config)
    return module.float().eval()


def _loaded(kind: Any, where: str | None, config: Any, origin: str, **given: Any) -> tuple[nn.Module, frozenset[str]]:
    """The network as the library loads it, which knows older names of tensors; and the names of those it lacks.

    A pooling layer that the weights were trained without is left out. Raises `UserError` where most are lacking, or
    have other shapes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module, told = kind.from_pretrained(where, config=config, output_loading_info=True, **given)
    unlike = sorted(str(each[0] if isinstance(each, tuple) else each) for each in told["mismatched_keys"])
    missing = frozenset(told["missing_keys"])
    if unlike or 2 * len(missing) > len(module.state_dict()):
        what = f"other shapes of {listed(unlike)}" if unlike else f"nothing of {listed(sorted(missing))}"
        raise UserError(f"{origin} does not fit {kind.__name__}: it has {what}. Is it for another MODEL?")
    pooled = "add_pooling_layer" in inspect.signature(kind.__init__).parameters and "add_pooling_layer" not in given
    if pooled and missing and all(name.startswith("pooler.") for name in missing):
        return _loaded(kind, where, config, origin, add_pooling_layer=False, **given)
    return module.float().eval(), missing


def _origin(place: str, revision: str) -> str:
    """Where weights come from: a folder, or a repository at the commit that was downloaded."""
    import huggingface_hub as hub

    if _is_folder(place):
        return place
    where = place.partition("@")[0]
    kept = hub.try_to_load_from_cache(where, "config.json", revision=revision or None)
    return f"{where}@{Path(kept).parent.name[:12] if isinstance(kept, str) else revision or 'main'}"


def _transformers(name: str) -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"MODEL={name} needs {error.name}: {install('hf')}.") from error
    return transformers


def _place(name: str) -> str:
    return name.removeprefix(PREFIX)


def _is_folder(place: str) -> bool:
    return Path(place).is_dir()


def _kind(library: ModuleType, name: str, config: Any) -> tuple[Any, Any]:
    """The class of the network, and its config: a classifier as it is named, the tower of images, or the bare network.

    Raises `UserError` for one that does not take images, or more than them.
    """
    if config.model_type == "timm_wrapper":
        raise UserError(f"MODEL={name} is a network of timm: say MODEL=timm/{config.architecture or 'NAME'}.")
    named = (getattr(config, "architectures", None) or [""])[0]
    of_classes = library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), ())
    if found := [kind for kind in _several(of_classes) if kind.__name__ == named]:
        return found[0], config
    kinds = _several(library.MODEL_MAPPING.get(type(config), ()))
    if hasattr(config, "vision_config"):
        around, config = kinds, config.vision_config
        kinds = _several(library.MODEL_MAPPING.get(type(config), ())) or _towers(around, config)
    kind = next(iter(kinds), None)
    if getattr(kind, "main_input_name", "") != "pixel_values":
        raise UserError(f"MODEL={name} is a {config.model_type}, which is no network that takes images alone.")
    return kind, config


def _several(kinds: Any) -> tuple[Any, ...]:
    """The classes that a mapping of the library has for a config: none, one or several."""
    return tuple(kinds) if isinstance(kinds, tuple | list) else (kinds,)


def _towers(around: Sequence[Any], config: Any) -> tuple[Any, ...]:
    """The towers of images for `config` beside the networks of images and texts that the library lists."""
    beside = [value for kind in around for value in vars(sys.modules[kind.__module__]).values()]
    of_images = [each for each in beside if isinstance(each, type) and each.__name__.endswith("VisionModel")]
    return tuple(each for each in of_images if getattr(each, "config_class", None) is type(config))


def _categories(config: Any) -> tuple[str, ...] | None:
    """The classes in words, where they have any."""
    words = getattr(config, "id2label", None) or {}
    named = "ForImageClassification" in (getattr(config, "architectures", None) or [""])[0]
    found = [str(words[key]) for key in sorted(words)]
    return tuple(found) if named and found and not all(map(_NO_NAME.fullmatch, found)) else None


@contextmanager
def _quietly() -> Iterator[None]:
    """A block in which the library neither draws bars nor reports what a file holds beside the network."""
    from transformers.utils import logging as theirs

    before = theirs.get_verbosity()
    bars = theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(before)
        if bars:
            theirs.enable_progress_bar()


@contextmanager
def _fetching(name: str, place: str, revision: str) -> Iterator[None]:
    """A block whose troubles with a repository, a folder and the network end in a sentence, and soon."""
    folder = _is_folder(place)
    try:
        with nullcontext() if folder else asked_once(place.partition("@")[0], "config.json", revision), _quietly():
            yield
    except (UserError, AttributeError, TypeError, NameError):
        raise
    except Exception as error:  # of the library, of the hub, of several libraries for http
        what = "The folder" if folder else "The repository"
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{what} {place} of MODEL={name} brings code of its own, which is never run. If you trust it, let a "
                "factory of yours make the network: MODEL=package.module:factory."
            ) from error
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise UserError(
                f"{what} {place} of MODEL={name} holds a pickle with more than tensors, which is never loaded. Convert "
                "its weights to safetensors where you trust them."
            ) from error
        way = "" if folder else f"{ADVICE} Downloaded elsewhere, it is named by its folder: hf/./folder."
        raise UserError(
            f"{what} {place} of MODEL={name} cannot be loaded ({first_line(error).rstrip('.')}). {way}".rstrip()
        ) from error
