"""What the results of each kind of operation see, from what its inputs see.

Kinds, not names, wherever torch tells the kind: views move elements, pointwise operations unite them, what has a
`keepdim` joins a dimension. What has no rule is taken apart into simpler operations by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from actmine.pipeline.receptive_fields.dependence_call import Call, Rule, Unfollowed, plain_name
from actmine.pipeline.receptive_fields.dependence_products import chosen, masked_by, product, softmax
from actmine.pipeline.receptive_fields.dependence_shadow import (
    NOTHING,
    Ideal,
    Shadow,
    blank_shadow,
    compact,
    first_note,
    joined,
    moved,
    spread,
    united,
)
from actmine.pipeline.receptive_fields.dependence_windows import adaptive_pooling, convolution, pooling

_MOVES = frozenset(
    """view _unsafe_view reshape _reshape_alias cat stack roll flip repeat constant_pad_nd index index_select gather
    pixel_shuffle pixel_unshuffle channel_shuffle upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d slice_scatter select_scatter take _unsafe_index""".split()
)
_RESHAPES = frozenset("view _unsafe_view reshape _reshape_alias".split())
_CARRIED = frozenset("self input tensors src".split())  # arguments whose elements are moved
_PLACED = frozenset("indices index".split())
_SCORES = frozenset("add clone _to_copy mul div copy".split())  # scores stay scores
_FACTORIES = ("empty", "zeros", "ones", "full", "rand", "new_")


def is_factory(func: Any) -> bool:
    """An operation that makes new tensors and takes no more than shape and kind from those it gets."""
    return plain_name(func).startswith(_FACTORIES)


def find_rule(func: Any) -> Rule | None:
    """The rule for an operation of ATen; None if it has none of its own."""
    name = plain_name(func)
    if name in _RULES:
        return _RULES[name]
    if torch.Tag.pointwise in func.tags:
        return _pointwise
    arguments = {each.name: each for each in func._schema.arguments}
    if "keepdim" in arguments:
        return _reduction
    if name in _MOVES or (func.is_view and "dtype" not in arguments and name not in _RESHAPED_IN_MEMORY):
        return _movement
    return None


_RESHAPED_IN_MEMORY = frozenset("as_strided view_as_real view_as_complex".split())


def _constant(call: Call) -> list[Shadow]:
    return [blank_shadow(each.shape, each.device) for each in call.outputs]


def _pointwise(call: Call) -> list[Shadow]:
    inputs = call.tensors()
    seen = [call.known[id(each)] for each in inputs if id(each) in call.known]
    masked = _masked(call, inputs) if call.name in _SCORES else None
    return [replace(united(seen, each.shape), masked=masked) for each in call.outputs]


def _masked(call: Call, inputs: Sequence[Tensor]) -> Tensor | None:
    shape = call.outputs[0].shape
    masks = []
    for each in inputs:
        if id(each) in call.known:
            masks.append(call.known[id(each)].masked)
        elif call.name == "add":
            masks.append(masked_by(each, shape))
    known = [mask.expand(shape) for mask in masks if mask is not None]
    return torch.stack(known).any(0) if len(known) > 1 else known[0] if known else None


def _copied(call: Call) -> Shadow:
    source = call.shadow("src")
    return spread(source, call.result.shape) if source is not None else _constant(call)[0]


def _filled(call: Call) -> Shadow:
    value = call.shadow("value")
    return spread(value, call.result.shape) if value is not None else _constant(call)[0]


def _reduction(call: Call) -> Shadow:
    source = next((call.known[id(each)] for each in call.tensors() if id(each) in call.known), None)
    assert source is not None
    dims = _dims(call.given.get("dim"), len(source.shape))
    return joined(source, dims, bool(call.given.get("keepdim")))


def _to_one(call: Call) -> Shadow | list[Shadow]:
    """A single number of everything, or a reduction; of two tensors, element by element."""
    if "other" in call.given:
        return _pointwise(call)
    if call.given.get("dim") is not None or call.outputs[0].dim() > 0:
        return _reduction(call)
    seen = [call.known[id(each)] for each in call.tensors() if id(each) in call.known]
    return united([joined(each, range(len(each.shape)), keep=False) for each in seen], ())


def _along(call: Call) -> list[Shadow]:
    """Each element sees all of its row, however long the row comes out."""
    source = call.shadow("self")
    assert source is not None
    row = joined(source, _dims(call.given.get("dim"), len(source.shape)))
    return [spread(row, each.shape) for each in call.outputs]


def _layer_norm(call: Call) -> list[Shadow]:
    source = call.shadow("input")
    if source is None:
        return _pointwise(call)
    row = joined(source, range(-len(call.given["normalized_shape"]), 0))
    normed = united([spread(row, source.shape), *_affine(call, len(source.shape) - 1)], source.shape)
    return [normed, *(spread(row, each.shape) for each in call.outputs[1:])]


def _group_norm(call: Call) -> list[Shadow]:
    source = call.shadow("input")
    if source is None:
        raise Unfollowed("native_group_norm of a constant could not be followed")
    groups, channels = call.given["group"], source.shape[1]
    maps = joined(source, range(2, len(source.shape)))
    split = joined(moved(maps, lambda plane, _: plane.unflatten(1, (groups, channels // groups))), [2])
    group = moved(split, lambda plane, _: plane.expand(-1, -1, channels // groups, *maps.shape[2:]).flatten(1, 2))
    normed = united([spread(group, source.shape), *_affine(call, 1, len(source.shape))], source.shape)
    moments = moved(split, lambda plane, _: plane.reshape(plane.shape[0], groups))
    return [normed, moments, moments]


def _batch_norm(call: Call) -> list[Shadow]:
    source = call.shadow("input") or call.shadow("self")
    if source is None:
        raise Unfollowed(f"{call.name} of a constant could not be followed")
    given = call.given
    fixed = given.get("training", "legit_no_training" not in call.name and "running_mean" not in given) is False
    if "legit_no_training" in call.name:
        fixed = True
    seen = source if fixed else spread(joined(source, [d for d in range(len(source.shape)) if d != 1]), source.shape)
    normed = united([seen, *_affine(call, 1, len(source.shape))], source.shape)
    rest = [spread(joined(source, range(len(source.shape)), keep=False), each.shape) for each in call.outputs[1:]]
    return [normed, *rest]


def _affine(call: Call, dim: int, rank: int | None = None) -> list[Shadow]:
    """Weights and biases that come from the image."""
    found = [each for each in (call.shadow("weight"), call.shadow("bias")) if each is not None]
    if rank is None:
        return found
    return [moved(each, lambda plane, _: plane.reshape(-1, *[1] * (rank - dim - 1))) for each in found]


def _recurrent(call: Call) -> list[Shadow]:
    """A layer of a recurrent network over `[T, B, C]`: each step sees those before it."""
    source = call.shadow("input")
    if source is None or any(call.shadow(name) for name in call.given if name != "input"):
        raise Unfollowed(f"{call.name} could not be followed")
    steps = joined(source, [2])

    def before(plane: Tensor, _: float) -> Tensor:
        turned = plane.flip(0) if call.given["reverse"] else plane
        least = turned.cummin(0).values
        return least.flip(0) if call.given["reverse"] else least

    output, *rest = call.outputs
    seen = replace(moved(steps, before), ideal=(None, None))
    everything = replace(joined(steps, range(3), keep=False), ideal=(None, None))
    return [spread(seen, output.shape), *(spread(everything, each.shape) for each in rest)]


def _put(call: Call) -> Shadow:
    """Elements written by constant indices; where several fall on one place and add up, it sees them all."""
    given, output = call.given, call.outputs[0]
    if any(id(each) in call.known for each in given["indices"] if each is not None):
        raise Unfollowed(f"{call.name} by numbers from the image could not be followed")
    places = torch.arange(output.numel(), device=output.device).reshape(output.shape)
    places = torch.ops.aten.index.Tensor(places, given["indices"])
    device = output.device
    target = call.shadow("self") or blank_shadow(output.shape, device)
    values = spread(call.shadow("values") or blank_shadow((), device), places.shape)
    top, bottom, left, right = (
        compact(
            before.reshape(-1)
            .scatter_reduce(0, places.reshape(-1), new.reshape(-1), "amin", include_self=bool(given["accumulate"]))
            .reshape(output.shape)
        )
        for before, new in zip(target.planes, values.planes, strict=True)
    )
    return Shadow((top, bottom, left, right), (None, None), None, first_note([target, values]))


def _movement(call: Call) -> list[Shadow]:
    """Does to each plane what was done to the tensor."""
    for name, value in call.given.items():
        if name not in _CARRIED and any(id(leaf) in call.known for leaf in tree_leaves(value)):
            raise Unfollowed(f"{call.name} by numbers from the image could not be followed")
    carried = [leaf for name in _CARRIED for leaf in tree_leaves(call.given.get(name)) if isinstance(leaf, Tensor)]
    seen = [call.known[id(each)] for each in carried if id(each) in call.known]

    def moves(plane_of: Callable[[Shadow], Tensor | None], nothing: float = NOTHING) -> list[Tensor]:
        def plane(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            shadow = call.known.get(id(leaf))
            found = None if shadow is None else plane_of(shadow)
            return torch.tensor(nothing, device=leaf.device).expand(leaf.shape) if found is None else found

        return _run(
            call, {name: tree_map(plane, value) for name, value in call.given.items() if name in _CARRIED}, nothing
        )

    sides = [moves(lambda shadow, side=side: shadow.planes[side]) for side in range(4)]  # type: ignore[misc]
    masked: list[Tensor] | None = None
    if any(each.masked is not None for each in seen):
        masked = moves(lambda shadow: None if shadow.masked is None else shadow.masked.float(), 0.0)
    ideals = [_moved_ideal([each.ideal[axis] for each in seen], axis, moves) for axis in (0, 1)]
    note = first_note(seen)
    return [
        Shadow(
            (sides[0][i], sides[1][i], sides[2][i], sides[3][i]),
            (ideals[0][i] if ideals[0] else None, ideals[1][i] if ideals[1] else None),
            masked[i] > 0 if masked else None,
            note,
        )
        for i in range(len(sides[0]))
    ]


def _run(call: Call, carried: dict[str, Any], nothing: float) -> list[Tensor]:
    """The operation on planes in place of its tensors."""
    if call.name in _RESHAPES:
        planes = [carried["self"].reshape(call.result.shape)]
    else:
        given = dict(call.given) | carried
        if call.name == "constant_pad_nd":
            given["value"] = nothing
        schema = call.func._schema.arguments
        by_place = [given[each.name] for each in schema if not each.kwarg_only]
        by_name = {each.name: given[each.name] for each in schema if each.kwarg_only and each.name in given}
        planes = [leaf for leaf in tree_leaves(call.func(*by_place, **by_name)) if isinstance(leaf, Tensor)]
    return planes if call.func.is_view and call.name not in _RESHAPES else [compact(plane) for plane in planes]


def _moved_ideal(ideals: list[Ideal | None], axis: int, moves: Callable[..., list[Tensor]]) -> list[Ideal] | None:
    """The ideal fields of all outputs; None if the inputs' do not go together."""
    known = [each for each in ideals if each is not None]
    if len(known) < len(ideals):
        return None
    start = min(each.start for each in known)
    size = max(each.start + each.size for each in known) - start
    if any(each.where is None for each in known):
        count = len(moves(lambda shadow: shadow.planes[0]))
        return [Ideal(start, None, size, None)] * count
    if len({each.stride for each in known}) > 1:
        return None

    def where(shadow: Shadow) -> Tensor | None:
        ideal = shadow.ideal[axis]
        return None if ideal is None else ideal.where

    return [Ideal(start, known[0].stride, size, each) for each in moves(where)]


