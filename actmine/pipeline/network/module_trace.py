"""A network that torch.fx cannot follow, by its modules: each call of a module is a point, read by a forward hook.

What a network does between its modules, by functions, is not seen; that a module ends in a residual sum is told by
autograd, also of an activation that is given one. Names are those of `actmine.pipeline.network.names`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.network import operations
from actmine.pipeline.network.names import Names
from actmine.pipeline.network.points import CannotTrace, Point, Read, See, default_unit_dim
from actmine.pipeline.network.shapes import blank
from actmine.pipeline.network.twin import twin


@dataclass(slots=True)
class _Call:
    """One call of a module: its node, what it took and gave, the call that made what it took, those that took it."""

    node: str
    name: str
    module: nn.Module
    source: _Call | None
    source_shape: tuple[int, ...] | None
    shape: tuple[int, ...] | None = None
    inner: _Call | None = None
    sum: str = ""
    of_image: bool = False
    users: list[_Call] = field(default_factory=list)


class ModuleTrace:
    """Every call of a module. Raises `CannotTrace` where the network does not run."""

    def __init__(self, module: nn.Module, input_shape: tuple[int, int, int]) -> None:
        self.module = module
        self._calls = _observed(module, input_shape)
        self._by_node = {call.node: call for call in self._calls}
        self._places = {call.node: place for place, call in enumerate(self._calls)}
        self._units_in: dict[str, int] = {}
        for call in self._calls:
            if (dim := self._unit_dim(call)) is not None:
                self._units_in[call.node] = dim

    @property
    def names(self) -> list[str]:
        """The exact names that may be asked for."""
        return [call.node for call in self._calls]

    def find(self, name: str) -> Point | None:
        """The point with an exact name, None if there is none."""
        call = self._by_node.get(name)
        return None if call is None else self._point(call, call.sum or operations.name_of(call.module))

    def points(self) -> list[Point]:
        """Every point that gives a tensor which depends on the image, in running order."""
        return [
            self._point(call, call.sum or operations.name_of(call.module))
            for call in self._calls
            if call.shape is not None and call.of_image
        ]

    def unseen(self) -> dict[str, str]:
        """Modules that nothing can be read of: those that were not called as the network was followed."""
        called = {call.name for call in self._calls}
        attention = {call.name for call in self._calls if isinstance(call.module, nn.MultiheadAttention)}
        return {
            name: "it did not run on the images by which the network was followed"
            for name, _ in self.module.named_modules()
            if name and name not in called and name.rpartition(".")[0] not in attention
        }

    def bearing(self) -> list[Point]:
        """Maps after what directly follows them, and modules that end in a residual sum, in running order."""
        found: dict[str, tuple[_Call, str]] = {}
        for call in self._calls:
            if operations.is_map(call.module):
                chain = _chain(call)
                kind = " + ".join(operations.name_of(part.module) for part in chain)
                found[chain[-1].node] = (chain[-1], kind)
            elif call.sum:
                found[call.node] = (call, call.sum)
        return [self._point(*found[node]) for node in sorted(found, key=self.place) if self._by_node[node].of_image]

    def place(self, node: str) -> int:
        """Where in running order a call ends."""
        return self._places[node]

    def run(self, images: Tensor, see: See) -> Any:
        """Runs the whole network on `images` `[B, C, H, W]`; `see` gets what every call of a module gives."""
        with _hooked(self.module, set(self._by_node)), _frame(_Frame(see, Names(self.module))):
            return self.module(images)

    def reading(
        self, nodes: Sequence[str], read: Sequence[Read], join: Callable[[list[Any]], Any], marked: bool = False
    ) -> nn.Module:
        """Runs the network as far as `nodes` need: images to `join` of what each of `read` makes of its node.

        Where images are `marked`, it takes a second argument, marks `[B]`, and hands it to each of `read`.
        """
        return Hooked(self.module, nodes, read, join, self._needed(nodes)).eval()

    def _needed(self, nodes: Sequence[str]) -> set[str]:
        """Names of the tensors of the network's state that may have a say in what `nodes` give."""
        last = max(self.place(node) for node in nodes)
        called = {call.name: call.module for call in self._calls[: last + 1]}
        around = {".".join(name.split(".")[:depth]) for name in called for depth in range(name.count(".") + 1)}
        names = {
            f"{name}.{key}" for name, module in called.items() if not around & {name} for key in module.state_dict()
        }
        for name in around:
            module = self.module.get_submodule(name)
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            names |= {f"{name}.{key}" if name else key for key, _ in own}
        return names

    def _point(self, call: _Call, kind: str) -> Point:
        unit_dim = default_unit_dim(call.shape, self._units_in.get(call.node))
        return Point(call.node, call.node, kind, call.shape, unit_dim, call.of_image, call.node in self._units_in)

    def _unit_dim(self, call: _Call) -> int | None:
        if call.shape is None:
            return None
        if operations.is_map(call.module):
            return 1 if operations.is_convolution(call.module) else len(call.shape) - 1
        if isinstance(call.module, nn.LayerNorm) and len(call.shape) == 3:
            return 2
        for before, shape in ((call.inner, call.inner and call.inner.shape), (call.source, call.source_shape)):
            if before is not None and shape == call.shape and before.node in self._units_in:
                return self._units_in[before.node]
        return None


