"""What a network ends in: scores of classes, or something else that can be named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from actmine.pipeline.network.weights import kind_of


def class_scores(output: Any) -> Tensor | None:
    """The scores `[1, K]` in what a network gives for one image; None if there are none, or several that may be.

    A tensor itself, `logits` by that name, or the only such tensor of a tuple.
    """
    if isinstance(output, Mapping):
        output = output.get("logits")
    elif isinstance(output, (tuple, list)) and not hasattr(output, "logits"):
        fitting = [each for each in output if _are_scores(each)]
        output = fitting[0] if len(fitting) == 1 else None
    output = getattr(output, "logits", output)
    return output if _are_scores(output) else None


def _are_scores(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 2 and len(value) == 1 and value.is_floating_point()


def kind_in_words(output: Any) -> str:
    """What an output is, for a sentence."""
    if isinstance(output, Tensor):
        return f"a tensor {list(output.shape)}"
    if isinstance(output, Mapping):
        return f"{kind_of(output)} of {', '.join(f'{name} ({kind_in_words(value)})' for name, value in output.items())}"
    if isinstance(output, (tuple, list)):
        return f"{kind_of(output)} of {', '.join(map(kind_in_words, output))}"
    return kind_of(output)
