"""Networks of any size with weights that cost nothing: for tests of what pixels can reach."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

_SIDES = {"alexnet": 96, "inception_v3": 96, "maxvit_t": 224, "vit_h_14": 28}
_LARGE = re.compile(
    r"regnet_._.*(16|32|128|8)gf|vit_.*|convnext_(base|large)|resnext101.*|wide.*|efficientnet_(v2_l|b[567])|vgg.*"
)
_DRAWN = 1_000_003  # as many random numbers are enough: a prime, so that no two units get the same


def torchvision_network(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """One of torchvision's classification networks in float64, and a small image that it takes."""
    options: dict[str, object] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    side = _SIDES.get(name, 32 if _LARGE.fullmatch(name) else 64)
    if name.startswith("vit"):
        options["image_size"] = side
    return random_network(lambda: torchvision.models.get_model(name, weights=None, **options)), (3, side, side)


def random_network(build: Callable[[], nn.Module]) -> nn.Module:
    """A network in float64 with random weights of a size that keeps activations alive; they share memory."""
    return with_random_weights(_without_parameters(build))


def with_random_weights(network: nn.Module) -> nn.Module:
    """The same for a network that is there, with or without memory for its parameters."""
    pool: dict[int, Tensor] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            weights = _weights(parameter, pool)
            if isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)) and name == "weight":
                weights = 1 + 0.1 * weights
            setattr(module, name, nn.Parameter(weights, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                setattr(module, name, buffer.double())
    return network.eval()


def _without_parameters(build: Callable[[], nn.Module]) -> nn.Module:
    """A new network whose parameters have no memory, but whose buffers are real."""
    register = nn.Module.register_parameter

    def register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        empty = None if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, empty)

    nn.Module.register_parameter = register_empty  # type: ignore[method-assign]
    try:
        return build()
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _weights(parameter: Tensor, pool: dict[int, Tensor]) -> Tensor:
    """Normal, of variance one over the inputs of a unit: a view of numbers that all weights of this variance share."""
    inputs = math.prod(parameter.shape[1:]) if parameter.dim() > 1 else 100
    count = parameter.numel()
    if inputs not in pool or len(pool[inputs]) < count:
        generator = torch.Generator().manual_seed(inputs)
        some = torch.randn(min(count, _DRAWN), dtype=torch.float64, generator=generator) / math.sqrt(inputs)
        pool[inputs] = some.repeat(-(-count // len(some)))
    return pool[inputs][:count].view(parameter.shape)
