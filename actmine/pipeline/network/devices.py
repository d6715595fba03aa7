"""Which device computes, that it computes exactly, and what becomes of what its memory has no room for."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TypeVar

import torch

from actmine.pipeline.errors import UserError, first_line, is_memory_full

T = TypeVar("T")
R = TypeVar("R")

_LEAST_TRITON = (3, 3)  # whose kernels know tuples; comes with torch 2.7


def new_enough(spoken: str) -> bool:
    """Whether a version of Triton compiles our kernels."""
    return tuple(int(part) for part in re.findall(r"\d+", spoken)[:2]) >= _LEAST_TRITON


@cache
def _triton() -> bool:
    """Whether it is installed, in such a version."""
    if find_spec("triton") is None:
        return False
    import triton  # only where there is a GPU

    return new_enough(triton.__version__)


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
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # kernels and graphs of ours go to the current one
    return device


def runs_triton(device: torch.device) -> bool:
    """Whether our kernels run there: on an NVIDIA GPU, where Triton 3.3 or later is installed."""
    return device.type == "cuda" and _triton()


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """CPU tensor `values` on `device`, without waiting for what that is at."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


def in_halves(compute: Callable[[Sequence[T]], list[R]], items: Sequence[T]) -> list[R]:
    """What `compute` finds of items; where a GPU has no room for all at once, of one half and then of the other.

    Raises what `compute` raises for a single item.
    """
    try:
        return compute(items)
    except RuntimeError as error:
        if len(items) < 2 or not is_memory_full(error):
            raise
    free()  # when nothing refers to the error any more, and so to what was under way
    half = len(items) // 2
    return [found for some in (items[:half], items[half:]) for found in in_halves(compute, some)]


def let_go() -> None:
    """Frees what was tried and is of no use any more: networks refer to themselves."""
    gc.collect()
    free()


def free() -> None:
    """Gives a GPU's memory back that nothing of ours refers to."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def quickly(device: torch.device, precision: str) -> Iterator[None]:
    """On an NVIDIA GPU networks compute in tf32 or bf16 while inside (fp32: as ever); elsewhere nothing changes.

    For what is measured again exactly.
    """
    if device.type != "cuda" or precision == "fp32":
        yield
        return
    exact = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = exact


def compute_exactly() -> None:
    """Makes CUDA compute float32 as float32 (no TF32) and the same bits in every run."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
