"""Networks of the library transformers: by their name on the Hugging Face hub, or in a folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from actmine.pipeline.errors import UserError, first_line, listed
from actmine.pipeline.network.loaded_model import LoadedModel
from actmine.pipeline.network.weights import RANDOM, RANDOM_SEED, Weights, fill, fits, looks_like_a_file, read_weights
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides
from actmine.pipeline.preprocessing.transforms import follow
from actmine.pipeline.spoken import install

PREFIX = "hf/"
_ALIKE = 1e-5
"""How far the input may be from what the image processor makes, to be taken for the same (after normalization)."""
_SAMPLES = ((61, 47), (40, 57))
_NO_NAME = re.compile(r"LABEL_\d+")


def check(name: str) -> None:
    """Raises `UserError` if transformers is not installed, or `hf/…` names neither a repository nor a folder."""
    _transformers(name)
    place = _place(name)
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
    given: dict[str, Any] = {"revision": revision} if revision else {}
    with _quietly(), _fetching(name, place):
        config = library.AutoConfig.from_pretrained(where, **given)
    kind, config = _kind(library, name, config)
    how, notices = _preprocessing(library, name, where, given)
    if weights == "":
        with _quietly(), _fetching(name, place), torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)  # of a head that the file does not hold
            module = kind.from_pretrained(where, config=config, **given)
        origin = (
            place if _is_folder(place) else f"{where}@{str(getattr(config, '_commit_hash', None) or revision)[:12]}"
        )
        return LoadedModel(
            module.float().eval(), with_overrides(how, overrides), origin, _categories(config), notices=notices
        )
    with _quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module = kind._from_config(config).float().eval()
    if weights == "random":
        return LoadedModel(module, with_overrides(how, overrides), RANDOM, _categories(config), notices=notices)
    if not looks_like_a_file(weights):
        raise UserError(f"{name} has no weights {weights!r}. WEIGHTS is empty, random, or a .safetensors/.pth file.")
    read = read_weights(Path(weights))
    if fits(module, read):
        filled = fill(module, read)
        return LoadedModel(
            module, with_overrides(how, overrides), read.origin, _categories(config), filled.missing, notices
        )
    module, missing = _by_old_names(kind, config, read)
    return LoadedModel(
        module, with_overrides(how, overrides), read.origin, _categories(config), missing, (*notices, *read.notices)
    )


def _by_old_names(kind: Any, config: Any, weights: Weights) -> tuple[nn.Module, frozenset[str]]:
    """The network with tensors that are called as in the library's files, and the names of those that it lacks.

    Raises `UserError` where most are lacking, or have other shapes.
    """
    with _quietly(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module, told = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(weights.tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    unlike = sorted(str(each[0] if isinstance(each, tuple) else each) for each in told["mismatched_keys"])
    missing = frozenset(told["missing_keys"])
    if unlike or 2 * len(missing) > len(module.state_dict()):
        what = f"other shapes of {listed(unlike)}" if unlike else f"nothing of {listed(sorted(missing))}"
        raise UserError(f"{weights.origin} does not fit {kind.__name__}: it has {what}. Is it for another MODEL?")
    return module.float().eval(), missing


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
    """The class of the network, and its config."""
    if hasattr(config, "vision_config"):
        config = config.vision_config
    named = getattr(config, "architectures", None) or [""]
    if named[0].endswith("ForImageClassification"):
        kind = library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(config), None)
    else:
        kind = library.MODEL_MAPPING.get(type(config), None)
    kind = kind[0] if isinstance(kind, tuple | list) else kind
    if kind is None or getattr(kind, "main_input_name", "") != "pixel_values":
        raise UserError(f"MODEL={name} is a {config.model_type}, which is no network that takes images alone.")
    return kind, config


def _categories(config: Any) -> tuple[str, ...] | None:
    """The classes in words, where they have any."""
    words = getattr(config, "id2label", None) or {}
    named = (getattr(config, "architectures", None) or [""])[0].endswith("ForImageClassification")
    found = [str(words[key]) for key in sorted(words)]
    return tuple(found) if named and found and not all(map(_NO_NAME.fullmatch, found)) else None


def _preprocessing(
    library: ModuleType, name: str, where: str, given: dict[str, Any]
) -> tuple[Preprocessing, tuple[str, ...]]:
    """What the image processor does, by steps that boxes are followed through where they give the same input."""
    with _quietly(), _fetching(name, where):
        processor = library.AutoImageProcessor.from_pretrained(where, **given)
    itself = Processor(processor)
    wanted = [itself(image) for image in map(_sample, _SAMPLES)]
    for first in (True, False):
        steps = _steps(processor.to_dict(), first)
        if steps is None:
            break
        how = follow(v2.Compose(steps))
        made = [Normalize(how, torch.device("cpu"))(torch.from_numpy(network_pixels(image, how)[None]))[0]
                for image in map(_sample, _SAMPLES)]  # fmt: skip
        if all(a.shape == b.shape and float((a - b).abs().max()) < _ALIKE for a, b in zip(made, wanted, strict=True)):
            return how, ()
    kind = type(processor).__name__
    return follow(itself), (f"The image processor of {name}, {kind}, is used as it is: its steps are not known.",)


class Processor:
    """An image processor as a transform: a Pillow image in, the network's input `[C, H, W]` out."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Tensor:
        """What the processor makes of one image."""
        found: Tensor = self.processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        return found


