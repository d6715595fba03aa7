"""Sort matching: a picture whose activations are distributed as those of a unit's own exemplars, layer by layer.

Görgün, Schiele, Fischer: VITAL (ICCV 2025). Nothing is maximized: of each channel of each stage, the values over all
positions are sorted, and so are those of the exemplars; the squared differences are to become small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.ascent.recipe import Readings
from actmine.pipeline.network.layers import Layer, Traced

_TOGETHER = 8  # exemplars that go through the network at once


@dataclass(frozen=True, slots=True)
class Matching:
    """Minus the mean squared difference of sorted activations, summed over stages, each by its references' variance.

    With `relevance` (0..1), channels count the less the less the unit depends on them: by gradient times activation of
    the unit on its exemplars, where VITAL uses layer-wise relevance propagation; 0 leaves it out.
    """

    relevance: float = 0.0

    @property
    def one_position(self) -> bool:
        """All positions are read."""
        return False

    def layers(self, traced: Traced, layer: Layer) -> list[Layer]:
        """The stages up to `layer`."""
        return stages(traced, layer)

    def against(self, readings: Readings, references: Tensor, unit: int) -> list[Tensor]:
        """Of each stage the references' sorted values, `[C, N]`, in the units in which differences count."""
        sums: list[Tensor] = []
        relevances: list[Tensor] = []
        for some in references.split(_TOGETHER):
            with torch.set_grad_enabled(self.relevance > 0):
                outputs = readings(some.requires_grad_() if self.relevance > 0 else some)
                part = [_sorted(output.detach()).sum(0) for output in outputs]
                sums = [a + b for a, b in zip(sums, part, strict=True)] if sums else part
                if self.relevance > 0:
                    part = relevance_of(outputs, unit)
                    relevances = [a + b for a, b in zip(relevances, part, strict=True)] if relevances else part
        wanted = []
        for number, summed in enumerate(sums):
            mean = summed / len(references)
            scale = mean.var(correction=0).sqrt().clamp_min(1e-6).expand(len(mean))
            if relevances:
                share = relevances[number] / relevances[number].max().clamp_min(1e-12)
                scale = scale / (1 - self.relevance + self.relevance * share).sqrt().clamp_min(1e-3)
            wanted.append(torch.cat([mean, scale[:, None]], 1))
        return wanted

    def __call__(self, outputs: list[Tensor], wanted: list[Tensor]) -> Tensor:
        """Of layers `[B, C, H, W]` or `[B, C]` and what they are compared with, `[B]`; 0 where all is alike."""
        found = torch.zeros(len(outputs[0]), device=outputs[0].device)
        for output, its in zip(outputs, wanted, strict=True):
            values, scale = its[:, :, :-1], its[:, :, -1:]
            differences = _sorted(output) - quantiles(values, output[0, 0].numel())
            found = found - (differences / scale).square().flatten(1).mean(1)
        return found


def stages(traced: Traced, layer: Layer, own_size: bool = False) -> list[Layer]:
    """The last unit-bearing layer of each size of map that `layer` depends on, in running order, and `layer` itself.

    Of a map of `layer`'s own size only with `own_size`.
    """
    before: dict[tuple[int | None, int | None], Layer] = {}
    for each in _below(traced, layer):
        if each.height is not None and each.width is not None and each.height * each.width > 1:
            before[each.height, each.width] = each
    if not own_size:
        before.pop((layer.height, layer.width), None)
    return [*before.values(), layer]


def _below(traced: Traced, layer: Layer) -> list[Layer]:
    bearing = traced.unit_bearing()
    if traced.graph is None:
        place = traced.trace.place
        return [each for each in bearing if place(each.node) < place(layer.node)]
    found = {traced.node(layer)}
    waiting = list(found)
    while waiting:
        new = [part for part in waiting.pop().all_input_nodes if part not in found]
        found.update(new)
        waiting += new
    return [each for each in bearing if each.node != layer.node and traced.node(each) in found]


def quantiles(values: Tensor, count: int) -> Tensor:
    """Sorted `values` `[…, N]` as `count` sorted ones, each the mean of its equal share of the distribution.

    The least squares fit: what optimal transport between both moves to its places.
    """
    length = values.shape[-1]
    if length == count:
        return values
    if length % count == 0:
        return values.unflatten(-1, (count, length // count)).mean(-1)
    total = functional.pad(values.cumsum(-1), (1, 0))
    place = "cpu" if values.device.type == "mps" else values.device  # which has no float64
    ends = torch.linspace(0, length, count + 1, device=place, dtype=torch.float64)
    low = ends.floor().long().clamp(max=length - 1)
    share, low = (ends - low).to(values.dtype).to(values.device), low.to(values.device)
    reached = total[..., low] + share * values[..., low]
    return reached.diff(dim=-1) * (count / length)


def relevance_of(outputs: list[Tensor], unit: int) -> list[Tensor]:
    """How much the `unit` of the last layer depends on each channel of each layer, `[C]`, summed over exemplars.

    The largest gradient times activation over positions, where that speaks for the unit; each exemplar counts alike.
    """
    top = outputs[-1][:, unit]
    height = top.flatten(1).amax(1).sum() if top.dim() > 1 else top.sum()
    gradients = torch.autograd.grad(height, outputs, allow_unused=True)
    found = []
    for output, gradient in zip(outputs, gradients, strict=True):
        product = torch.zeros_like(output) if gradient is None else (gradient * output.detach()).clamp_min(0)
        most = product.flatten(2).amax(2) if product.dim() == 4 else product
        found.append((most / most.amax(1, keepdim=True).clamp_min(1e-12)).sum(0).detach())
    return found


def _sorted(output: Tensor) -> Tensor:
    """Each channel's values over positions in rising order, `[B, C, N]`."""
    values = output.flatten(2) if output.dim() == 4 else output[:, :, None]
    return values.sort(-1).values
