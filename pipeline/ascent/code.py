"""A canvas whose pictures come out of a generator: ascent in the code that it makes pictures of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline import factories
from pipeline.ascent.canvas import zoomed
from pipeline.ascent.recipe import Look, Moment, Size
from pipeline.errors import UserError, first_line
from pipeline.weights import fill, read_weights, weights_hash

MISSING = (
    "The preset gan-prior draws with a generator of yours. Say GENERATOR=package.module:factory; the factory gives a "
    "torch.nn.Module from codes [B, N] to pictures [B, C, H, W] in 0..1, with the attribute `codes` (N). "
    "GENERATOR=package.module:factory,weights.safetensors fills it from a file."
)
_DEVIATIONS = 3


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator by its `name` and the SHA-256 of its tensors; `least` and `most` `[N]` bound its codes.

    `mean` and `std` `[N]` are those of its codes.
    """

    name: str
    tensors: str
    module: nn.Module = field(repr=False, compare=False)
    mean: Tensor = field(repr=False, compare=False)
    std: Tensor = field(repr=False, compare=False)
    least: Tensor = field(repr=False, compare=False)
    most: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Shrink:
    """Multiplies codes by `rate` after every step: DGN-AM's L2."""

    rate: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Codes nearer to 0."""
        return pictures * self.rate


@dataclass(frozen=True, slots=True)
class Codes:
    """Pictures that `generator` makes of codes, scaled to the canvas. Nguyen et al.: DGN-AM (NIPS 2016).

    Codes begin at their mean with Gaussian noise of `noise` standard deviations and stay between `Generator.least` and
    `Generator.most`. Without a generator it draws nothing.
    """

    noise: float
    generator: Generator | None = None

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Codes to begin with, one a seed: `[B, N]`. Raises `UserError` where there is no generator, or it misfits."""
        generator = self._generator()
        noise = torch.stack(
            [torch.randn(len(generator.mean), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        )
        generator.module.cpu()
        codes = self.kept_valid(generator.mean + self.noise * generator.std * noise)
        channels = self.picture(codes[:1], size, look).shape[1]
        if channels != len(look.mean):
            raise UserError(
                f"The generator {generator.name} makes pictures of {channels} channels; this network takes "
                f"{len(look.mean)}. Use a generator for its kind of pictures."
            )
        return codes

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """What the generator makes of codes."""
        pictures: Tensor = self._generator().module.to(parameters.device)(parameters)
        same = (pictures.shape[2], pictures.shape[3]) == size
        return pictures if same else zoomed(pictures, size)

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The nearest codes within bounds."""
        generator = self._generator()
        return parameters.clamp(generator.least.to(parameters.device), generator.most.to(parameters.device))

    @property
    def elements(self) -> int:
        """How many numbers one picture makes inside the generator, for who must fit it into memory."""
        kept: list[int] = []
        generator = self._generator()
        code = generator.mean[None].clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda none: none):
            generator.module(code)
        return sum(kept)

    def _generator(self) -> Generator:
        if self.generator is None:
            raise UserError(MISSING)
        return self.generator


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