def _dims(dim: Any, rank: int) -> list[int]:
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(rank))
    return [each % max(rank, 1) for each in ([dim] if isinstance(dim, int) else dim)]


_RULES: dict[str, Rule] = {
    "convolution": convolution,
    "copy": _copied,
    "fill": _filled,
    "zero": _constant,
    "where": chosen,
    "masked_fill": chosen,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "mkldnn_rnn_layer": _recurrent,
    "hardswish": _pointwise,
    "lift_fresh": _pointwise,
    **dict.fromkeys(("index_put", "_unsafe_index_put", "_index_put_impl"), _put),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv", "addmv"), product),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), softmax),
    **dict.fromkeys(("sum", "mean", "prod", "max", "min", "any", "all", "std", "var", "norm", "dot", "vdot"), _to_one),
    **dict.fromkeys(("sort", "topk", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "kthvalue"), _along),
    **dict.fromkeys(
        ("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"), pooling
    ),
    **dict.fromkeys(
        tuple(f"{under}adaptive_{kind}_pool{n}d" for under in ("", "_") for kind in ("avg", "max") for n in (1, 2, 3)),
        adaptive_pooling,
    ),
    **dict.fromkeys(
        (
            "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm",
            "miopen_batch_norm", "_batch_norm_with_update", "_batch_norm_no_update",
        ),
        _batch_norm,
    ),
}  # fmt: skip
