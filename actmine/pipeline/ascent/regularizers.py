"""What shapes gradients and keeps pictures tame: blur, natural spectra and colours, decay, clips; as parts of recipes.

Each works on pictures or gradients `[B, C, H, W]`, and none mixes the pictures of a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from actmine.pipeline.ascent.recipe import Moment, Schedule

Change = Callable[[Tensor], Tensor]

COLOUR_BASIS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""How the colours of natural images vary together (lucid, ImageNet): a root of their covariance, columns by size."""


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian blur after every `every`-th step; `sigma` in pixels. Øygard's deepdraw; Yosinski et al. 2015."""

    sigma: Schedule
    every: int = 1
    fades: bool = False

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """The blurred pictures; with `fades` less on small canvases."""
        if (now.step + 1) % self.every:
            return pictures
        return blur(self.sigma(now.share) * (now.strength if self.fades else 1.0))(pictures)


@dataclass(frozen=True, slots=True)
class NaturalSpectrum:
    """Scales each spatial frequency f of a gradient by f ** -power; see `natural_spectrum`."""

    power: float

    def __call__(self, gradients: Tensor, now: Moment) -> Tensor:
        """The gradients with more weight on coarse structure, less so on small canvases."""
        return natural_spectrum(self.power * now.strength)(gradients)


@dataclass(frozen=True, slots=True)
class NaturalColours:
    """Moves gradients by `share` towards the directions of natural colours; see `natural_colours`."""

    share: float

    def __call__(self, gradients: Tensor, now: Moment) -> Tensor:
        """The gradients, less changed on small canvases."""
        return natural_colours(self.share * now.strength)(gradients)


@dataclass(frozen=True, slots=True)
class Decay:
    """Takes `rate` of the difference to the mean colour away at every step: L2 decay of Yosinski et al. 2015."""

    rate: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Pictures nearer to the mean colour."""
        mean = mean_colour(pictures, now)
        return mean + (1 - self.rate) * (pictures - mean)


@dataclass(frozen=True, slots=True)
class ClipSmall:
    """Gives the mean colour to the `percent` of pixels that differ from it least. Yosinski et al. 2015.

    Fewer on small canvases, where a unit needs every pixel.
    """

    percent: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Pictures of fewer strong pixels."""
        mean = mean_colour(pictures, now)
        norms = (pictures - mean).square().sum(1, keepdim=True).sqrt()
        return torch.where(below_percentile(norms, self.percent * now.strength), mean, pictures)


@dataclass(frozen=True, slots=True)
class ClipIdle:
    """Gives the mean colour to the `percent` of pixels that contribute least. Yosinski et al. 2015.

    A pixel's contribution is what the unit would lose without it, to first order: its difference to the mean colour
    times its gradient, summed over channels, whatever the sign. Fewer on small canvases.
    """

    percent: float

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """Pictures of fewer pixels, those that matter."""
        if now.gradient is None:
            raise ValueError("contributions are known behind the network only: ClipIdle is a regularizer")
        mean = mean_colour(pictures, now)
        contributions = ((pictures - mean) * now.gradient).sum(1, keepdim=True).abs()
        return torch.where(below_percentile(contributions, self.percent * now.strength), mean, pictures)


@dataclass(frozen=True, slots=True)
class Develop:
    """At the last step gives each picture a deviation of `contrast` around a middle grey (0..1), and cuts it to 0..1.

    How Chollet's article makes its faint pictures visible.
    """

    contrast: float = 0.1

    def __call__(self, pictures: Tensor, now: Moment) -> Tensor:
        """The same but for the last step."""
        if now.share < 1:
            return pictures
        around = pictures - pictures.mean((1, 2, 3), keepdim=True)
        deviation = around.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-5)
        return (0.5 + self.contrast * around / deviation).clamp(0, 1)


