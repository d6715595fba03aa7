"""What some work would give a GPU to do, counted while a CPU does it: kernels, bytes, operations, waits, memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

LAUNCH = 4e-6
"""Seconds that launching a kernel takes, at least."""
BANDWIDTH = 3e12
"""Bytes a second that an H100's memory moves."""
SPEED = {"fp32": 50e12, "tf32": 400e12, "bf16": 800e12}
"""Floating-point operations a second of an H100, by precision."""

_NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "lift_fresh", "set_",
    "resize_", "is_same_size", "sym_size", "device", "_local_scalar_dense", "detach_",
}  # fmt: skip
_WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero"}


@dataclass(frozen=True, slots=True)
class Count:
    """Kernels, the bytes that they read and write, their floating-point operations; how often somebody waits for the
    device, and the bytes fetched from it."""

    kernels: float = 0
    nbytes: float = 0
    operations: float = 0
    waits: float = 0
    fetched: float = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor: float) -> Count:
        return Count(*(factor * mine for mine in astuple(self)))

    def __sub__(self, other: Count) -> Count:
        return self + other * -1

    def floor(self, precision: str) -> dict[str, float]:
        """Seconds on an H100 that launching, memory and arithmetic take at least, each alone."""
        return {
            "launches": self.kernels * LAUNCH,
            "memory": self.nbytes / BANDWIDTH,
            "arithmetic": self.operations / SPEED[precision],
        }


class Counting(TorchDispatchMode):
    """Counts what is dispatched within, in this thread. Operators that only look at memory, or take it, are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()
        self._asked = _Asked(self)

    def __enter__(self) -> Self:
        self._asked.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._asked.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        name = func._overloadpacket.__name__
        waits = name in _WAITING or (name in ("index", "index_put_") and _masked(args[1]))
        launched = not func.is_view and name not in _NO_KERNEL
        self.count += Count(
            kernels=launched,
            nbytes=_nbytes((args, kwargs, result)) if launched else 0,
            operations=_operations(func, args, kwargs, result),
            waits=waits,
        )
        return result


class _Asked(TorchFunctionMode):
    """Notes what is fetched from the device: on a CPU nothing is dispatched for that."""

    def __init__(self, counting: Counting) -> None:
        super().__init__()
        self.counting = counting

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.cpu, Tensor.tolist):
            self.counting.count += Count(waits=1, fetched=_nbytes(args[0]))
        return func(*args, **(kwargs or {}))


def counted(work: Callable[[], object]) -> Count:
    """What a piece of work comes to, as it goes on a GPU."""
    # inference_mode hides what operators are made of; compilers take the ways that GPUs do
    with (
        patch("torch.inference_mode", _visible),
        patch("torch.compiler.is_compiling", lambda: True),
        Counting() as counting,
    ):
        work()
    return counting.count


def together(work: Callable[[int], Callable[[], object]], size: int, few: tuple[int, int] = (2, 4)) -> Count:
    """What work on `size` items at once comes to, an item: along the line through that on a few and on some more."""
    less, more = (counted(work(items)) for items in few)
    an_item = (more - less) * (1 / (few[1] - few[0]))
    return (less + an_item * (size - few[0])) * (1 / size)


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within have held at once, in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and (storage := each.untyped_storage())._cdata not in given:
                self._live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._live = {key: its for key, its in self._live.items() if not its[0].expired()}
        self.nbytes = max(self.nbytes, sum(nbytes for _, nbytes in self._live.values()))
        return result


def peak(work: Callable[[], object]) -> int:
    """The most memory that the tensors of a piece of work take at once (bytes)."""
    with Peak() as found:
        work()
    return found.nbytes


def _visible(mode: bool = True) -> AbstractContextManager[Any]:
    return torch.no_grad() if mode else nullcontext()


def _nbytes(values: object) -> int:
    return sum(each.numel() * each.element_size() for each in tree_leaves(values) if isinstance(each, Tensor))


def _operations(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    known = flop_registry.get(func._overloadpacket)
    return 0 if known is None else int(known(*args, **kwargs, out_val=result))


def _masked(indices: Any) -> bool:
    """Whether places are asked for by a mask, whose number a device has to say first."""
    return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in indices)
