"""A canvas whose pictures come out of a generator: ascent in the code that it makes pictures of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from actmine.pipeline.ascent.canvas import zoomed
from actmine.pipeline.ascent.recipe import Look, Moment, Size
from actmine.pipeline.errors import UserError

MISSING = (
    "The preset gan-prior draws with a generator of yours. Say GENERATOR=package.module:factory; the factory gives a "
    "torch.nn.Module from codes [B, N] to pictures [B, C, H, W] in 0..1, with the attribute `codes` (N). "
    "GENERATOR=package.module:factory,weights.safetensors fills it from a file."
)


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