def mean_colour(pictures: Tensor, now: Moment) -> Tensor:
    """The network's mean colour, `[1, C, 1, 1]`."""
    return torch.tensor(now.look.mean, device=pictures.device, dtype=pictures.dtype).view(1, -1, 1, 1)


def below_percentile(values: Tensor, percent: float) -> Tensor:
    """Which of each picture's `values` `[B, …]` lie below their own `percent`-th percentile (as numpy has it)."""
    flat = values.flatten(1)
    last = flat.shape[1] - 1
    place = percent / 100 * last
    low = min(int(place), last)
    lower = flat.kthvalue(low + 1, 1).values
    upper = flat.kthvalue(min(low + 1, last) + 1, 1).values
    limit = lower + (upper - lower) * (place - low)
    return values < limit.view(-1, *[1] * (values.dim() - 1))


def blur(sigma: float) -> Change:
    """Gaussian blur of `sigma` pixels, cut off at 4 sigma; beyond borders pictures go on with their edge pixels.

    Below a tenth of a pixel it does nothing.
    """
    if sigma < 0.1:
        return lambda pictures: pictures

    def change(pictures: Tensor) -> Tensor:
        down = _blur_matrix(pictures.shape[2], sigma, pictures.device)
        across = _blur_matrix(pictures.shape[3], sigma, pictures.device)
        return down @ (pictures @ across.t())

    return change


def natural_spectrum(power: float) -> Change:
    """Scales each spatial frequency f by f ** -power: gradients then spread over scales as natural images do.

    The same as ascending in a Fourier basis scaled by 1 / f (lucid), with the pictures kept as pixels. Beyond their
    edges gradients go on as zeros up to a `quick_length`: transforms of 215 pixels take six times as long as of 216.
    """
    if power <= 0:
        return lambda gradients: gradients

    def change(gradients: Tensor) -> Tensor:
        height, width = gradients.shape[2:]
        size = quick_length(height), quick_length(width)
        spectrum = torch.fft.rfft2(gradients, s=size)
        changed = torch.fft.irfft2(spectrum * frequency_scale(*size, power, gradients.device), s=size)
        return changed[:, :, :height, :width]

    return change


@functools.cache
def quick_length(length: int) -> int:
    """The smallest length from `length` on that Fourier transforms are quick for: no prime factor above 11."""
    rest = length
    for prime in (2, 3, 5, 7, 11):
        while rest % prime == 0:
            rest //= prime
    return length if rest == 1 else quick_length(length + 1)


def natural_colours(share: float) -> Change:
    """Moves RGB gradients by `share` (0..1) towards the directions in which the colours of natural images vary.

    Other numbers of channels stay as they are.
    """
    basis = torch.tensor(COLOUR_BASIS)
    together = basis @ basis.t()
    mixing = share * together / together.diagonal().mean() + (1 - share) * torch.eye(3)

    def change(gradients: Tensor) -> Tensor:
        if gradients.shape[1] != 3 or share <= 0:
            return gradients
        return torch.einsum("ij,bjhw->bihw", mixing.to(gradients.device), gradients)

    return change


@functools.lru_cache(maxsize=64)
def _blur_matrix(length: int, sigma: float, device: torch.device) -> Tensor:
    """`[length, length]`, row i holds the weights of pixel i; matrices are faster than convolving three channels."""
    reach = int(4 * sigma + 0.5)
    taps = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (taps / sigma) ** 2)
    columns = (torch.arange(length)[:, None] + taps).clamp(0, length - 1)
    matrix = torch.zeros(length, length).scatter_add_(1, columns, (weights / weights.sum()).expand(length, -1))
    return matrix.to(device)


@functools.lru_cache(maxsize=64)
def frequency_scale(height: int, width: int, power: float, device: torch.device) -> Tensor:
    """`[height, width // 2 + 1]` for `rfft2`; the constant counts like the lowest frequency."""
    rows, columns = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    frequency = (rows[:, None] ** 2 + columns**2).sqrt().clamp_min(1 / max(height, width))
    return frequency.pow(-power).to(device)