class Hooked(nn.Module):
    """A copy of a network, sharing its tensors, whose hooks read some of its points; it stops behind the last.

    `needed` names the tensors of its state that what it reads may depend on.
    """

    def __init__(
        self,
        network: nn.Module,
        nodes: Sequence[str],
        read: Sequence[Read],
        join: Callable[[list[Any]], Any],
        needed: set[str],
    ) -> None:
        super().__init__()
        self.network, self.needed = twin(network), needed
        self.nodes, self.read, self.join = list(nodes), list(read), join
        self.readers = nn.ModuleList(each.function for each in read if isinstance(each.function, nn.Module))
        _hook(self.network, set(self.nodes))

    def forward(self, images: Tensor, *marks: Tensor) -> Any:
        """What `join` makes of all readings of `images` `[B, C, H, W]`; each of `read` gets their `marks` `[B]` too."""
        found: dict[int, Any] = {}
        of_node: dict[str, list[int]] = {}
        for number, node in enumerate(self.nodes):
            of_node.setdefault(node, []).append(number)

        def see(node: str, tensor: Tensor) -> None:
            for number in of_node.get(node, ()):
                found[number] = self.read[number](tensor, *marks)
                if len(found) == len(self.nodes):
                    raise _Enough

        with _frame(_Frame(see, Names(self.network))), suppress(_Enough):
            self.network(images)
        if len(found) < len(self.nodes):
            silent = next(node for number, node in enumerate(self.nodes) if number not in found)
            raise UserError(
                f"Layer {silent!r} did not run for a batch of {len(images)} images: the network calls it for some "
                "images only. Leave it out of LAYERS."
            )
        return self.join([found[number] for number in range(len(self.nodes))])


class _Enough(Exception):
    """All has been read: the rest of the network need not run."""


@dataclass(slots=True)
class _Frame:
    """One run of a hooked network in one thread."""

    see: See
    names: Names


_running = threading.local()  # which run a hook belongs to: several threads may run the same network


@contextmanager
def _frame(frame: _Frame) -> Iterator[None]:
    before = getattr(_running, "frame", None)
    _running.frame = frame
    try:
        yield
    finally:
        _running.frame = before


