"""A GPU that is none: tensors there have shapes alone, and whatever would wait for a value of one is an error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from actmine.pipeline.readings import buckets

CUDA = torch.device("cuda")
_ASKING = {
    "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique_dim", "_unique2",
    "unique_consecutive", "bincount", "nonzero_numpy", "repeat_interleave",
}  # fmt: skip


class Waited(AssertionError):
    """An operation whose result is not known before the GPU has computed."""


class FakeGpu(TorchDispatchMode):
    """While inside, tensors on `cuda` have shapes alone; those on the CPU are real, as the loop knows them.

    Raises `Waited` for what asks a tensor there for a value, or copies from or to it while the caller stands still;
    where that is no matter (`answers`), every number is 0 and every truth true. Tensors of two devices never meet.
    """

    def __init__(self, answers: bool = False) -> None:
        super().__init__()
        self._answers = answers
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._pinned: dict[int, Tensor] = {}
        self.copied = 0
        """Copies that did not wait."""

    def __enter__(self) -> FakeGpu:
        self._fake.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._fake.__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, given = func._schema.name.split("::")[1], tree_flatten((args, kwargs))[0]
        tensors = [each for each in given if isinstance(each, Tensor)]
        there = [each for each in tensors if isinstance(each, FakeTensor) and each.device.type == "cuda"]
        to = [each.type for each in given if isinstance(each, torch.device)]
        if name in ("is_pinned", "_pin_memory"):
            return self._pin(name, *tensors)
        if not there and "cuda" not in to:
            with no_dispatch():
                return func(*args, **kwargs)
        if self._answers and there:
            with no_dispatch():
                if name == "_local_scalar_dense":
                    return torch.zeros((), dtype=there[0].dtype).item()
                if (
                    name in ("_to_copy", "copy_")
                    and "cuda" not in to
                    and (tensors[0].device.type == "cpu" or "cpu" in to)
                ):
                    kind = kwargs.get("dtype") or there[0].dtype
                    answer = torch.full(there[0].shape, kind == torch.bool, dtype=kind)
                    return answer if name == "_to_copy" else tensors[0].copy_(answer)
            if name == "nonzero":
                with self._fake:
                    return torch.empty((0, there[0].dim()), dtype=torch.int64, device=CUDA)
            return func(*args, **kwargs)
        if self._answers:
            return func(*args, **kwargs)
        if name in _ASKING and there and kwargs.get("output_size") is None:
            raise Waited(f"{func} asks the GPU")
        if name.startswith("index") and any(each.dtype in (torch.bool, torch.uint8) for each in tensors[1:]):
            raise Waited(f"{func} asks the GPU where a mask is true")
        if name in ("_to_copy", "copy_", "_copy_from") and (len(there) < len(tensors) or "cpu" in to):
            self._copy(func, args, kwargs, tensors)
        return func(*args, **kwargs)

    def _pin(self, name: str, tensor: Tensor) -> Any:
        if name == "_pin_memory":
            with no_dispatch():
                tensor = tensor.clone()
            self._pinned[id(tensor)] = tensor
            return tensor
        return id(tensor) in self._pinned

    def _copy(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
        source = tensors[-1]
        waits = not (kwargs.get("non_blocking") or (func._schema.name == "aten::copy_" and len(args) > 2 and args[2]))
        if isinstance(source, FakeTensor):
            raise Waited(f"{func} fetches from the GPU")
        if waits or id(source) not in self._pinned:
            raise Waited(f"{func} sends what is not pinned, or waits until it is there")
        self.copied += 1


def _no_gradient(outputs: Any, inputs: Any, **options: Any) -> tuple[Tensor, ...]:
    """Zeros: the engine of gradients has threads of its own for a GPU, which have to be there."""
    several = inputs if isinstance(inputs, (list, tuple)) else [inputs]
    return tuple(torch.zeros_like(each).detach() for each in several)


@contextmanager
def fake_gpu(patch: pytest.MonkeyPatch, triton: bool = True, answers: bool = False) -> Iterator[FakeGpu]:
    """A fake GPU, with Triton or without; its kernels of accumulators do nothing."""
    patch.setattr("actmine.pipeline.network.devices._triton", lambda: triton)
    kernels = pytest.importorskip("actmine.pipeline.readings.unit_kernels") if triton else None
    for name in ("keep_best", "add_statistics", "count", "add_labelled") if kernels else ():
        patch.setattr(kernels, name, lambda *given: None)
    if kernels:
        patch.setattr(kernels, "in_two", lambda values: values.repeat(2, 1))
    infer = torch.inference_mode  # in which operators are not taken apart
    patch.setattr(torch, "inference_mode", lambda mode=True: torch.no_grad() if mode else infer(False))
    patch.setattr(torch.autograd, "grad", _no_gradient)
    to = nn.Module.to

    def there(module: nn.Module, *at: Any, **how: Any) -> nn.Module:
        """Fake parameters cannot be exchanged: where they are there already, their order in memory is no matter."""
        fake = any(isinstance(each, FakeTensor) for each in module.parameters())
        return module if fake else to(module, *at, **how)

    patch.setattr(nn.Module, "to", there)
    table = buckets._table
    made_once = torch.empty_like(table(torch.device("cpu")), device="meta")
    patch.setattr(
        buckets,
        "_table",
        lambda device: table(device) if device.type == "cpu" else torch.empty_like(made_once, device=device),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*CUDA is not available.*")
        with FakeGpu(answers) as gpu:
            yield gpu
