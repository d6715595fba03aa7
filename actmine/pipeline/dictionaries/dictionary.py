"""What makes latents of a layer's vectors: encoders of sparse autoencoders, of every usual kind, and plain directions.

Latents are made in two steps, so that those of many positions need never be held together: what a vector is prepared
to, and of that the latents of a span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

NONE, LAYER_NORM, CONSTANT_NORM = "none", "layer_norm", "constant_norm_rescale"
"""How vectors are normalized before they are encoded, as SAELens calls it."""
_EPSILON = 1e-5  # added to the deviation, as SAELens does
_CHUNK = 64  # latents of which one stands for all while the largest are looked for
_SPAN = 4096  # latents looked at together
_PIECE = 1 << 22  # numbers


@dataclass(frozen=True, slots=True)
class Fewer:
    """What is `prepared` for `count` latents in place of all; the last of them stands for all that no vector has.

    `at` `[latents]` is the place of each latent among them.
    """

    prepared: tuple[Tensor, ...]
    count: int
    at: Tensor


class Dictionary(nn.Module):
    """`latents` directions in a space of `width` numbers; each latent is `x @ encoder + bias` of a vector x, as it is.

    `encoder` `[width, latents]`; `bias` `[latents]`; `before` `[width]` is taken from the vector first. A vector is
    made again of its latents by `decoder` `[latents, width]` and `after` `[width]`, where there is one. `names` are
    those of the latents, in order, where they have any. Kinds of activations are the classes below.
    """

    kind = "directions"
    rectified = False
    """Whether a latent is 0 where it does not fire."""

    def __init__(
        self,
        encoder: Tensor,
        bias: Tensor | None = None,
        before: Tensor | None = None,
        decoder: Tensor | None = None,
        after: Tensor | None = None,
        normalization: str = NONE,
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.width, self.latents = encoder.shape
        self.normalization, self.names = normalization, tuple(names)
        for name, tensor in (
            ("encoder", encoder), ("bias", bias), ("before", before), ("decoder", decoder), ("after", after)
        ):  # fmt: skip
            self.register_buffer(name, tensor)
        self.encoder: Tensor
        self.bias: Tensor | None
        self.before: Tensor | None
        self.decoder: Tensor | None
        self.after: Tensor | None

    def prepared(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """What latents of vectors `[P, width]` are made of, in the encoder's precision."""
        return self._prepared(self._centred(self._normalized(vectors)[0]))

    def encoded(self, prepared: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
        """Latents from `start` to before `stop` of what was prepared, `[P, stop - start]`."""
        return self._activated(self._products(prepared[0], start, stop), start, stop)

    def without_silent(self, prepared: tuple[Tensor, ...]) -> Fewer | None:
        """The same for those latents alone that any vector has, where that is known at once and they are few."""
        return None

    def forward(self, vectors: Tensor) -> Tensor:
        """All latents of vectors `[P, width]`: `[P, latents]`."""
        return self.encoded(self.prepared(vectors), 0, self.latents)

    def heights(self, vectors: Tensor) -> Tensor:
        """How far vectors `[P, width]` reach in each direction, before any activation: `[P, latents]`."""
        return self._products(self._centred(self._normalized(vectors)[0]), 0, self.latents)

    @property
    def decodes(self) -> bool:
        """Whether vectors can be made again of their latents."""
        return self.decoder is not None

    def reconstructed(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `[P, width]` made again of their latents, and how many latents each has that are not 0: `[P]`."""
        normalized, scale, shift = self._normalized(vectors)
        prepared = self._prepared(self._centred(normalized))
        made = torch.zeros_like(normalized)
        count = torch.zeros(len(made), dtype=torch.int64, device=made.device)
        assert self.decoder is not None
        for start in range(0, self.latents, _SPAN):
            part = self.encoded(prepared, start, min(start + _SPAN, self.latents))
            count += (part != 0).sum(1)
            used = part.any(0).nonzero()[:, 0]  # of a decoder that is mapped from its file no more is read
            made += part[:, used] @ self.decoder[start + used]
        made = made if self.after is None else made + self.after
        return made * scale + shift, count

    def directions(self) -> Tensor | None:
        """The direction of each latent, `[latents, width]`: the decoder's, or the encoder's where there is none."""
        return self.encoder.t() if self.decoder is None else self.decoder

    def decoder_norms(self) -> Tensor | None:
        """The length of each latent's direction in the decoder, `[latents]`; None where there is none."""
        if self.decoder is None:
            return None
        return torch.cat([part.norm(dim=1) for part in self.decoder.split(_SPAN)])

    def digest(self) -> str:
        """SHA-256 of all that its latents depend on."""
        found = hashlib.sha256(f"{self.kind} {self.normalization} {self.settings()}".encode())
        for name, tensor in self.state_dict().items():
            if name not in ("decoder", "after"):
                found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
                for part in pieces(tensor.cpu()):
                    found.update(part.contiguous().view(torch.uint8).numpy().data)
        return found.hexdigest()

    def settings(self) -> dict[str, int | bool]:
        """What else than tensors its latents depend on."""
        return {}

    def _normalized(self, vectors: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """Vectors as they are encoded, in the encoder's precision, and by what to scale and shift them back."""
        vectors = vectors.to(self.encoder.dtype)
        if self.normalization == LAYER_NORM:
            mean = vectors.mean(-1, keepdim=True)
            shifted = vectors - mean
            deviation = shifted.std(-1, keepdim=True)
            return shifted / (deviation + _EPSILON), deviation, mean
        if self.normalization == CONSTANT_NORM:
            scale = self.width**0.5 / vectors.norm(dim=-1, keepdim=True)
            return vectors * scale, 1 / scale, 0.0
        return vectors, 1.0, 0.0

    def _centred(self, vectors: Tensor) -> Tensor:
        return vectors if self.before is None else vectors - self.before

    def _prepared(self, centred: Tensor) -> tuple[Tensor, ...]:
        return (centred,)

    def _products(self, centred: Tensor, start: int, stop: int) -> Tensor:
        columns = self.encoder[:, start:stop]
        if self.bias is None:
            return centred @ columns
        return torch.addmm(self.bias[start:stop], centred, columns)

    def _activated(self, products: Tensor, start: int, stop: int) -> Tensor:
        return products


class Rectified(Dictionary):
    """A latent is a product above zero, else 0."""

    kind, rectified = "relu", True

    def _activated(self, products: Tensor, start: int, stop: int) -> Tensor:
        return products.relu()


class Thresholded(Dictionary):
    """A latent is a product above zero and above its own `threshold` `[latents]`, else 0 (JumpReLU, BatchTopK)."""

    kind, rectified = "jumprelu", True

    def __init__(self, encoder: Tensor, threshold: Tensor, *rest: Tensor | None, **further: object) -> None:
        super().__init__(encoder, *rest, **further)  # type: ignore[arg-type]
        self.register_buffer("threshold", threshold)
        self.threshold: Tensor

    def _activated(self, products: Tensor, start: int, stop: int) -> Tensor:
        return products.relu() * (products > self.threshold[start:stop])


class Gated(Dictionary):
    """A latent is `relu(x @ encoder * scale + magnitude)` where the gate `x @ encoder + bias` is above zero, else 0."""

    kind, rectified = "gated", True

    def __init__(
        self, encoder: Tensor, scale: Tensor, magnitude: Tensor, *rest: Tensor | None, **further: object
    ) -> None:
        super().__init__(encoder, *rest, **further)  # type: ignore[arg-type]
        self.register_buffer("scale", scale)
        self.register_buffer("magnitude", magnitude)
        self.scale: Tensor
        self.magnitude: Tensor

    def _activated(self, products: Tensor, start: int, stop: int) -> Tensor:
        at = slice(start, stop)
        plain = products if self.bias is None else products - self.bias[at]
        return torch.addcmul(self.magnitude[at], plain, self.scale[at]).relu() * (products > 0)


class KLargest(Dictionary):
    """Of all products of a vector the `k` largest are its latents, all others 0 (TopK).

    Where it `rectifies`, those of the k that are below zero are 0 too. Of equal products the first ones count.
    """

    kind, rectified = "topk", True

    def __init__(self, encoder: Tensor, k: int, *rest: Tensor | None, rectifies: bool = True, **further: object):
        super().__init__(encoder, *rest, **further)  # type: ignore[arg-type]
        self.k, self.rectifies = min(k, self.latents), rectifies

    def settings(self) -> dict[str, int | bool]:
        """What else than tensors its latents depend on."""
        return {"k": self.k, "rectifies": self.rectifies}

    def _prepared(self, centred: Tensor) -> tuple[Tensor, ...]:
        """The k largest products of each vector, the numbers of their latents, `[P, k]` each, and which hold a NaN."""
        best = centred.new_full((len(centred), self.k), -torch.inf)
        which = torch.full((len(centred), self.k), self.latents, dtype=torch.int64, device=centred.device)
        for start in range(0, self.latents, _SPAN):
            products = self._products(centred, start, min(start + _SPAN, self.latents))
            values, places = _candidates(products, self.k, best[:, -1:])
            values, order = torch.cat([best, values], 1).sort(dim=1, descending=True, stable=True)
            best = values[:, : self.k]
            which = torch.cat([which, places + start], 1).gather(1, order[:, : self.k])
        return (best.relu() if self.rectifies else best), which, centred.isnan().any(1, keepdim=True)

    def without_silent(self, prepared: tuple[Tensor, ...]) -> Fewer | None:
        """The same for those latents alone that any vector has, where that is known at once and they are few."""
        values, which, spoiled = prepared
        if not _at_hand(which):
            return None
        there, places = which.unique(return_inverse=True)
        if len(there) > self.latents // 2:
            return None
        at = torch.full((self.latents,), len(there))
        at[there] = torch.arange(len(there))
        return Fewer((values, places, spoiled), len(there) + 1, at)

    def encoded(self, prepared: tuple[Tensor, ...], start: int, stop: int) -> Tensor:
        """Latents from `start` to before `stop` of what was prepared, `[P, stop - start]`."""
        values, which, spoiled = prepared
        room = values.new_zeros(len(values), stop - start + 1)  # the last column takes what lies elsewhere
        inside = (which >= start) & (which < stop)
        room.scatter_(1, torch.where(inside, which - start, stop - start), values)
        if not _at_hand(spoiled) or bool(spoiled.any()):
            room.masked_fill_(spoiled, torch.nan)
        return room[:, :-1]


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor in small parts along its first dimension: of a million latents nothing large is made on the way."""
    if not tensor.numel():
        return iter(())
    rows = tensor if tensor.dim() else tensor[None]
    return iter(rows.split(max(_PIECE // max(rows[:1].numel(), 1), 1)))


def _candidates(products: Tensor, k: int, least: Tensor) -> tuple[Tensor, Tensor]:
    """All that may be among the k largest of rows of `products` `[P, N]`, first places first, and their places.

    What is not above `least` `[P, 1]` need not be. The k largest lie in the k chunks with the largest maxima.
    """
    rows, count = products.shape
    if count % _CHUNK or count // _CHUNK <= k:
        chosen, places = products, torch.arange(count, device=products.device).expand(rows, count)
        if count > k:
            places = _largest(products, k)
            chosen = products.gather(1, places)
        return chosen, places
    chunks = products.view(rows, -1, _CHUNK)
    tops = chunks.amax(2)
    some = k
    if _at_hand(products):
        some = min(k, int((tops > least).sum(1).max()))
        if not some:
            return products[:, :0], torch.empty((rows, 0), dtype=torch.int64)
    which = _largest(tops, some)
    places = (which[:, :, None] * _CHUNK + torch.arange(_CHUNK, device=products.device)).flatten(1)
    values = products.gather(1, places)
    if values.shape[1] > k:
        best = _largest(values, k)
        values, places = values.gather(1, best), places.gather(1, best)
    return values, places


def _at_hand(tensor: Tensor) -> bool:
    """Whether values can be looked at without waiting for them: not on a GPU, not while they are traced."""
    return tensor.device.type == "cpu" and type(tensor) is Tensor and not torch.compiler.is_compiling()


def _largest(values: Tensor, k: int) -> Tensor:
    """Places of the k largest of each row, in ascending order; of equal ones the first."""
    top, places = values.topk(k, 1, sorted=True)
    last = top[:, -1:]
    if _at_hand(values) and bool(((values == last).sum(1) > (top == last).sum(1)).any()):
        places = values.sort(dim=1, descending=True, stable=True).indices[:, :k]  # a tie at the end: the first have it
    return places.sort(1).values
