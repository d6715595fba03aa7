"""Dictionaries of one's own code: any module with `encode(x)`, which gives latents `[P, latents]` of vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.errors import UserError, first_line


class ByCode(Dictionary):
    """A latent is what the `coder` makes of it. The coder encodes each vector by itself."""

    kind = "code"

    def __init__(self, coder: nn.Module, width: int, word: str) -> None:
        """Raises `UserError` where it cannot encode vectors of `width` numbers; `word` is what the user said."""
        vectors = torch.randn(8, width, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                found = _latents(coder.encode(vectors))  # type: ignore[operator]
                alone = _latents(coder.encode(vectors[:1]))  # type: ignore[operator]
        except Exception as error:  # it is anyone's code, and the user's to mend
            raise UserError(
                f"{word}: encode(x) fails on x of [8, {width}] ({type(error).__name__}: {first_line(error)})."
            ) from error
        if found.dim() != 2 or len(found) != len(vectors) or not found.is_floating_point():
            raise UserError(f"{word}: encode(x) gives {list(found.shape)} of x [8, {width}], not latents [8, n].")
        if not torch.allclose(found[:1], alone, rtol=1e-3, atol=1e-4 * float(found.abs().max())):
            raise UserError(f"{word}: encode(x) makes others of a vector alone than beside others; call its eval().")
        super().__init__(torch.empty(width, 0))
        self.coder, self.latents = coder, found.shape[1]
        self.rectified = bool((found >= 0).all()) and bool((found == 0).any())
        self._decodes = callable(getattr(coder, "decode", None))

    def prepared(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """All latents of vectors `[P, width]`."""
        return (_latents(self.coder.encode(vectors)),)  # type: ignore[operator]

    def encoded(self, prepared: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
        """Latents from `start` to before `stop`, `[P, stop - start]`."""
        return prepared[0][:, start:stop]

    def heights(self, vectors: Tensor) -> Tensor:
        """All latents: what is before an activation is not known of code."""
        return self(vectors)

    def directions(self) -> None:
        """They are not known."""

    @property
    def decodes(self) -> bool:
        """Whether vectors can be made again of their latents."""
        return self._decodes

    def reconstructed(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[P, width]` made again by the coder's `decode`, and how many latents each has that are not 0."""
        latents = self(vectors)
        return self.coder.decode(latents), (latents != 0).sum(1)  # type: ignore[operator]


def _latents(given: object) -> Tensor:
    """The latents among what an encoder gives: overcomplete's gives products first."""
    if isinstance(given, (tuple, list)):
        given = given[-1]
    if not isinstance(given, Tensor):
        raise TypeError(f"it gives {type(given).__name__}")
    return given
