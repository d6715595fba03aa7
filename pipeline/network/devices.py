"""Which device computes, and that it computes exactly."""

from __future__ import annotations

import torch

from pipeline.errors import UserError, first_line


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
