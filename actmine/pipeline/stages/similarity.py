"""How alike two pictures are: by the run's own network, by a perceptual metric, or by a module of the user's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actmine.pipeline.errors import UserError, first_line, is_memory_full
from actmine.pipeline.network import factories
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.spoken import install_package
from actmine.pipeline.stages.embedding import Embed, Features
from actmine.pipeline.storage.files import user_cache
from actmine.pipeline.words import BUILTIN, DREAMSIM, LPIPS

_DREAMSIM_SIDE, _LPIPS_SIDE = 224, 64  # pixels: what they were trained on
_PAIRS = 256

Compare = Callable[[Tensor, Tensor], Tensor]
"""Vectors `[P, F]` and `[P, F]` to how alike each pair is, `[P]`: the larger, the more."""


def check_similarity(word: str) -> None:
    """Raises `UserError` for a SIMILARITY that there is not, or whose package is not installed."""
    if word in (DREAMSIM, LPIPS):
        _package(word)
    elif word != BUILTIN:
        if ":" not in word:
            raise UserError(
                f"There is no SIMILARITY {word!r}. It is {BUILTIN}, {DREAMSIM}, {LPIPS}, or package.module:factory, "
                "a function that gives a torch.nn.Module from images [B, 3, H, W] in 0..1 to vectors [B, F]."
            )
        factories.check(word, "SIMILARITY")


def embedder(word: str) -> Callable[[Subject, torch.device], Embed]:
    """What sets up the embedding by a SIMILARITY, in any process."""
    return Features if word == BUILTIN else partial(_Module, word)


def comparing(word: str, device: torch.device) -> Compare:
    """How the vectors of a SIMILARITY are compared: by the module's own `compare`, by their cosine where it has none.

    Raises `UserError` where the module cannot be had.
    """
    if word in (BUILTIN, DREAMSIM):
        return cosine
    own: Compare | None = getattr(_made(word, device), "compare", None)
    return cosine if own is None else partial(_compared, word, own, device)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of pairs of vectors `[P, F]`: `[P]`."""
    return functional.cosine_similarity(a, b, dim=1)


class _Module:
    """Pictures to vectors by a module of others, which sees three channels."""

    def __init__(self, word: str, subject: Subject, device: torch.device) -> None:
        self.word, self.module = word, _made(word, device)

    def __call__(self, pictures: Tensor) -> Tensor:
        try:
            found = self.module(pictures.expand(-1, 3, -1, -1))
        except Exception as error:  # it is anyone's code, and the user's to mend
            if is_memory_full(error):
                raise
            raise UserError(
                f"SIMILARITY={self.word} fails on images {list(pictures.shape)}: {first_line(error).rstrip('.')}."
            ) from error
        if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(pictures):
            kind = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(
                f"SIMILARITY={self.word} makes {kind} of {len(pictures)} images, not vectors [{len(pictures)}, F]."
            )
        if not bool(found.isfinite().all()):
            raise UserError(f"SIMILARITY={self.word} makes vectors of images that are not finite.")
        return found


def _compared(word: str, own: Compare, device: torch.device, a: Tensor, b: Tensor) -> Tensor:
    """By a module's own `compare`, some pairs at a time."""
    try:
        with torch.inference_mode():
            parts = [
                own(some.to(device), others.to(device)).float().cpu()
                for some, others in zip(a.split(_PAIRS), b.split(_PAIRS), strict=True)
            ]
        found = torch.cat(parts)
    except Exception as error:  # it is anyone's code, and the user's to mend
        if is_memory_full(error):
            raise
        raise UserError(f"SIMILARITY={word}: its `compare` fails: {first_line(error).rstrip('.')}.") from error
    if found.shape != (len(a),) or not bool(found.isfinite().all()):
        raise UserError(
            f"SIMILARITY={word}: its `compare` gives {list(found.shape)} for {len(a)} pairs, not a finite number each."
        )
    return found


def _made(word: str, device: torch.device) -> nn.Module:
    if word not in (DREAMSIM, LPIPS):
        return factories.make_module(word, "SIMILARITY").to(device)
    try:
        made: nn.Module = _DreamSim(device) if word == DREAMSIM else _Lpips()
    except UserError:
        raise
    except Exception as error:  # whatever a download, or weights of others, can raise
        raise UserError(
            f"SIMILARITY={word} cannot be made: {first_line(error).rstrip('.')}. Its weights are downloaded when it is "
            f"first used: use it once where there is a network, or choose SIMILARITY={BUILTIN}."
        ) from error
    return made.to(device).eval()


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"SIMILARITY={name} needs the package {error.name or name}: {install_package(name)}, "
            f"or choose SIMILARITY={BUILTIN}."
        ) from error


class _DreamSim(nn.Module):
    """DreamSim (Fu, Tamir, Sundaram et al., NeurIPS 2023): images to the vectors whose cosine it goes by."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        cache = user_cache() / "dreamsim"
        self.made: Any = _package(DREAMSIM).dreamsim(pretrained=True, device=str(device), cache_dir=str(cache))[0]

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` in 0..1 to `[B, F]`."""
        side = (_DREAMSIM_SIDE, _DREAMSIM_SIDE)
        sized = functional.interpolate(images, side, mode="bicubic", antialias=True).clamp(0, 1)
        embedded: Tensor = self.made.embed(sized)
        return embedded


class _Lpips(nn.Module):
    """LPIPS (Zhang et al., CVPR 2018, with AlexNet), which compares pictures of 64 pixels, place by place."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Any = _package(LPIPS).LPIPS(net="alex", verbose=False)

    def forward(self, images: Tensor) -> Tensor:
        """`[B, 3, H, W]` in 0..1 to the pixels that are compared, `[B, F]`."""
        side = (_LPIPS_SIDE, _LPIPS_SIDE)
        return functional.interpolate(images, side, mode="bilinear", antialias=True).flatten(1)

    def compare(self, a: Tensor, b: Tensor) -> Tensor:
        """Minus the distance of pairs `[P, F]`: `[P]`."""
        first, second = (its.reshape(-1, 3, _LPIPS_SIDE, _LPIPS_SIDE) * 2 - 1 for its in (a, b))
        distance: Tensor = self.made(first, second)
        return -distance.flatten()
