"""What a network computes, beside its weights: the code and settings that it is made of, and what it makes of noise."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actmine.pipeline.network.layers import Traced
from actmine.pipeline.storage.fingerprint import fingerprint

_PACKAGES = frozenset(("torch", "torchvision", "timm", "actmine", "builtins", "_operator", "math"))
"""Whose code has versions: what is left is anyone's, and may change while its names stay."""
_PROBED = 64
_TOLERANCE = 1e-3


def digest(traced: Traced) -> str:
    """Equal for networks that compute the same of their weights: by their graph, code, settings and constants.

    Of code that torch.fx follows, only what it comes to counts; of other code, all but comments and layout.
    """
    module, graph = traced.module, traced.graph
    return fingerprint(
        {
            "graph": None if graph is None else _without_addresses(str(graph)),
            "code": _code(_untraced(traced)),
            "network": _without_addresses(str(module)),
            "settings": [(name, settings(part)) for name, part in module.named_modules()],
            "constants": [(name, tensor_digest(each)) for name, each in constants(module)],
        }
    )


def _without_addresses(text: str) -> str:
    """Without addresses in memory, which are others in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def constants(module: nn.Module) -> Iterable[tuple[str, Tensor]]:
    """Buffers, and tensors that a module keeps as plain attributes."""
    yield from module.named_buffers()
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if isinstance(value, Tensor):
                yield f"{name}.{key}", value


def tensor_digest(tensor: Tensor) -> str:
    """Type, shape and SHA-256 of a tensor's bytes."""
    plain = tensor.detach().cpu().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return f"{plain.dtype} {list(plain.shape)} {hashlib.sha256(data).hexdigest()}"


def settings(module: nn.Module) -> dict[str, str]:
    """What a module keeps as plain values, such as the shift of a window, which its `repr` may leave out."""
    return {
        key: repr(value) for key, value in sorted(vars(module).items()) if not key.startswith("_") and _plain(value)
    }


def _plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(each) for each in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _untraced(traced: Traced) -> list[Any]:
    """The classes and functions whose insides the graph does not show."""
    if traced.graph is None:
        return [type(part) for part in traced.module.modules()]
    calls = [node for node in traced.graph.nodes if node.op in ("call_module", "call_function")]
    return [type(traced.module.get_submodule(str(node.target))) if node.op == "call_module" else node.target
            for node in calls]  # fmt: skip


def _code(kinds: Iterable[Any]) -> list[str]:
    """Hashes of the files that define `kinds`, without comments and layout; those of packages are left out."""
    files = set()
    for kind in kinds:
        if getattr(kind, "__module__", "builtins").partition(".")[0] not in _PACKAGES:
            with suppress(OSError, TypeError):  # defined where there is no file
                files.add(inspect.getsourcefile(kind) or "")
    found = set()
    for file in files - {""}:
        with suppress(OSError, SyntaxError, ValueError):
            found.add(hashlib.sha256(ast.dump(ast.parse(Path(file).read_bytes())).encode()).hexdigest())
    return sorted(found)


def probe(module: nn.Module, input_shape: tuple[int, int, int]) -> list[float] | None:
    """Some of the numbers that a network makes of two images of noise `[C, H, W]`; None if it makes others each time.

    None, too, for one that cannot be asked alone.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        noise = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
        try:
            made = [_numbers(module(noise.clone())) for _ in range(2)]
        except Exception:  # whatever anyone's network raises: it is mined by its layers, not by its end
            return None
    same = made[0].shape == made[1].shape and torch.equal(made[0], made[1])
    return made[0].tolist() if same and len(made[0]) and bool(made[0].isfinite().all()) else None


def alike(one: Iterable[float], other: Iterable[float]) -> bool:
    """Whether two probes are the same up to rounding, which differs from machine to machine."""
    first, second = (torch.tensor(list(each), dtype=torch.float64) for each in (one, other))
    if first.shape != second.shape:
        return False
    return bool(((first - second).abs() <= _TOLERANCE * max(float(first.abs().max()), 1e-30)).all())


def _numbers(given: object) -> Tensor:
    """Numbers spread evenly over all tensors of an output, float64."""
    flat = [tensor.detach().flatten().double() for tensor in _tensors(given)]
    values = torch.cat(flat) if flat else torch.empty(0)
    return values[torch.linspace(0, max(len(values) - 1, 0), min(len(values), _PROBED)).long()]


def _tensors(given: object) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given] if given.is_floating_point() else []
    parts = given.values() if isinstance(given, Mapping) else given if isinstance(given, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]
