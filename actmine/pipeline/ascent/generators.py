"""Loads the generator of gan-prior: a factory of the user's, with a file of weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from actmine.pipeline.ascent.code import MISSING, Generator
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.network import factories
from actmine.pipeline.network.weights import fill, read_weights, weights_hash

_DEVIATIONS = 3


def load_generator(spec: str) -> Generator:
    """The generator that `spec` names: `package.module:factory`, and perhaps a comma and a weights file.

    The module that the factory gives has the attribute `codes` (N), and perhaps `mean` and `std` (N numbers each).
    With these two, codes are what they are in DGN-AM, values behind a ReLU: from 0 to mean + 3 std. Without, they are
    as those of most generators, standard normal, and stay between -3 and 3. Raises `UserError` for a factory or weights
    that cannot be used, and for a module that makes no pictures.
    """
    if not spec.strip():
        raise UserError(MISSING)
    name, _, weights = (part.strip() for part in spec.partition(","))
    factories.check(name, "GENERATOR")
    made = factories.make_module(name, "GENERATOR")
    if weights:
        filled = fill(made, read_weights(Path(weights)))
        if filled.missing:
            lacking = ", ".join(sorted(filled.missing)[:6])
            raise UserError(f"GENERATOR={spec}: the weights lack {lacking}, which the generator needs.")
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    count = getattr(made, "codes", None)
    if not isinstance(count, int) or count < 1:
        raise UserError(f"GENERATOR={spec} gives a module without the attribute `codes`, the length of a code.")
    generator = Generator(name, weights_hash(made), made, *_bounds(spec, made, count))
    _try(spec, generator)
    return generator


def _bounds(spec: str, module: nn.Module, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, deviation, smallest and largest value of each number of a code."""
    given = [getattr(module, name, None) for name in ("mean", "std")]
    if (given[0] is None) != (given[1] is None):
        raise UserError(f"GENERATOR={spec} has one of `mean` and `std` of its codes; give both or neither.")
    if given[0] is None:
        mean, std = torch.zeros(count), torch.ones(count)
        return mean, std, mean - _DEVIATIONS * std, mean + _DEVIATIONS * std
    mean, std = (torch.as_tensor(values, dtype=torch.float32).detach().cpu().flatten() for values in given)
    if len(mean) != count or len(std) != count:
        raise UserError(f"GENERATOR={spec} has {len(mean)} means and {len(std)} deviations for codes of {count}.")
    return mean, std, torch.zeros(count), (mean + _DEVIATIONS * std).clamp_min(0)


def _try(spec: str, generator: Generator) -> None:
    """Makes one picture of the mean code."""
    try:
        with torch.no_grad():
            found = generator.module(generator.mean[None])
    except Exception as error:  # it is anyone's code, and the user's to mend
        raise UserError(
            f"GENERATOR={spec} does not run on codes [1, {len(generator.mean)}]: {first_line(error).rstrip('.')}."
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 4 or found.shape[0] != 1:
        kind = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(f"GENERATOR={spec} makes {kind} of one code, not a picture [1, C, H, W].")
    if not (found.min() >= -1e-3 and found.max() <= 1 + 1e-3):
        raise UserError(
            f"GENERATOR={spec} makes colours from {float(found.min()):.2f} to {float(found.max()):.2f}; "
            "pictures are in 0..1. Let its last step be a sigmoid, or scale what it gives."
        )
