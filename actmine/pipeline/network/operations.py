"""What the operations of networks are to actmine: maps that make units, what follows them, sums, and moves of units."""

from __future__ import annotations

import operator

import torch
import torchvision
from torch import nn
from torch.nn import functional

_CONVOLUTIONS = (nn.modules.conv._ConvNd, torchvision.ops.DeformConv2d)
_MAPS = (*_CONVOLUTIONS, nn.Linear, nn.Bilinear, nn.MultiheadAttention)
_MAP_FUNCTIONS = {
    torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose2d, functional.conv1d, functional.conv2d,
    functional.conv3d, functional.conv_transpose2d, functional.linear,
    torchvision.models.swin_transformer.shifted_window_attention,
}  # fmt: skip
_CONVOLUTION_FUNCTIONS = {each for each in _MAP_FUNCTIONS if "conv" in each.__name__}
_NORM_FUNCTIONS = {
    functional.batch_norm, functional.layer_norm, functional.group_norm, functional.instance_norm,
    functional.local_response_norm,
}  # fmt: skip
_NORM_FILES = (
    "torch.nn.modules.batchnorm", "torch.nn.modules.normalization", "torch.nn.modules.instancenorm",
)  # fmt: skip
_NORM_MODULES = (nn.LayerNorm, torchvision.ops.misc.FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
_ACTIVATION_FUNCTIONS = {
    torch.relu, torch.relu_, torch.sigmoid, torch.tanh, "relu", "relu_", "sigmoid", "sigmoid_", "tanh",
    torch.clamp, torch.clamp_, torch.clamp_min, "clamp", "clamp_", "clamp_min", "clamp_min_",
    *(getattr(functional, name) for name in (
        "relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
        "hardsigmoid", "hardtanh", "softplus", "sigmoid", "tanh", "prelu",
    )),
}  # fmt: skip
SUMS = {operator.add, operator.iadd, torch.add, "add", "add_"}
RESHAPES = {torch.reshape, torch.flatten, torch.unflatten, "view", "reshape", "flatten", "unflatten", "contiguous"}
CONTRACTIONS = {torch.matmul, torch.bmm, torch.einsum, operator.matmul, "matmul", "bmm", "mm", "__matmul__"}


def is_map(module: nn.Module | None, target: object = None) -> bool:
    """A convolution, a linear map, or attention, which ends in one; as a module or as a function."""
    return isinstance(module, _MAPS) if module is not None else target in _MAP_FUNCTIONS


def is_convolution(module: nn.Module | None, target: object = None) -> bool:
    """A map whose units are its second dimension."""
    return isinstance(module, _CONVOLUTIONS) if module is not None else target in _CONVOLUTION_FUNCTIONS


def is_norm(module: nn.Module | None, target: object = None) -> bool:
    """A normalization."""
    if module is None:
        return target in _NORM_FUNCTIONS
    return type(module).__module__ in _NORM_FILES or isinstance(module, _NORM_MODULES)


def is_activation(module: nn.Module | None, target: object = None) -> bool:
    """A nonlinearity that acts on every value by itself."""
    if module is None:
        return target in _ACTIVATION_FUNCTIONS
    return type(module).__module__ == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention)


def is_nothing(module: nn.Module | None) -> bool:
    """A module that changes nothing once a network is trained."""
    return isinstance(module, (nn.Identity, nn.modules.dropout._DropoutNd))


def name_of(module: nn.Module | None, target: object = None) -> str:
    """How an operation is called in the column `kind`."""
    if module is not None:
        return type(module).__name__.lower()
    return str(getattr(target, "__name__", target)).strip("_")
