"""Networks of one's own, made ready to be mined: out of their wrappers, in evaluation mode, with their transform."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from actmine.pipeline.errors import UserError
from actmine.pipeline.network.loaded_model import run_once
from actmine.pipeline.network.weights import RANDOM_SEED
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.preprocessing.options import PreprocessingOptions, with_overrides
from actmine.pipeline.preprocessing.transforms import follow

PROGRAM = (
    "a program of torch.jit or torch.export, in which single layers cannot be read. "
    "Give the torch.nn.Module that it was made from."
)
_USUAL = (256, (224, 224))
_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
_AVERAGES = ("timm.utils.model_ema", "ema_pytorch.")
"""Where further averages of weights come from, which hold the averaged module as `module` or `ema_model`."""


def is_program(network: object) -> bool:
    """Whether it is a compiled program rather than a module: torch.export's modules hold operations only."""
    if isinstance(network, fx.GraphModule):
        return any(isinstance(node.target, OpOverload) for node in network.graph.nodes)
    return isinstance(network, torch.jit.ScriptModule | torch.jit.ScriptFunction | torch.export.ExportedProgram)


def unwrapped(network: nn.Module) -> nn.Module:
    """The module inside what training wraps around one: parallel runs, `torch.compile`, averages of weights."""
    while (inner := _inside(network)) is not None:
        network = inner
    return network


def _inside(network: nn.Module) -> nn.Module | None:
    """What one wrapper holds; None of a module that is none."""
    averages = type(network).__module__.startswith(_AVERAGES)
    held = ["_orig_mod", *(["module", "ema_model"] if averages or isinstance(network, _WRAPPERS) else [])]
    return next((each for name in held if isinstance(each := getattr(network, name, None), nn.Module)), None)


def evaluated(network: nn.Module, said: str) -> nn.Module:
    """On the CPU, in float32 and in evaluation mode, out of what training wrapped around it and its parts.

    `said` is how the user gave it. Raises `UserError` for programs among its parts.
    """
    network = unwrapped(network)
    for name, part in list(network.named_modules()):
        if is_program(part):
            raise UserError(f"{said}: {name} is {PROGRAM}" if name else f"{said} is {PROGRAM}")
        if isinstance(part, nn.DataParallel):
            part.device_ids = []  # on the GPUs that there are, it would not run on a CPU
        if hasattr(part, "_orig_mod"):
            network.set_submodule(name, part._orig_mod)
    try:
        return network.cpu().float().eval()
    except NotImplementedError as error:  # so says what torch.export made
        raise UserError(f"{said} is {PROGRAM}") from error


def complete(said: str, network: nn.Module, how: Preprocessing) -> None:
    """Has lazy modules take their shapes from an image, and their numbers from a fixed seed."""
    if any(is_lazy(each) for each in (*network.parameters(), *network.buffers())):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            run_once(said, network, how)


def preprocessing_of(
    transform: Callable[..., Any] | None, overrides: PreprocessingOptions, network: nn.Module
) -> tuple[Preprocessing, str]:
    """What a transform does, with what is overridden; in place of none ImageNet's usual one, and a sentence on that.

    A `network` that normalizes its images itself, as torchvision's detectors do, gets them unnormalized. The sentence
    is empty where there is nothing to say. Raises `UserError` for a transform that is no use.
    """
    if transform is not None:
        return _followed(transform, overrides), ""
    itself = any(isinstance(part, GeneralizedRCNNTransform) for part in network.modules())
    usual = Preprocessing.usual(*_USUAL, mean=(0.0,) * 3, std=(1.0,) * 3) if itself else Preprocessing.usual(*_USUAL)
    how = with_overrides(usual, overrides)
    if overrides.resize or overrides.crop:
        return how, ""
    normalized = "left as they are, since it normalizes them itself" if itself else "normalized as usual for ImageNet"
    return how, f"images are resized to {_USUAL[0]}, cut to {how.size[0]} x {how.size[1]} and {normalized}."


def _followed(transform: Callable[..., Any], overrides: PreprocessingOptions) -> Preprocessing:
    """What the transform does for as many channels as are asked for."""
    if overrides.channels in (1, 3):
        try:
            how = follow(transform, overrides.channels)
        except UserError:
            pass  # it is for another number of channels: it is followed as it is, and changed by the flags
        else:
            changed = how.channels != overrides.channels
            return with_overrides(how, overrides if changed else replace(overrides, channels=0))
    return with_overrides(follow(transform), overrides)
