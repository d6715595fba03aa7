"""Trains a top-k dictionary on vectors, batch by batch.

Gao et al., Scaling and evaluating sparse autoencoders (2024): the k largest latents make a vector again, directions of
the decoder have length one, the bias before the encoder is that behind the decoder, and latents that have not fired for
long learn from what the others leave (auxiliary loss). Learning rates follow their scaling law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.dictionaries.dictionary import KLargest

_AUXILIARY = 1 / 32  # weight of what dead latents make of the rest
_MOST_AUXILIARY = 512
_DEAD_AFTER = 1 / 20  # share of all vectors in which a latent that never fires is dead
_WARM_UP, _DECAY = 0.02, 0.2  # shares of all steps in which the rate rises, and falls
_BETAS, _EPSILON = (0.9, 0.999), 6.25e-10
_NAMES = ("encoder", "bias", "decoder", "centre")


class Training:
    """A dictionary of `latents` for vectors of `width` numbers, on its way; `vectors` is how many it is to see.

    `first` `[N, width]` are some of them: their mean and size are where it begins.
    """

    def __init__(self, first: Tensor, latents: int, k: int, vectors: int, seed: int = 0) -> None:
        self.width, self.k, self.vectors = first.shape[1], min(k, latents), vectors
        generator = torch.Generator().manual_seed(seed)
        centre = first.mean(0)
        self.scale = float(math.sqrt(self.width) / (first - centre).norm(dim=1).mean().clamp_min(1e-12))
        decoder = functional.normalize(torch.randn(latents, self.width, generator=generator), dim=1)
        self.of: dict[str, Tensor] = {
            "encoder": decoder.t().contiguous(), "bias": torch.zeros(latents), "decoder": decoder,
            "centre": centre * self.scale,
        }  # fmt: skip
        self.moments = {f"{name}.{kind}": torch.zeros_like(self.of[name]) for name in _NAMES for kind in ("m", "v")}
        self.silent = torch.zeros(latents, dtype=torch.int64)
        """Vectors since each latent fired."""
        self.seen = self.steps = 0
        self.rate = 2e-4 / math.sqrt(latents / 2**14)

    def step(self, vectors: Tensor) -> float:
        """Learns from a batch `[B, width]`; the share of its variance that was not explained."""
        leaves = [self.of[name].detach().requires_grad_() for name in _NAMES]
        with torch.enable_grad():
            loss, left, fired = self._loss(vectors * self.scale, *leaves)
            gradients = torch.autograd.grad(loss, leaves)
        along = (gradients[2] * self.of["decoder"]).sum(1, keepdim=True)
        gradients = (*gradients[:2], gradients[2] - along * self.of["decoder"], gradients[3])
        self.seen, self.steps = self.seen + len(vectors), self.steps + 1
        rate = self.rate * self._share()
        corrected = rate * math.sqrt(1 - _BETAS[1] ** self.steps) / (1 - _BETAS[0] ** self.steps)
        for name, gradient in zip(_NAMES, gradients, strict=True):
            m, v = (self.moments[f"{name}.{kind}"] for kind in ("m", "v"))
            m.lerp_(gradient, 1 - _BETAS[0])
            v.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
            self.of[name] = self.of[name].addcdiv(m, v.sqrt().add_(_EPSILON), value=-corrected)
        self.of["decoder"] = functional.normalize(self.of["decoder"], dim=1)
        self.silent += len(vectors)
        self.silent[fired] = 0
        return left

    @property
    def dead(self) -> Tensor:
        """Numbers of the latents that have not fired in a twentieth of all vectors."""
        return (self.silent > _DEAD_AFTER * self.vectors).nonzero()[:, 0]

    def made(self) -> KLargest:
        """The dictionary as it is now, for vectors as they are."""
        centre = self.of["centre"] / self.scale
        return KLargest(
            self.of["encoder"], self.k, self.of["bias"] / self.scale, centre, self.of["decoder"], centre
        )  # fmt: skip

    def state(self) -> dict[str, Tensor]:
        """All tensors that it takes to go on."""
        numbers = torch.tensor([self.seen, self.steps], dtype=torch.int64)
        scale = torch.tensor([self.scale], dtype=torch.float64)
        return {**self.of, **self.moments, "silent": self.silent, "numbers": numbers, "scale": scale}

    def go_on_from(self, state: Mapping[str, Tensor]) -> None:
        """Takes a `state` of the same training."""
        self.of = {name: state[name].clone() for name in _NAMES}
        self.moments = {name: state[name].clone() for name in self.moments}
        self.silent = state["silent"].clone()
        self.seen, self.steps = map(int, state["numbers"].tolist())
        self.scale = float(state["scale"][0])

    def _share(self) -> float:
        """How much of the learning rate counts now."""
        done = min(self.seen / self.vectors, 1.0)
        return min(1.0, done / _WARM_UP, max((1 - done) / _DECAY, 0.01))

    def _loss(
        self, vectors: Tensor, encoder: Tensor, bias: Tensor, decoder: Tensor, centre: Tensor
    ) -> tuple[Tensor, float, Tensor]:
        """The loss, the share of the variance that is left, and which latents fired."""
        products = torch.addmm(bias, vectors - centre, encoder)
        values, which = products.topk(self.k, 1)
        values = values.relu()
        made = functional.embedding_bag(which, decoder, per_sample_weights=values, mode="sum") + centre
        spread = (vectors - vectors.mean(0)).square().sum().clamp_min(1e-12)
        rest = vectors - made
        left = rest.square().sum() / spread
        loss, dead = left, self.dead
        if len(dead):
            few = min(_MOST_AUXILIARY, self.width // 2 or 1, len(dead))
            values_of_dead, places = products[:, dead].topk(few, 1)
            again = functional.embedding_bag(
                dead[places], decoder, per_sample_weights=values_of_dead.relu(), mode="sum"
            )
            aim = rest.detach()
            loss = loss + _AUXILIARY * (aim - again).square().sum() / aim.square().sum().clamp_min(1e-12)
        return loss, float(left.detach()), which[values.detach() > 0].unique()
