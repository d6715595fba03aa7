"""The shape of every tensor inside a traced network, found without computing."""

from __future__ import annotations

import itertools

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

Shapes = dict[str, tuple[int, ...]]


def tensor_shapes(module: fx.GraphModule, image: tuple[int, int, int]) -> Shapes:
    """The shape of every tensor by the name of its node, for one image of shape `image` `[C, H, W]`.

    Raises whatever the network raises for images of that size.
    """
    shapes: Shapes = {}

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor):
                shapes[n.name] = tuple(result.shape)
            return result

    tensors = (each for each in itertools.chain(module.parameters(), module.buffers()) if each.is_floating_point())
    like = next(tensors, torch.empty(0))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        Recorder(module).run(torch.empty(1, *image, dtype=like.dtype, device=like.device))
    return shapes
