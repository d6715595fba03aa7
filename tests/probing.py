"""Tells by gradients and by changed pixels what a position of a layer depends on, knowing nothing of its network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from actmine.pipeline.exemplars.gradients import Gradients, within
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.layouts import as_map
from actmine.pipeline.network.rectifiers import Rule
from actmine.pipeline.preprocessing.geometry import Box
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields

CPU = torch.device("cpu")
_NOTICED = 1e-40
"""Share of the largest gradient; what attention masks has less (e to the -100)."""


def gradients(
    how: Preprocessing,
    traced: Traced,
    layer: str,
    rule: Rule | None,
    images: Tensor,
    spots: Sequence[tuple[int, int, int]],
) -> Tensor:
    """Gradients of unit, row and column of each of normalized images `[B, C, H, W]`, as exemplars get them."""
    of = Gradients(how, traced, {5: traced.choose(layer)[0]}, CPU, rule)
    whole = Box(0, 0, images.shape[3], images.shape[2])
    found = (next(of(image[None], [(5, *spot)])) for image, spot in zip(images, spots, strict=True))
    return torch.stack([within(whole, *its) for its in found])


@dataclass(frozen=True)
class Place:
    """One position of a layer and the box it is said to see."""

    layer: Layer
    row: int
    column: int
    box: Box


def places(traced: Traced, layers: Sequence[Layer], seed: int = 0) -> list[Place]:
    """For each layer a corner and a position drawn at random, with their boxes; asserts that all was followed."""
    fields = receptive_fields(traced, layers)
    chance = random.Random(seed)
    found = []
    for layer in layers:
        assert fields[layer.name].note is None, layer.name
        rows, columns = layer.height or 1, layer.width or 1
        corner = chance.choice([(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)])
        for row, column in dict.fromkeys([corner, (chance.randrange(rows), chance.randrange(columns))]):
            found.append(Place(layer, row, column, fields[layer.name].box(row, column)))
    return found


def assert_boxes_are_true(traced: Traced, probed: Sequence[Place], draws: int = 4) -> None:
    """No pixel outside of a box changes a bit of what is there, and each of its four sides has one that matters.

    For the sides: the gradient of all units together on images of noise. Where a maximum or a saturated activation
    hides a side in one image, another image shows it.
    """
    _, height, width = traced.input_shape
    torch.manual_seed(0)
    image = torch.randn(1, *traced.input_shape, dtype=torch.float64)
    inner = [place for place in probed if place.box != Box(0, 0, width, height)]
    if inner:
        changed = (image + 1 + torch.rand_like(image)).repeat(len(inner), 1, 1, 1)
        for copy, place in zip(changed, inner, strict=True):
            inside = (slice(None), *_inside(place.box))
            copy[inside] = image[0][inside]
        with torch.no_grad():
            before, after = (_read(traced, images, inner) for images in (image.expand_as(changed), changed))
        for number, place in enumerate(inner):
            assert torch.equal(before[number][number], after[number][number]), ("a pixel outside matters", place)
    hidden = {(number, side) for number in range(len(probed)) for side in ("top", "bottom", "left", "right")}
    for _ in range(draws):
        hidden -= _shown(traced, probed, {number for number, _ in hidden})
        if not hidden:
            return
    assert not hidden, [("no pixel of this side matters", side, probed[number]) for number, side in hidden]


def _shown(traced: Traced, probed: Sequence[Place], numbers: set[int]) -> set[tuple[int, str]]:
    image = torch.randn(1, *traced.input_shape, dtype=torch.float64, requires_grad=True)
    wanted = sorted(numbers)
    readings = _read(traced, image, [probed[number] for number in wanted])
    shown = set()
    for number, reading in zip(wanted, readings, strict=True):
        mixed = (reading[0] * torch.randn_like(reading[0])).sum()
        (gradient,) = torch.autograd.grad(mixed, image, retain_graph=True)
        seen = gradient[0].abs().amax(0)
        seen = seen > _NOTICED * seen.max()
        box = probed[number].box
        sides = {
            "top": seen[box.top, box.left : box.right], "bottom": seen[box.bottom - 1, box.left : box.right],
            "left": seen[box.top : box.bottom, box.left], "right": seen[box.top : box.bottom, box.right - 1],
        }  # fmt: skip
        shown |= {(number, side) for side, pixels in sides.items() if bool(pixels.any())}
    return shown


def _inside(box: Box) -> tuple[slice, slice]:
    return slice(box.top, box.bottom), slice(box.left, box.right)


def _read(traced: Traced, images: Tensor, probed: Sequence[Place]) -> list[Tensor]:
    """The units at each place, `[B, U]`."""
    found: dict[int, Tensor] = {}

    def see(node: str, tensor: Tensor) -> None:
        for number, place in enumerate(probed):
            if place.layer.node == node:
                units = as_map(tensor, place.layer.layout, place.layer.height, place.layer.width)
                found[number] = (units if units.dim() == 2 else units[:, :, place.row, place.column]).clone()

    traced.run(images, see)
    return [found[number] for number in range(len(probed))]
