"""What files of weights hold beside one network's tensors: several parts, and numbers of numpy."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from actmine.pipeline.errors import UserError, listed


def part_of(content: Mapping[str, Any], part: str) -> tuple[Any, str]:
    """What lies under the dotted name `part`, as far as a checkpoint's dictionaries go, and the rest of the name."""
    at, rest = content, part
    while isinstance(at, Mapping) and rest:
        keys = [key for key in map(str, at) if f"{rest}.".startswith(f"{key}.") and isinstance(at.get(key), Mapping)]
        if not keys:
            break
        key = max(keys, key=len)
        at, rest = at[key], rest[len(key) + 1 :]
    return at, rest


def below(tensors: Mapping[str, Tensor], part: str, origin: str) -> dict[str, Tensor]:
    """The tensors whose names go on behind `part`, wherever it stands in them, by the rest of their names.

    Raises `UserError` where there are none, or where `part` stands in several places.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        before, stands, behind = f".{name}".partition(f".{part}.")
        if stands:
            found.setdefault(before, {})[behind] = tensor
    if not found:
        parts = sorted({name.partition(".")[0] for name in tensors})
        raise UserError(f"{origin} has no part {part!r}. It holds {listed(parts)}.")
    if len(found) > 1:
        places = sorted(f"{before}.{part}".lstrip(".") for before in found)
        raise UserError(f"{origin} has several parts {part!r}. Say which: {listed(places)}.")
    return next(iter(found.values()))


class _Kind:
    """Stands for `numpy.dtype`: the kind of a plain number and its byte order, and no other."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"b1|[iuf][1248]", code):
            raise pickle.UnpicklingError(f"a numpy scalar of kind {code!r}")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(kind: _Kind, data: bytes) -> float | int | bool:
    """Stands for numpy's own maker of scalars: a number of Python, out of its bytes."""
    number: float | int | bool = np.frombuffer(data, f"{kind.order}{kind.code}", 1)[0].item()
    return number


NUMBERS: list[tuple[Callable[..., Any], str]] = [
    (_Kind, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]
"""What checkpoints with numbers of numpy (a best accuracy, a learning rate) may name besides tensors.

Nothing of numpy is called: each name stands for a function of ours, which makes a number of Python of at most 8 bytes.
"""
