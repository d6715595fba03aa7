"""Weights: read from files that anyone may have written, fitted to a network by name and shape, hashed."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import struct
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from actmine.pipeline.errors import UserError, first_line, listed
from actmine.pipeline.network.checkpoints import NUMBERS, below, part_of

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
RANDOM_SEED = 0
RANDOM = f"random (seed {RANDOM_SEED})"
"""What random weights are called in a record."""
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net", "module")
_DEEPEST = 3
_UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError, IndexError, TypeError,
    AttributeError, struct.error, OSError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of one file by name; `notices` are sentences about what else the file held."""

    origin: str
    tensors: Mapping[str, Tensor]
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filled:
    """What became of filling a network: the names of tensors that were `missing`, and sentences for the user."""

    missing: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()


def one_set(name: str, tag: str, weights: str, tags: Container[str]) -> tuple[str, str]:
    """The tag of the weights that MODEL and WEIGHTS name together, and WEIGHTS without it.

    `tag` is the one that the name says, or empty. Raises `UserError` where they say two of the `tags`.
    """
    if weights not in tags:
        return tag, weights
    if tag not in ("", weights):
        raise UserError(f"MODEL={name} and WEIGHTS={weights} name two sets of weights. Say one of them.")
    return weights, ""


def looks_like_a_file(word: str) -> bool:
    """Whether WEIGHTS=`word` means a file, or a part of one (`FILE#part`): there is one, or it ends like one."""
    return os.path.isfile(word) or _file_and_part(Path(word))[0].suffix in SUFFIXES


def _file_and_part(path: Path) -> tuple[Path, str]:
    """A file, and the part of it that `FILE#part` names; a file may have a # in its own name."""
    name, sign, part = path.name.rpartition("#")
    return (path.with_name(name), part) if sign and name and not os.path.isfile(path) else (path, "")


def read_weights(path: Path) -> Weights:
    """The tensors of a `.safetensors` file, or of one that `torch.save` wrote; nothing in it is ever executed.

    A state_dict may lie inside a checkpoint under one of the names in use, or where `FILE#part` says: in dictionaries,
    as `state.model`, or among tensors whose names share a prefix, as `encoder_q`. Raises `UserError` if the file is
    missing or damaged, and if it holds more than tensors, no state_dict or not that part.
    """
    path, part = _file_and_part(path)
    if not os.path.isfile(path):
        raise UserError(f"There is no weights file {str(path)!r}. WEIGHTS is a file, a weights name or 'random'.")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _loaded(path)
    except _UNREADABLE as error:
        raise UserError(_reason(path, error)) from error
    if path.suffix == ".safetensors" and not part:
        return Weights(path.name, content)
    rest = ""
    if part and isinstance(content, Mapping):
        content, rest = part_of(content, part)
    found = _unwrapped(path, content)
    tensors = below(found.tensors, rest, path.name) if rest else found.tensors
    return Weights(f"{path.name}#{part}" if part else path.name, tensors, found.notices)


def _loaded(path: Path) -> Any:
    """What a file of `torch.save` holds; of all classes only tensors and plain values are allowed."""
    with (
        warnings.catch_warnings(),
        torch.serialization.safe_globals([Namespace, *NUMBERS]),
    ):  # timm's checkpoints have one
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(path: Path, error: BaseException) -> str:
    """Why a file could not be read, in one sentence; torch's own advice is not safe."""
    text = str(error)
    if strange := re.search(r"GLOBAL ([\w.]+)", text):
        what = f"Python objects besides tensors ({strange[1]})"
    elif "TorchScript" in text:
        what = "a TorchScript program"
    elif found := re.search(r"Unsupported (?:class|operand|type|storage)[^\n]*", text):
        return f"{path} cannot be read as weights: {found[0]}."
    else:
        return f"{path} cannot be read as weights: {first_line(error).split('. ')[0].rstrip('.')}."
    return (
        f"{path} holds {what}, which could run code and is not loaded. "
        "Save the tensors alone, where you trust the file: torch.save(model.state_dict(), 'weights.pth')."
    )


