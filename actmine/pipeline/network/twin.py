"""Copies of networks that share their tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn


def twin(network: nn.Module, convert: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> nn.Module:
    """A copy with modules of its own that shares every tensor, those that modules keep as plain attributes too.

    Each tensor is what `convert` makes of it.

    Whatever a run sets in it, as the hooks of `torch.nn.utils.weight_norm` and of pruning do, stays in the copy.
    """
    tensors = [*network.parameters(), *network.buffers()]
    tensors += [value for part in network.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return copy.deepcopy(network, {id(tensor): convert(tensor) for tensor in tensors})


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on a device: itself on the CPU, elsewhere a copy whose tensors are its own, so that it stays here."""
    if device.type == "cpu":
        return network

    def there(tensor: Tensor) -> Tensor:
        moved = tensor.detach().to(device)
        return nn.Parameter(moved, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else moved

    return twin(network, there)


def twin_of(module: nn.Module) -> nn.Module:
    """A copy that shares whatever the module has; also of one that is parametrized, which `copy.copy` refuses."""
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__ = dict(module.__dict__)
    return twin
