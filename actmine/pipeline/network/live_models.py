"""A module that somebody holds, as a `Network`: what is mined is a copy, and theirs stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from actmine.pipeline.errors import UserError
from actmine.pipeline.network.evaluated import PROGRAM, complete, evaluated, is_program, preprocessing_of, unwrapped
from actmine.pipeline.network.loaded_model import LoadedModel
from actmine.pipeline.network.models import Network, asked_for, network_made
from actmine.pipeline.network.twin import twin
from actmine.pipeline.network.weights import kind_of
from actmine.pipeline.preprocessing.options import PreprocessingOptions

LIVE = "as it was given"
"""What stands for the weights of a module that has no name to load it by."""


def network_of(
    module: nn.Module,
    transform: Callable[..., Any] | None = None,
    overrides: PreprocessingOptions = PreprocessingOptions(),
    name: str = "",
    categories: Sequence[str] | None = None,
) -> Network:
    """The network that a live `module` is, with what its `transform` makes of an image.

    Modules are copied; tensors are shared where they are float32 on the CPU, and copied there where they are not. So
    the caller's module keeps its device, precision and mode. Hooks are part of what it computes: the copy has them too,
    and calls them while it is mined. `name` is its class unless said. Raises `UserError` for
    what is no module, for programs of torch.jit, and for one that does not run on what the transform makes.
    """
    if is_program(module):
        raise UserError(f"model is {PROGRAM}")
    if not isinstance(module, nn.Module):
        raise UserError(f"model is {kind_of(module)}, not a torch.nn.Module and no name of a network.")
    inner = unwrapped(module)
    name = name or type(inner).__name__
    own = evaluated(_copied(inner, name), name)
    how, assumed = preprocessing_of(transform, overrides, own)
    complete(name, own, how)
    notices = (
        [f"No transform is given: {assumed} Say transform=, or --resize, --crop, --mean and --std."] if assumed else []
    )
    made = LoadedModel(own, how, LIVE, None if categories is None else tuple(categories), notices=tuple(notices))
    return network_made(name, made, overrides, asked_for("", overrides), runs=False)


def _copied(module: nn.Module, name: str) -> nn.Module:
    """Its modules copied, its tensors shared where they are what is computed with."""

    def here(tensor: Tensor) -> Tensor:
        if is_lazy(tensor):
            return copy.deepcopy(tensor)
        there = tensor.detach().to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
        if there.data_ptr() == tensor.data_ptr():
            return tensor
        return nn.Parameter(there, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else there

    try:
        return twin(module, here)
    except Exception as error:  # whatever a module of anyone's keeps that cannot be copied
        raise UserError(
            f"{name} cannot be copied ({type(error).__name__}: {error}), and is not mined as it is: that would change "
            "its mode and its device. Take out of it what cannot be copied, such as open files and locks."
        ) from error