def _show(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Any:
    """The forward hook of the module called `name`."""
    frame: _Frame | None = getattr(_running, "frame", None)
    if frame is None:
        return None
    node = frame.names.of_module(name)
    tensor = _tensor(output)
    other = None if tensor is None else frame.see(node, tensor)
    return other if output is tensor or other is None else (other, *output[1:])


def _hook(network: nn.Module, nodes: set[str]) -> list[Any]:
    wanted = {name for node in nodes for name in (node, node.rpartition("_")[0]) if name}
    return [
        module.register_forward_hook(partial(_show, name)) for name, module in network.named_modules() if name in wanted
    ]


@contextmanager
def _hooked(network: nn.Module, nodes: set[str]) -> Iterator[None]:
    handles = _hook(network, nodes)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensor(output: Any) -> Tensor | None:
    """The tensor that a module gives or takes, or the first of several."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _observed(network: nn.Module, input_shape: tuple[int, int, int]) -> list[_Call]:
    """All calls in the order in which they end, from a run on one black image."""
    calls: list[_Call] = []
    open_calls: list[_Call] = []
    made: dict[int, tuple[Tensor, _Call, int]] = {}  # who made a tensor last; holding it keeps its number its own
    names = Names(network)

    def maker(tensor: Tensor | None) -> _Call | None:
        """Who made a tensor as it is now: not if a function has changed it in place since."""
        _, call, version = made.get(id(tensor), (None, None, None))
        return call if tensor is not None and tensor._version == version else None

    def begins(name: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        tensor = _tensor(inputs or (named.get("input"),))
        source = maker(tensor)
        shape = None if tensor is None else tuple(tensor.shape)
        open_calls.append(_Call("", name, module, source, shape))

    def ends(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        call = open_calls.pop()
        call.node = names.of_module(name)
        tensor = _tensor(output)
        if tensor is not None:
            call.shape, call.of_image = tuple(tensor.shape), tensor.requires_grad
            call.inner = maker(tensor)
            fresh = call.inner is None
            whole = operations.is_map(module) or operations.is_norm(module)  # timm's norms hold their activation
            leaf = whole or not any(True for _ in module.children())
            if leaf:
                if call.source is not None:
                    call.source.users.append(call)
                elif operations.is_activation(module):
                    call.sum = _sum(tensor)
                call.inner = None
            elif call.inner is None:
                call.inner = next((each for each in reversed(calls) if each.shape == call.shape), None)
                call.sum = _sum(tensor)
            if leaf or fresh:
                made[id(tensor)] = (tensor, call, tensor._version)
        calls.append(call)

    named = [(name, module) for name, module in network.named_modules() if name]
    handles = [module.register_forward_pre_hook(partial(begins, name), with_kwargs=True) for name, module in named]
    handles += [module.register_forward_hook(partial(ends, name)) for name, module in named]
    images = blank(network, input_shape).requires_grad_()
    try:
        with torch.enable_grad(), _only_images_count(network):
            network(images)
    except Exception as error:  # whatever a network's code raises
        raise CannotTrace(f"it does not run ({type(error).__name__}: {first_line(error)})") from error
    finally:
        for handle in handles:
            handle.remove()
    return calls


@contextmanager
def _only_images_count(network: nn.Module) -> Iterator[None]:
    """Inside, autograd follows the images and no parameter: what requires a gradient depends on them."""
    parameters = [each for each in network.parameters() if each.requires_grad]
    for each in parameters:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in parameters:
            each.requires_grad_(True)


_ACTIVATIONS = ("Relu", "Gelu", "Silu", "Hardswish", "LeakyRelu", "Hardtanh", "Sigmoid", "Tanh", "Elu", "Mish")


def _sum(tensor: Tensor) -> str:
    """The kind of a tensor that autograd knows to be a residual sum, perhaps after an activation; empty otherwise."""
    step, kind = tensor.grad_fn, "add"
    if step is not None and step.name().removesuffix("Backward0") in _ACTIVATIONS:
        kind += f" + {step.name().removesuffix('Backward0').lower()}"
        step = step.next_functions[0][0]
    if step is None or step.name() != "AddBackward0":
        return ""
    parts = [part for part, _ in step.next_functions if part is not None]
    return kind if len(parts) == 2 and not any("AccumulateGrad" in part.name() for part in parts) else ""


def _chain(call: _Call) -> list[_Call]:
    """A map, the normalization and the activation that directly follow it."""
    chain = [call]
    for follows in (operations.is_norm, operations.is_activation):
        follower = _follower(chain[-1])
        if follower is not None and follows(follower.module):
            chain.append(follower)
    return chain


def _follower(call: _Call) -> _Call | None:
    """The only module that takes what a call gives."""
    users = call.users
    if len(users) != 1:
        return None
    return _follower(users[0]) if operations.is_nothing(users[0].module) else users[0]
