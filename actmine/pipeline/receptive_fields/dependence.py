"""Follows any network while it runs on one image: what each element of each tensor depends on.

It stands between torch and its kernels, below autograd and modules, where a few hundred operations of ATen are all
there is. So it makes no difference how a network is written or whether it can be traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from actmine.pipeline.receptive_fields.dependence_call import Call, Unfollowed
from actmine.pipeline.receptive_fields.dependence_rules import find_rule, is_factory
from actmine.pipeline.receptive_fields.dependence_shadow import (
    NOTHING,
    Shadow,
    blank_shadow,
    compact,
    first_note,
    image_shadow,
    whole_shadow,
)

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]


@dataclass(slots=True)
class _Memory:
    """What is known of the tensors that live in one piece of memory."""

    alive: StorageWeakRef
    itemsize: int
    shadows: dict[Geometry, Shadow] = field(default_factory=dict)


class Shadows:
    """The shadows of all living tensors: those of one memory are kept together, since what is written shows in all."""

    def __init__(self) -> None:
        self._memories: dict[int, _Memory] = {}

    def find(self, tensor: Tensor) -> Shadow | None:
        """The shadow of a tensor; None for a constant."""
        memory = self._memories.get(tensor.untyped_storage()._cdata)
        if memory is None:
            return None
        geometry = _geometry(tensor)
        if geometry not in memory.shadows:
            memory.shadows[geometry] = self._seen_through(memory, tensor)
        return memory.shadows[geometry]

    def set(self, tensor: Tensor, shadow: Shadow) -> None:
        """What a tensor sees from now on; all that shares its memory follows."""
        self._forget_the_dead()
        storage = tensor.untyped_storage()
        memory = self._memories.setdefault(storage._cdata, _Memory(StorageWeakRef(storage), tensor.element_size()))
        geometry = _geometry(tensor)
        whole = tensor.numel() * tensor.element_size() == storage.nbytes()
        if whole or not (memory.shadows.keys() - {geometry}):
            memory.shadows = {geometry: shadow}
            return
        flat = self._flat(memory, tensor)
        for plane, side in zip(flat, shadow.planes, strict=True):
            _write(plane, geometry, side)
        note = first_note([shadow, *memory.shadows.values()])
        memory.shadows = {geometry: shadow, _line(flat[0]): Shadow(flat, (None, None), None, note)}

    def alias(self, tensor: Tensor, shadow: Shadow) -> None:
        """The shadow of a tensor that shows memory of another one in its own way."""
        storage = tensor.untyped_storage()
        memory = self._memories.setdefault(storage._cdata, _Memory(StorageWeakRef(storage), tensor.element_size()))
        memory.shadows[_geometry(tensor)] = shadow

    def _seen_through(self, memory: _Memory, tensor: Tensor) -> Shadow:
        flat = self._flat(memory, tensor)
        note = first_note(memory.shadows.values())
        top, bottom, left, right = (compact(plane.as_strided(*_geometry(tensor))) for plane in flat)
        return Shadow((top, bottom, left, right), (None, None), None, note)

    def _flat(self, memory: _Memory, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Four planes of the whole memory, element after element."""
        count = tensor.untyped_storage().nbytes() // memory.itemsize
        planes = tuple(torch.full((count,), NOTHING, device=tensor.device) for _ in range(4))
        for geometry, shadow in memory.shadows.items():
            for plane, side in zip(planes, shadow.planes, strict=True):
                _write(plane, geometry, side)
        top, bottom, left, right = planes
        return top, bottom, left, right

    def _forget_the_dead(self) -> None:
        for key in [key for key, memory in self._memories.items() if memory.alive.expired()]:
            del self._memories[key]


def _geometry(tensor: Tensor) -> Geometry:
    return tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())


def _line(flat: Tensor) -> Geometry:
    return (len(flat),), (1,), 0


def _write(flat: Tensor, geometry: Geometry, side: Tensor) -> None:
    shape, strides, offset = geometry
    once = [1 if stride == 0 else size for size, stride in zip(shape, strides, strict=True)]
    for dim, size in enumerate(once):
        side = side.narrow(dim, 0, size)
    flat.as_strided(once, strides, offset).copy_(side)