def _unwrapped(path: Path, content: Any) -> Weights:
    """The state_dict inside a checkpoint, by the names under which trainers put it."""
    notices: list[str] = []
    within = ""
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            raise UserError(f"{path}{within} holds {kind_of(content)}, not a state_dict (names and tensors).")
        inside = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
        if not inside:
            dicts = [name for name, value in content.items() if _is_state(value)]
            inside = dicts if len(dicts) == 1 else []
        if not inside:
            break
        if len(inside) > 1:
            other = f"WEIGHTS={path.name}#{inside[1]} takes another"
            notices.append(f"{path.name}{within} holds {', '.join(inside)}; {inside[0]} is taken ({other}).")
        content, within = content[inside[0]], f"{within}[{inside[0]!r}]"
    if not isinstance(content, Mapping):
        raise UserError(f"{path}{within} holds {kind_of(content)}, not a state_dict (names and tensors).")
    others = [
        f"{key} ({kind_of(value)})"
        for key, value in content.items()
        if not isinstance(value, Tensor) and not str(key).endswith("_extra_state")
    ]
    tensors = {str(key): value.detach() for key, value in content.items() if isinstance(value, Tensor)}
    if others or not tensors:
        raise UserError(
            f"{path}{within} does not hold a state_dict (names and tensors): "
            + (f"among its entries are {listed(others)}." if others else "it is empty.")
            + (f" WEIGHTS={path.name}#{parts[0]} takes a part of it." if (parts := _parts(content)) else "")
        )
    return Weights(path.name, tensors, tuple(notices))


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def _parts(content: Mapping[Any, Any]) -> list[str]:
    """The names under which a checkpoint has weights."""
    return [str(name) for name, value in content.items() if isinstance(value, Mapping) and _has_tensors(value)]


def _has_tensors(content: Mapping[Any, Any]) -> bool:
    return any(isinstance(each, Tensor) for each in content.values())


def kind_of(value: Any) -> str:
    """What a value is, for a sentence."""
    name = type(value).__name__
    return "nothing" if value is None else f"a{'n' * (name[0].lower() in 'aeiou')} {name}"


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of all tensors of a module's state."""
    digest = hashlib.sha256()
    for key, tensor in sorted(_state(module).items()):
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def tensors_only() -> Iterator[None]:
    """Makes every `torch.load` inside refuse anything but tensors, other libraries' own calls included."""
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


def fits(module: nn.Module, weights: Weights) -> bool:
    """Whether every tensor has a place of its own name and shape in `module`, as they are."""
    wanted = _state(module)
    return all(key in wanted and tensor.shape == wanted[key].shape for key, tensor in weights.tensors.items())


def fill(module: nn.Module, weights: Weights) -> Filled:
    """Loads `weights` into `module`, in the types that it has.

    Names may have a prefix that all of them share, as of a trainer that held the network as its `model`. Tensors that
    the file lacks stay as they are, and so does a head of another number of classes. Raises `UserError` where anything
    else does not fit.
    """
    wanted, name = _state(module), type(module).__name__
    tensors, notices = _renamed(weights, wanted, name)
    if strange := sorted(set(tensors) - set(wanted)):
        parts = {key.split(".")[0] for key in wanted}
        lacking = {key for key in wanted if key not in tensors and not _counts(key)}
        if lacking or any(key.split(".")[0] in parts for key in strange):
            raise UserError(
                f"{weights.origin} holds tensors that {name} does not have: {listed(strange)}. Is it for another MODEL?"
            )
        notices.append(f"{weights.origin} has more than {name} takes: {listed(strange)} left aside.")
        tensors = {key: tensor for key, tensor in tensors.items() if key in wanted}
    unlike = [key for key, tensor in tensors.items() if tensor.shape != wanted[key].shape]
    differences = [f"{key} is {list(tensors[key].shape)}, wanted {list(wanted[key].shape)}" for key in unlike]
    if unlike:
        if not _are_heads(module, {key: (tensors[key], wanted[key]) for key in unlike}):
            raise UserError(f"{weights.origin} does not fit {name}: {listed(differences, '; ')}.")
        notices.append(f"{weights.origin} has a head of other classes, left random: {listed(differences, '; ')}.")
        tensors = {key: tensor for key, tensor in tensors.items() if key not in unlike}
    if not tensors:
        raise UserError(f"{weights.origin} fits nothing of {name} but its head.")
    _load(
        module, {key: _as(key, tensor, wanted[key], weights.origin) for key, tensor in tensors.items()}, weights.origin
    )
    missing = frozenset(key for key in wanted if key not in tensors and not _counts(key))
    return Filled(missing, (*weights.notices, *notices))


