"""Canvases of waves: pictures as spectra, free in size and phase (lucid), or in phase alone (MACO)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actmine.pipeline.ascent.recipe import Look, Size
from actmine.pipeline.ascent.regularizers import COLOUR_BASIS, frequency_scale

_LARGEST = max(math.hypot(*column) for column in zip(*COLOUR_BASIS, strict=True))
_CONTRAST = 4.0  # lucid's divisor of all pictures


@dataclass(frozen=True, slots=True)
class Fourier:
    """Pictures as Fourier coefficients scaled by 1 / f, of decorrelated colours, through a sigmoid.

    lucid's (Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017). Coefficients begin with Gaussian noise
    of deviation `noise`, each picture's from its own seed. Three channels are taken for RGB, whose decorrelated colours
    are mixed as those of natural images are; other numbers of channels stand for themselves.
    """

    noise: float

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Real and imaginary parts to begin with: `[B, C, H, W // 2 + 1, 2]`."""
        shape = len(look.mean), size[0], size[1] // 2 + 1, 2
        return torch.stack(
            [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * self.noise for seed in seeds]
        )

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """The pictures, colours in 0..1."""
        spectrum = torch.view_as_complex(parameters) * _scale(size, parameters.device)
        waves = torch.fft.irfft2(spectrum, s=size) / _CONTRAST
        return torch.sigmoid(mixed(waves, normalized_basis(len(look.mean))))

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The same: all coefficients stand for a picture."""
        return parameters

    def parameters(self, pictures: Tensor) -> Tensor:
        """The coefficients of `pictures` `[B, C, H, W]`, whose colours lie between 0 and 1, ends excluded."""
        basis = normalized_basis(pictures.shape[1])
        waves = mixed(torch.logit(pictures), None if basis is None else torch.linalg.inv(basis)) * _CONTRAST
        size = pictures.shape[2], pictures.shape[3]
        return torch.view_as_real(torch.fft.rfft2(waves) / _scale(size, pictures.device))


@dataclass(frozen=True, slots=True)
class Phase:
    """Pictures whose Fourier transform has given magnitudes and free phases, which begin as chance has them.

    MACO (Fel et al.: Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization,
    NeurIPS 2023). Magnitudes are the mean ones of the dataset, `Look.spectrum`. Where these are not known, they fall by
    1 / f in decorrelated colours, with the covariance of natural colours around the network's mean colour, or with the
    network's own deviation where there are not three channels. Colours beyond 0..1 are cut off, so the magnitudes are
    exact where there are none: the published sigmoid would change them all.
    """

    def start(self, seeds: Sequence[int], size: Size, look: Look) -> Tensor:
        """Phases to begin with, `[B, C, H, W // 2 + 1]` (radians), one picture a seed."""
        shape = len(look.mean), size[0], size[1] // 2 + 1
        phases = torch.empty(len(seeds), *shape)
        for picture, seed in zip(phases, seeds, strict=True):
            picture.uniform_(-math.pi, math.pi, generator=torch.Generator().manual_seed(seed))
        return phases

    def picture(self, parameters: Tensor, size: Size, look: Look) -> Tensor:
        """The pictures, colours in 0..1."""
        channels, device = len(look.mean), parameters.device
        phases = _as_wide_as_chance(parameters)
        if look.spectrum is not None:
            # One phase for all channels, and a little of one for each: natural colours agree on where things are.
            phases = mixed(phases, _phase_basis(channels))
            magnitudes = at_size(look.spectrum.to(device), size)
            return _from_phases(magnitudes, phases, size).clamp(0, 1)
        waves = _from_phases(_falling(size, device), phases, size)
        waves = mixed(waves, torch.tensor(COLOUR_BASIS)) if channels == 3 else waves * _column(look.std, device)
        return (_column(look.mean, device) + waves).clamp(0, 1)

    def kept_valid(self, parameters: Tensor) -> Tensor:
        """The same: all phases stand for a picture."""
        return parameters


def mean_spectrum(pictures: Tensor) -> Tensor:
    """The mean magnitude of the Fourier transforms of pictures `[N, C, H, W]` in 0..1, as `Look.spectrum` has it."""
    return torch.fft.rfft2(pictures).abs().mean(0)


def at_size(spectrum: Tensor, size: Size) -> Tensor:
    """Magnitudes `[C, H, W // 2 + 1]` (W even) of whole pictures, as those pictures would have them at another size.

    Frequencies in cycles a picture keep their places. Those that the larger size has and the smaller has not are 0.
    """
    height, width = spectrum.shape[1], 2 * (spectrum.shape[2] - 1)
    if (height, width) == size:
        return spectrum
    found = spectrum.new_zeros(spectrum.shape[0], size[0], size[1] // 2 + 1)
    columns = min(found.shape[2], spectrum.shape[2])
    below, above = (min(height, size[0]) + 1) // 2, min(height, size[0]) // 2
    found[:, :below, :columns] = spectrum[:, :below, :columns]
    found[:, size[0] - above :, :columns] = spectrum[:, height - above :, :columns]
    return found * (size[0] * size[1] / (height * width))


def normalized_basis(channels: int) -> Tensor | None:
    """How lucid mixes decorrelated colours, `[3, 3]`, its largest column of length 1; None but for three channels."""
    return torch.tensor(COLOUR_BASIS) / _LARGEST if channels == 3 else None


def mixed(pictures: Tensor, basis: Tensor | None) -> Tensor:
    """Each pixel's channels times `basis` `[C, C]`."""
    return pictures if basis is None else torch.einsum("ij,bjhw->bihw", basis.to(pictures.device), pictures)


