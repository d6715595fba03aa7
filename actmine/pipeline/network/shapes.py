"""The shapes of tensors inside a network: of a graph without computing, of any other by running it once."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from actmine.pipeline.interrupts import held_back
from actmine.pipeline.network.twin import twin

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(
    module: fx.GraphModule, image: tuple[int, int, int], others: dict[str, object] | None = None
) -> Shapes:
    """The shape of every tensor by the name of its node, for one image of shape `image` `[C, H, W]`.

    What else a tapped graph takes is a mark of the image. `others`, if given, gets what nodes give that is no tensor:
    numbers, tuples. The network is left as it is.
    Raises whatever the network raises for images of that size.
    """
    shapes: Shapes = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            with held_back():
                result = super().run_node(n)
            if isinstance(result, Tensor):
                shapes[n.name] = tuple(result.shape)
            elif others is not None:
                others[n.name] = result
            return result

    black = blank(module, image)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        given = len(module.graph.find_nodes(op="placeholder"))
        marks = [torch.zeros(1, dtype=torch.int64, device=black.device) for _ in range(given - 1)]
        Recorder(twin(module)).run(black, *marks)
    return shapes


def output_shape(module: nn.Module, image: tuple[int, int, int]) -> tuple[int, ...]:
    """The shape of what `module` makes of one image of shape `image` `[C, H, W]`.

    Raises whatever the network raises for images of that size.
    """
    if isinstance(module, fx.GraphModule):
        return tensor_shapes(module, image)[list(module.graph.nodes)[-1].args[0].name]
    with torch.inference_mode():
        return tuple(module(blank(module, image)).shape)


def elements(module: nn.Module, image: tuple[int, int, int]) -> int:
    """How many numbers one image of shape `image` makes inside `module`, all tensors together.

    Of a network without a graph, those that autograd would keep.
    """
    if isinstance(module, fx.GraphModule):
        return sum(math.prod(shape) for shape in tensor_shapes(module, image).values())
    own = {each.data_ptr() for each in itertools.chain(module.parameters(), module.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(blank(module, image).requires_grad_())
    return sum(kept.values())


def blank(module: nn.Module, image: tuple[int, int, int]) -> Tensor:
    """A black image `[1, C, H, W]` of a network's own precision, on its own device."""
    own = like(module)
    return torch.zeros(1, *image, dtype=own.dtype, device=own.device)


def noise(module: nn.Module, image: tuple[int, int, int]) -> Tensor:
    """A noisy image `[1, C, H, W]` in 0..1 of a network's own precision, on its own device, the same every time."""
    return torch.rand(1, *image, generator=torch.Generator().manual_seed(0)).to(like(module))


def like(module: nn.Module) -> Tensor:
    """A tensor of a network's own precision, on its own device."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((each for each in tensors if each.is_floating_point()), torch.empty(0))