class Following(TorchDispatchMode):
    """While it is on, the shadow of every tensor that depends on `images` `[1, C, H, W]` is known to `shadow_of`."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._height, self._width = images.shape[2], images.shape[3]
        self._shadows = Shadows()
        self._shadows.set(images, image_shadow(images))
        self._left: str | None = None

    def shadow_of(self, tensor: Tensor) -> Shadow:
        """What each element of a tensor sees."""
        return self._shadows.find(tensor) or blank_shadow(tensor.shape, tensor.device)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs one operation and tells what its results see."""
        kwargs = kwargs or {}
        given = _given(func, args, kwargs)
        inputs = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        known = {id(tensor): shadow for tensor in inputs if (shadow := self._shadows.find(tensor)) is not None}
        if (not known and self._left is None) or is_factory(func):
            return func(*args, **kwargs)
        if torch.Tag.inplace_view in func.tags:
            return func(*args, **kwargs)  # seen in a new way, which is found out when it is read
        written = _written(func, given)
        if written and find_rule(func) is None:
            made = self._functional(func, args, kwargs)
            func(*args, **kwargs)
            return self._note_written(written, made)
        result = func(*args, **kwargs)
        call = Call(func, given, result, known)
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if torch.Tag.data_dependent_output in func.tags and not outputs:
            self._left = self._left or f"a number taken from the image by {call.name} could not be followed"
            return result
        shadows = self._shadows_of(call, outputs, lambda: self._decomposed(func, args, kwargs))
        for output, shadow in zip(outputs, shadows, strict=True):
            if written or not func.is_view:
                self._shadows.set(output, shadow)
            else:
                self._shadows.alias(output, shadow)
        return result

    def _shadows_of(self, call: Call, outputs: list[Tensor], decomposed: Callable[[], Any]) -> list[Shadow]:
        rule = find_rule(call.func)
        note = self._left or first_note(call.known.values())
        try:
            if self._left is not None:
                raise Unfollowed(self._left)
            if rule is not None:
                found = rule(call)
                shadows = [found] * len(outputs) if isinstance(found, Shadow) else found
            else:
                parts = [leaf for leaf in tree_leaves(decomposed()) if isinstance(leaf, Tensor)]
                shadows = [self.shadow_of(part) for part in parts]
            if len(shadows) < len(outputs):
                raise Unfollowed(f"{call.name} could not be followed")
        except Unfollowed as reason:
            shadows = [self._whole(output, note or str(reason)) for output in outputs]
        return [
            replace(shadow, note=note or shadow.note)
            if shadow.shape == output.shape
            else self._whole(output, note or f"{call.name} could not be followed")
            for output, shadow in zip(outputs, shadows, strict=False)
        ]

    def _whole(self, tensor: Tensor, note: str) -> Shadow:
        return whole_shadow(tensor.shape, self._height, self._width, tensor.device, note)

    def _decomposed(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The result once more, from simpler operations that are followed one by one."""
        simpler = decomposition_table.get(func)
        with self:
            if simpler is not None:
                return simpler(*args, **kwargs)
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise Unfollowed(f"{_name(func)} could not be followed")
        return result

    def _functional(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What an operation that works in place would make, in a tensor of its own."""
        packet = getattr(torch.ops.aten, _name(func).removesuffix("_"), None)
        twin = getattr(packet, func._overloadname, None)
        if twin is None or twin is func:
            return None
        with self:
            return twin(*args, **kwargs)

    def _note_written(self, written: list[Tensor], made: Any) -> Any:
        for tensor in written:
            if isinstance(made, Tensor) and made.shape == tensor.shape:
                self._shadows.set(tensor, self.shadow_of(made))
            else:
                self._shadows.set(tensor, self._whole(tensor, "an operation in place could not be followed"))
        return written[0]


def _given(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operation's schema, defaults included."""
    schema = func._schema.arguments
    given = {each.name: each.default_value for each in schema if each.has_default_value()}
    return given | dict(zip((each.name for each in schema), args, strict=False)) | dict(kwargs)


def _written(func: Any, given: Mapping[str, Any]) -> list[Tensor]:
    """The tensors that an operation writes to."""
    names = [each.name for each in func._schema.arguments if each.alias_info is not None and each.alias_info.is_write]
    return [given[name] for name in names if isinstance(given.get(name), Tensor)]


def _name(func: Any) -> str:
    return str(func._opname)


@contextmanager
def following(images: Tensor) -> Iterator[Following]:
    """Inside, networks are followed: without gradients, and with attention as plain products."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Following(images) as mode:
            yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
