"""Where in a picture a class is decided: Grad-CAM, through captum."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UserError
from pipeline.spoken import install

_NO_MAP = "no module of this network has a map of positions as its output, which Grad-CAM weighs"


def check_installed() -> None:
    """Raises `UserError` without captum."""
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise UserError(f"Class attention needs captum: {install('inspect')}, or --no-attention.") from error


def class_attention(module: nn.Module, image: Tensor, target: int) -> tuple[np.ndarray, str]:
    """How much each pixel of the network's input counts for class `target`, `[H, W]` in 0..1, and the layer read.

    Gradient-weighted class activation mapping (Selvaraju et al., ICCV 2017): the last map of positions, each channel
    weighed by the mean gradient of the class's score, what is negative cut off, stretched bilinearly over the input
    `[1, C, H, W]`; divided by its maximum, all zeros where nothing speaks for the class. Raises `UserError` without
    captum, and for networks without such a map.
    """
    check_installed()
    from captum.attr import LayerGradCam

    network = _frozen(module)
    layer, name = _last_map(network, image)
    found = LayerGradCam(network, layer).attribute(image.clone(), target=target, relu_attributions=True)
    values = functional.interpolate(found.detach(), image.shape[2:], mode="bilinear", align_corners=False)[0, 0]
    return (values / values.max().clamp_min(torch.finfo(values.dtype).tiny)).numpy(), name


def _frozen(module: nn.Module) -> nn.Module:
    """A copy for evaluation in which no rectifier works in place: captum reads a layer after what follows it."""
    network = copy.deepcopy(module).eval()
    for part in network.modules():
        if getattr(part, "inplace", False):
            setattr(part, "inplace", False)  # noqa: B010 - nn.Module's attributes are typed as tensors
    return network


def _last_map(network: nn.Module, image: Tensor) -> tuple[nn.Module, str]:
    """The last module to end with a map of more than one position. Raises `UserError` where there is none."""
    ended: list[tuple[nn.Module, str]] = []
    hooks = []
    for name, part in network.named_modules():
        if name:
            hooks.append(
                part.register_forward_hook(lambda _, __, output, part=part, name=name: note(part, name, output))
            )

    def note(part: nn.Module, name: str, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            ended.append((part, name))

    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not ended:
        raise UserError(f"There is no class attention: {_NO_MAP}. Say --no-attention.")
    return ended[-1]