class CenterCrop:
    """The crop of the library's image processors, `size` (height, width), of a Pillow image or a tensor `[C, H, W]`.

    Where the pixels around it are odd in number, it lies nearer to the left and to the top, unlike torchvision's.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Any) -> Any:
        """The middle of an image that is no smaller."""
        height, width = self.size
        before = (image.height, image.width) if isinstance(image, Image.Image) else tuple(image.shape[-2:])
        top, left = ((of - crop) // 2 for of, crop in zip(before, self.size, strict=True))
        return v2.functional.crop(image, top, left, height, width)


def _steps(about: dict[str, Any], on_images: bool) -> list[Callable[..., Any]] | None:
    """The steps of an image processor as it describes them; resizing Pillow images, or tensors; None for others."""
    if any(about.get(name) for name in ("do_pad", "do_reduce_labels", "do_flip_channel_order", "do_image_splitting")):
        return None
    steps: list[Callable[..., Any]] = [] if on_images else [v2.ToImage()]
    resample = _interpolation(about.get("resample"))
    if about.get("do_resize"):
        size = about.get("size") or {}
        short, share = size.get("shortest_edge"), about.get("crop_pct")
        if short and share and short < 384:
            steps += [v2.Resize(int(short / share), resample, antialias=True), CenterCrop((short, short))]
        elif short and share:
            steps.append(v2.Resize((short, short), resample, antialias=True))
        elif short and not size.get("longest_edge"):
            steps.append(v2.Resize(short, resample, antialias=True))
        elif "height" in size and "width" in size:
            steps.append(v2.Resize((size["height"], size["width"]), resample, antialias=True))
        else:
            return None
    if about.get("do_center_crop"):
        crop = about["crop_size"]
        steps.append(CenterCrop((crop["height"], crop["width"])))
    if not about.get("do_rescale") or abs(about.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        return None
    steps += [*([v2.ToImage()] if on_images else []), v2.ToDtype(torch.float32, scale=True)]
    if about.get("do_normalize"):
        steps.append(v2.Normalize(list(about["image_mean"]), list(about["image_std"])))
    return steps


def _interpolation(resample: int | None) -> v2.InterpolationMode:
    names = {0: "NEAREST", 1: "LANCZOS", 2: "BILINEAR", 3: "BICUBIC", 4: "BOX", 5: "HAMMING"}
    return v2.InterpolationMode[names.get(resample if resample is not None else 2, "BILINEAR")]


def _sample(size: tuple[int, int]) -> Image.Image:
    """A picture full of detail, the same each time."""
    random = np.random.Generator(np.random.PCG64(size[0]))
    return Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


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
def _fetching(name: str, place: str) -> Iterator[None]:
    """A block whose troubles with a repository, a folder and the network end in a sentence."""
    try:
        yield
    except Exception as error:  # of the library, of the hub, of several libraries for http
        ours = isinstance(error, UserError | AttributeError | TypeError | NameError)
        if ours:
            raise
        what = "The folder" if _is_folder(place) else "The repository"
        raise UserError(
            f"{what} {place} of MODEL={name} cannot be loaded ({first_line(error).rstrip('.')}). "
            "Is the name right, and the machine online? Downloaded elsewhere, it is named by its folder, hf/./folder; "
            "a private one takes a token (HF_TOKEN)."
        ) from error