def _counts(key: str) -> bool:
    """Whether a tensor only counts batches, which older files do not and no evaluation needs."""
    return key.endswith("num_batches_tracked")


def _state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module's state, without what some modules put beside them."""
    return {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}


def _renamed(weights: Weights, wanted: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors by the names that `wanted` has, as far as a shared prefix tells; and what was left aside for it."""
    tensors = _without_wrapping_modules(weights.tensors, wanted)
    found: Counter[str] = Counter()
    for key in tensors:
        found[""] += key in wanted
        for dot in re.finditer(r"\.", key):
            found[key[: dot.end()]] += key[dot.end() :] in wanted
    most = max(found.values(), default=0)
    if most == 0:
        raise UserError(
            f"{weights.origin} holds no tensor of {name}: it has {listed(sorted(tensors), most=3)}, "
            f"wanted are {listed(sorted(wanted), most=3)}. Is it for another MODEL?"
        )
    if found[""] == most:
        return tensors, []
    best = [prefix for prefix, count in found.items() if count == most]
    if len(best) > 1:
        raise UserError(
            f"{weights.origin} holds several sets of weights that fit {name}, under {listed(sorted(best))}. "
            f"Say which: WEIGHTS={weights.origin}#{sorted(best)[0].rstrip('.')}, for one."
        )
    (prefix,) = best
    kept = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    others = sorted(key for key in tensors if not key.startswith(prefix))
    aside = [f"Of {weights.origin} only {prefix}* is taken; left aside: {listed(others)}."] if others else []
    return kept, aside


def _without_wrapping_modules(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the parts that torch.compile and data-parallel training put into them, wherever they stand."""
    known = {part for key in wanted for part in key.split(".")}
    wrappers = {"_orig_mod", "module"} - known
    found = {".".join(part for part in key.split(".") if part not in wrappers): value for key, value in tensors.items()}
    return found if len(found) == len(tensors) else dict(tensors)


def _are_heads(module: nn.Module, unlike: Mapping[str, tuple[Tensor, Tensor]]) -> bool:
    """Whether tensors differ in the number of classes alone, those of the last linear layer or convolution at least."""
    sizes = {(given.shape[:1], wanted.shape[:1]) for given, wanted in unlike.values()}
    last = [name for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1:]
    return (
        len(sizes) == 1
        and all(given.shape[1:] == wanted.shape[1:] for given, wanted in unlike.values())
        and any(key.rpartition(".")[0] == name for key in unlike for name in last)
    )


def _as(key: str, tensor: Tensor, wanted: Tensor, origin: str) -> Tensor:
    """`tensor` in the type that is wanted: bfloat16 as float32, say, but no integers as weights."""
    if tensor.dtype == wanted.dtype:
        return tensor
    for kind in (torch.is_floating_point, torch.is_complex):
        if kind(tensor) != kind(wanted):
            raise UserError(f"{origin} does not fit: {key} is {_type(tensor)}, wanted {_type(wanted)}.")
    return tensor.to(wanted.dtype)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _load(module: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    try:
        module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise UserError(f"{origin} does not fit {type(module).__name__}: {' '.join(str(error).split())}") from error
