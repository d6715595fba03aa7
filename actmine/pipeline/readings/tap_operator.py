"""The one reading of a map on a GPU as an operator of torch: eager, compiled and captured networks all use it."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor

from actmine.pipeline.network.devices import runs_triton
from actmine.pipeline.readings.bucket_edges import BUCKETS


def reads_once(maps: Tensor) -> bool:
    """Whether `read_once` is for these maps: on an NVIDIA GPU, where Triton is installed."""
    return runs_triton(maps.device)


_TAGGED = "tags" in signature(torch.library.custom_op).parameters  # not in torch 2.6
_ANY_STRIDES: dict[str, Any] = {"tags": (torch.Tag.flexible_layout,)} if _TAGGED else {}  # for compilers
_SCHEMA = "(Tensor maps, Tensor? marks=None, bool both=False, bool sampled=False, bool counted=False) -> Tensor[]"


@torch.library.custom_op("actmine::read_once", mutates_args=(), schema=_SCHEMA, **_ANY_STRIDES)
def read_once(
    maps: Tensor, marks: Tensor | None = None, both: bool = False, sampled: bool = False, counted: bool = False
) -> list[Tensor]:
    """What `tap_kernel.sweep` gives: maximum and position `[B, U]` of maps `[B, U, H, W]`, and what else is asked for.

    Under autograd's tracing, shapes alone are computed.
    """
    from actmine.pipeline.readings.tap_kernel import sweep  # a machine without a GPU need not import Triton

    return sweep(maps, marks, both, sampled, counted)


@read_once.register_fake
def _(
    maps: Tensor, marks: Tensor | None = None, both: bool = False, sampled: bool = False, counted: bool = False
) -> list[Tensor]:
    images, units = maps.shape[:2]
    found = []
    for _ in range(2 if both else 1):
        found += [
            maps.new_empty((images, units), dtype=torch.float32),
            maps.new_empty((images, units), dtype=torch.int32),
        ]
    if sampled:
        found.append(maps.new_empty((images, units), dtype=torch.float32))
    elif counted:
        found.append(maps.new_empty((units, BUCKETS), dtype=torch.int32))
    return found
