"""What matrix products, normalizations over scores and sums see; attention leaves out what it masks.

Scores count as masked where a constant of at most -50 is added to them, or stands in their place. The softmax then
gives them a weight that no product notices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actmine.pipeline.receptive_fields.dependence_call import Call
from actmine.pipeline.receptive_fields.dependence_shadow import (
    NOTHING,
    Planes,
    Shadow,
    blank_shadow,
    joined,
    least,
    least_along,
    moved,
    spread,
    united,
)

MASKING = -50.0
"""A constant that, added to a score, takes its weight away."""
_NO_WEIGHT = 1e-30  # of a size that is lost when added to weights that are not


def product(call: Call) -> Shadow:
    """Row times column: the union over what is contracted, with what is added to it."""
    left, right = _operands(call)
    shape = call.result.shape
    rank = len(shape)
    seen = []
    ours, theirs = call.known.get(id(left)), call.known.get(id(right))
    contracted: Shadow | None
    vector = right.dim() == left.dim() - 1
    if theirs is not None and vector:
        theirs = moved(theirs, lambda plane, _: plane.unsqueeze(-1))
    wide = (*shape, 1) if vector else tuple(shape)
    if ours is not None and theirs is not None:
        values = right.unsqueeze(-1) if vector else right
        contracted = _contracted(ours, left, theirs, values, wide)
    elif ours is not None:
        contracted = spread(joined(ours, [-1]), wide)
    else:
        contracted = None if theirs is None else spread(joined(theirs, [-2]), wide)
    if contracted is not None:
        seen.append(moved(contracted, lambda plane, _: plane.squeeze(-1)) if vector else contracted)
    added = call.shadow("self") if call.given.get("self") is not left else None
    if added is not None:
        seen.append(spread(added, (1,) * (rank - len(added.shape)) + tuple(added.shape)) if rank > 2 else added)
    return united([spread(each, shape) for each in seen], shape)


def softmax(call: Call) -> Shadow:
    """All scores of a row that are not masked; those that are see nothing."""
    scores = call.shadow("self")
    assert scores is not None
    dim = call.given["dim"]
    if scores.masked is None:
        return spread(joined(scores, [dim]), scores.shape)
    masked = scores.masked

    def unmasked(plane: Tensor) -> Tensor:
        return torch.where(masked, NOTHING, plane)

    top, bottom, left, right = (unmasked(plane) for plane in scores.planes)
    rows = spread(joined(Shadow((top, bottom, left, right), scores.ideal, None, scores.note), [dim]), scores.shape)
    top, bottom, left, right = (unmasked(plane) for plane in rows.planes)
    return Shadow((top, bottom, left, right), rows.ideal, None, scores.note)


def masked_by(constant: Tensor, shape: torch.Size) -> Tensor | None:
    """Which elements of a tensor of `shape` a constant that is added to it masks; None if it masks none."""
    if not constant.is_floating_point():
        return None
    masks = constant <= MASKING
    return masks.expand(shape) if bool(masks.any()) else None


def chosen(call: Call) -> Shadow:
    """`where` and `masked_fill` by a constant condition: each element is one or the other."""
    given, shape = call.given, call.result.shape
    if call.name == "where":
        condition, yes, no = given["condition"], given["self"], given["other"]
    else:
        condition, yes, no = given["mask"], given["value"], given["self"]
    if id(condition) in call.known:
        return united([call.known[id(each)] for each in (condition, yes, no) if id(each) in call.known], shape)
    device = call.result.device
    ours, theirs = (spread(call.known.get(id(each)) or blank_shadow((), device), shape) for each in (yes, no))
    top, bottom, left, right = (
        torch.where(condition, one, other) for one, other in zip(ours.planes, theirs.planes, strict=True)
    )
    both = [each for each in (call.known.get(id(yes)), call.known.get(id(no))) if each is not None]
    ideal = united([spread(each, shape) for each in both], shape).ideal
    masks = torch.zeros(shape, dtype=torch.bool, device=device)
    for picked, value in ((condition, yes), (~condition, no)):
        if id(value) not in call.known:
            masks |= picked & (torch.as_tensor(value, device=device) <= MASKING)
        elif (before := call.known[id(value)].masked) is not None:
            masks |= picked & before
    note = both[0].note if both else None
    return Shadow((top, bottom, left, right), ideal, masks if bool(masks.any()) else None, note)


def _operands(call: Call) -> tuple[Tensor, Tensor]:
    pairs = (("mat1", "mat2"), ("batch1", "batch2"), ("mat", "vec"), ("self", "mat2"), ("self", "vec"))
    one, other = next(pair for pair in pairs if pair[0] in call.given and pair[1] in call.given)
    return call.given[one], call.given[other]


def _contracted(ours: Shadow, left: Tensor, theirs: Shadow, right: Tensor, shape: tuple[int, ...]) -> Shadow:
    """`[…, n, k]` times `[…, k, m]`, both from the image."""
    together = united([spread(joined(ours, [-1]), shape), spread(joined(theirs, [-2]), shape)], shape)
    skip_left, skip_right = _weightless(ours, left), _weightless(theirs, right)
    if skip_left is None and skip_right is None:
        return together
    sides = [
        _masked_union(mine, its, skip_left, skip_right, shape)
        for mine, its in zip(ours.planes, theirs.planes, strict=True)
    ]
    return Shadow((sides[0], sides[1], sides[2], sides[3]), together.ideal, None, together.note)


def _weightless(shadow: Shadow, values: Tensor) -> Tensor | None:
    """Elements that are constants next to nothing; None if there are none."""
    nothing = _seeing_nothing(shadow.planes)
    if not bool(nothing.any()):
        return None
    nothing = nothing & (values.abs() < _NO_WEIGHT)
    return nothing if bool(nothing.any()) else None


def _seeing_nothing(planes: Planes) -> Tensor:
    return least([-planes[0], -planes[2]], tuple(planes[0].shape)) == -NOTHING


def _masked_union(
    mine: Tensor, its: Tensor, skip_left: Tensor | None, skip_right: Tensor | None, shape: tuple[int, ...]
) -> Tensor:
    """The minimum over k of what `[…, n, k]` and `[…, k, m]` see, without weightless terms."""
    if skip_right is None and skip_left is not None and its.stride(-1) == 0:
        column = its.narrow(-1, 0, 1).transpose(-1, -2)  # […, 1, k]: the same for all m
        both = torch.where(skip_left, NOTHING, torch.minimum(mine, column))
        return least_along(both, [both.dim() - 1]).expand(shape)
    result = torch.full(shape, NOTHING, device=mine.device)
    for k in range(mine.shape[-1]):  # one term at a time: all together would not fit into memory
        term = torch.minimum(mine[..., k, None], its[..., k : k + 1, :])
        if skip_left is not None:
            term = torch.where(skip_left[..., k, None], NOTHING, term)
        if skip_right is not None:
            term = torch.where(skip_right[..., k : k + 1, :], NOTHING, term)
        result = torch.minimum(result, term)
    return result
