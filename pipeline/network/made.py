"""What each kind of MODEL makes: a module with its weights and its preprocessing, on the way to a `Network`."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pipeline.preprocessing.images import Preprocessing


@dataclass(frozen=True, slots=True)
class Made:
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
