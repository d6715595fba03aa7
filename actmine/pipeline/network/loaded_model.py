"""What each kind of MODEL makes: a module with its weights and its preprocessing, on the way to a `Network`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.preprocessing.images import Preprocessing


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A module in evaluation mode on the CPU, and all that is known of it.

    `weights` says where its tensors came from, `missing` names those that a file lacked (they are random), `notices`
    are sentences for the user. `categories` are its classes in order, where known.
    """

    module: nn.Module
    preprocessing: Preprocessing
    weights: str
    categories: tuple[str, ...] | None = None
    missing: frozenset[str] = frozenset()
    notices: tuple[str, ...] = ()


def run_once(name: str, module: nn.Module, how: Preprocessing) -> None:
    """Runs one black image through a network. Raises `UserError` where it fails, with a guess at what it takes."""
    try:
        with torch.no_grad():
            module(torch.zeros(1, how.channels, *how.size))
    except Exception as error:  # whatever anyone's network raises
        first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
        takes = first.in_channels if first is not None else how.channels
        guess = f"its first convolution takes {takes} channel{'s' * (takes > 1)}. " if takes != how.channels else ""
        raise UserError(
            f"{name} does not run on images of {how.size[0]} x {how.size[1]} pixels and {how.channels} "
            f"channel{'s' * (how.channels > 1)}: {first_line(error).rstrip('.')}. "
            f"{guess[:1].upper()}{guess[1:]}--resize, --crop and --channels say what it gets."
        ) from error
