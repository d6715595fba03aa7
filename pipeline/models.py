"""A network by name with its weights, its preprocessing and the categories it was trained on."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.demo import network as demo
from pipeline.errors import UserError, first_line, near_matches
from pipeline.images import Preprocessing

_RANDOM_SEED = 0


@dataclass(frozen=True, slots=True)
class Network:
    """A network ready to be mined, in evaluation mode on the CPU.

    `weights` says where its tensors came from, `weights_hash` is the SHA-256 of all of them, `missing` names the
    tensors that its weights file lacked (they are random). `categories` are its classes in order, where known.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    weights: str
    weights_hash: str
    categories: tuple[str, ...] | None = None
    missing: frozenset[str] = frozenset()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """`[C, H, W]` of one network input (pixels)."""
        return len(self.preprocessing.mean), *self.preprocessing.crop


def load_network(name: str, weights: str = "") -> Network:
    """The network `name` (`demo` or any torchvision classification network) with `weights`.

    `weights`: empty for the default ones, `random`, a torchvision weights name, or a `.safetensors`/`.pth` file.
    Raises `UserError` for an unknown name, weights that do not fit, a file that cannot be read or downloaded.
    """
    check_name(name)
    if name == "demo":
        return _demo(weights)
    choice = torchvision.models.get_model_weights(name)
    source = choice.DEFAULT
    if weights in choice.__members__:
        source, weights = choice[weights], ""
    categories = tuple(source.meta["categories"])
    if weights == "":
        return _pretrained(name, source, categories)
    if weights == "random":
        module = _built(name, seed=_RANDOM_SEED)
        missing: frozenset[str] = frozenset()
        label = f"random (seed {_RANDOM_SEED})"
    else:
        if not os.path.isfile(weights) and Path(weights).suffix not in (".safetensors", ".pth", ".pt"):
            raise UserError(
                f"{name} has no weights {weights!r}.{near_matches(weights, [*choice.__members__, 'random'])} "
                f"WEIGHTS is empty, random, {', '.join(choice.__members__)}, or a .safetensors/.pth file."
            )
        tensors = read_weights(Path(weights))
        options = {"aux_logits": any(key.startswith("aux") for key in tensors)} if name in _WITH_AUX else {}
        module = _built(name, seed=_RANDOM_SEED, **options)
        if name in _WITH_AUX:
            module.transform_input = True  # type: ignore[assignment]  # what torchvision does for its own weights of these two
        missing = _fill(module, tensors, weights)
        label = Path(weights).name
    return Network(name, module, _preprocessing(source), label, weights_hash(module), categories, missing)


def check_name(name: str) -> None:
    """Raises `UserError` for a name that is no network's, with near matches; costs nothing."""
    known = torchvision.models.list_models(module=torchvision.models)
    if name != "demo" and name not in known:
        raise UserError(
            f"There is no network {name!r}.{near_matches(name, ['demo', *known])} "
            "MODEL is demo or any name of torchvision.models.list_models()."
        )


_WITH_AUX = ("googlenet", "inception_v3")
_UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, struct.error, OSError,
)  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `.pth` file; nothing in it is ever executed.

    Raises `UserError` if the file is missing, damaged or holds more than tensors.
    """
    if not os.path.isfile(path):
        raise UserError(f"There is no weights file {str(path)!r}. WEIGHTS is a file, a weights name or 'random'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise UserError(f"{path} cannot be read as weights: {first_line(error)}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} does not hold a state_dict (names and tensors).")
    return {str(key): value for key, value in content.items()}


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all tensors of a module's state."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pick_device(name: str) -> torch.device:
    """The device called `name`; `auto` is cuda, else mps, else cpu. Raises `UserError` if it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"DEVICE={name} cannot be used: {first_line(error)} Try DEVICE=auto.") from error
    return device


def compute_exactly() -> None:
    """Makes CUDA compute float32 as float32 (no TF32) and the same bits in every run."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _demo(weights: str) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        module = demo.demo_network()
    missing: frozenset[str] = frozenset()
    label = f"random (seed {_RANDOM_SEED})"
    if weights != "random":
        path = Path(weights) if weights else demo.WEIGHTS_FILE
        missing = _fill(module, read_weights(path), str(path))
        label = "trained on the demo" if not weights else path.name
    how = Preprocessing(demo.RESIZE, (demo.CROP, demo.CROP), "bilinear", tuple(demo.MEAN), tuple(demo.STD))
    return Network("demo", module.eval(), how, label, weights_hash(module), None, missing)


def _built(name: str, seed: int, **options: Any) -> nn.Module:
    if name in _WITH_AUX:
        options["init_weights"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torchvision.models.get_model(name, weights=None, **options).eval()


def _pretrained(name: str, source: Any, categories: tuple[str, ...]) -> Network:
    try:
        with _tensors_only():
            module = torchvision.models.get_model(name, weights=source).eval()
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"The weights {source} of {name} could not be downloaded from {source.url} ({error}). "
            f"Download that file elsewhere and say WEIGHTS=path/to/it, or WEIGHTS=random."
        ) from error
    return Network(name, module, _preprocessing(source), str(source), weights_hash(module), categories)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Makes every `torch.load` inside refuse anything but tensors, torchvision's own calls included."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _preprocessing(source: Any) -> Preprocessing:
    """What the weights' own transforms do; they resize to one short side and cut out a square."""
    preset = source.transforms()
    (resize,), (crop,) = preset.resize_size, preset.crop_size
    return Preprocessing(resize, (crop, crop), preset.interpolation.value, tuple(preset.mean), tuple(preset.std))


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> frozenset[str]:
    """Loads `tensors` and returns the names that were missing; raises `UserError` where any does not fit."""
    wanted = module.state_dict()
    strange = sorted(set(tensors) - set(wanted))
    if strange:
        raise UserError(
            f"{origin} holds tensors that {type(module).__name__} does not have: {_list(strange)}. "
            "Is it for another MODEL?"
        )
    unlike = [
        f"{key} is {list(tensor.shape)}, wanted {list(wanted[key].shape)}"
        for key, tensor in tensors.items()
        if tensor.shape != wanted[key].shape
    ]
    if unlike:
        raise UserError(f"{origin} does not fit {type(module).__name__}: {_list(unlike, '; ')}.")
    missing = frozenset(key for key in wanted if key not in tensors and not key.endswith("num_batches_tracked"))
    if not tensors.keys() & wanted.keys():
        raise UserError(f"{origin} holds no tensor of {type(module).__name__}.")
    module.load_state_dict(dict(tensors), strict=False)
    return missing


def _list(words: list[str], comma: str = ", ", most: int = 6) -> str:
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return comma.join(words[:most]) + more
