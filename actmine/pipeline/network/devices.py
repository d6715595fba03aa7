"""Which device computes, and that it computes exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import torch

from actmine.pipeline.errors import UserError, first_line

_TRITON = find_spec("triton") is not None


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
    """Whether kernels of Triton run there: on an NVIDIA GPU, where it is installed."""
    return _TRITON and device.type == "cuda"


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """CPU tensor `values` on `device`, without waiting for what that is at."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


@contextmanager
def enough_memory(way_out: str = "") -> Iterator[None]:
    """Whoever runs out of a GPU's memory within is told so, by a `UserError` that ends with another `way_out`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"The GPU's memory is full ({first_line(error)}) Whoever else uses it may be done later: the same "
            f"command goes on where it stopped.{way_out and ' '}{way_out}"
        ) from error


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