def _as_wide_as_chance(phases: Tensor) -> Tensor:
    """Each picture's phases around 0 with the deviation of those that chance gives.

    So they may grow, and steps of one length then turn them less and less, as published; there the deviation is 1.
    """
    around = phases - phases.mean((1, 2, 3), keepdim=True)
    deviation = around.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-5)
    return around * (math.pi / math.sqrt(3) / deviation)


def _phase_basis(channels: int) -> Tensor | None:
    if channels != 3:
        return None
    basis = torch.tensor(COLOUR_BASIS) / COLOUR_BASIS[1][0]
    basis[:, 0] = 1
    return basis


def _from_phases(magnitudes: Tensor, phases: Tensor, size: Size) -> Tensor:
    phases = _odd(phases, size)
    return torch.fft.irfft2(torch.polar(magnitudes.expand_as(phases).contiguous(), phases), s=size)


def _odd(phases: Tensor, size: Size) -> Tensor:
    """The same phases where a real picture is free to have them.

    In the first column of `rfft2`, and in the last of an even width, they are odd in the row's frequency; so those of
    the mean colour are 0. Without that, the inverse transform would change magnitudes.
    """
    edges = [0, size[1] // 2] if size[1] % 2 == 0 else [0]
    columns = list(phases.unbind(3))
    for edge in edges:
        columns[edge] = (columns[edge] - columns[edge].flip(2).roll(1, 2)) / 2
    return torch.stack(columns, 3)


def _falling(size: Size, device: torch.device) -> Tensor:
    """Magnitudes that fall by 1 / f, without a mean, of pictures whose deviation is 1."""
    magnitudes = frequency_scale(*size, 1.0, device).clone()
    magnitudes[0, 0] = 0
    twice = torch.full((magnitudes.shape[1],), 2.0, device=device)
    twice[0] = 1
    if size[1] % 2 == 0:
        twice[-1] = 1
    energy = (magnitudes.square() * twice).sum()
    return magnitudes * (size[0] * size[1] / energy.sqrt())


def _scale(size: Size, device: torch.device) -> Tensor:
    return frequency_scale(*size, 1.0, device) * math.sqrt(size[0] * size[1])


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)
