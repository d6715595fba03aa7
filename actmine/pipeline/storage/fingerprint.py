"""Settings as bytes and as a short name: equal settings have equal ones, on every machine."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # runs are looked at where there is no torch
    from torch import Tensor


def canonical(record: dict[str, Any]) -> bytes:
    """A record as JSON in one form."""
    return json.dumps(record, sort_keys=True, indent=1).encode() + b"\n"


def fingerprint(record: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits of the SHA-256 of a record."""
    return hashlib.sha256(canonical(record)).hexdigest()[:16]


def described(tensor: Tensor | None) -> str:
    """A tensor's shape and the first sixteen digits of the SHA-256 of its numbers: equal for equal ones."""
    if tensor is None:
        return "None"
    numbers = tensor.detach().cpu().contiguous().numpy().tobytes()
    return f"{list(tensor.shape)}:{hashlib.sha256(numbers).hexdigest()[:16]}"
