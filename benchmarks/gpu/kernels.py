"""What each kernel is given to do by real networks: maps, chains behind convolutions, a batch of readings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

MAPS = ((64, 112), (64, 56), (256, 56), (128, 28), (512, 28), (256, 14), (1024, 14), (512, 7), (2048, 7))
TOKENS = ((768, 197), (3072, 197))

Work = tuple[str, int, int, Callable[..., object]]
"""A name, how often there is such a one, bytes that it reads and writes, the call."""


def chains(images: int, device: torch.device | str = "cpu") -> Iterator[Work]:
    """What ResNet-50 and ViT-B/16 have behind their convolutions and linear maps; the call takes a `tile`."""
    from actmine.pipeline.readings.chain_kernel import chain

    def one(places: int, units: int, times: int, norms: int, right: bool, activation: str, taps: str) -> Work:
        left, out = (torch.empty(images, places, units, dtype=torch.bfloat16, device=device) for _ in range(2))
        factors = torch.ones(units, device=device), torch.ones(units, device=device)
        own, other = (factors if norms > which else None for which in range(2))
        which = [tap == "1" for tap in taps]
        call = partial(chain, left, own, torch.empty_like(left) if right else None, other, activation, which, out)
        what = "+".join(["norm"] * norms + ["add"] * right + [activation] * (activation != "none"))
        return f"{what} {units} x {places}, taps {taps}", times, left.nbytes * (2 + right), call

    yield one(112 * 112, 64, 1, 1, False, "relu", "0001")
    for width, side, blocks in ((64, 56, 3), (128, 28, 4), (256, 14, 6), (512, 7, 3)):
        yield one(side * side, width, 2 * blocks - (width > 64), 1, False, "relu", "0001")
        if width > 64:
            yield one(4 * side * side, width, 1, 1, False, "relu", "0001")
        yield one(side * side, 4 * width, 1, 2, True, "relu", "1110")
        yield one(side * side, 4 * width, blocks - 1, 1, True, "relu", "1010")
    yield one(197, 768, 12, 0, True, "none", "1010")
    yield one(197, 768, 12, 0, True, "none", "0110")
    yield one(197, 3072, 12, 0, False, "gelu", "0001")


def taps(images: int) -> Iterator[Work]:
    """Maps read by themselves, in every order of memory and precision, with all that is read besides."""
    from actmine.pipeline.readings.tap_kernel import sweep

    marks = torch.zeros(images, dtype=torch.int64)
    for units, side in MAPS:
        maps = torch.empty(images, side, side, units, dtype=torch.bfloat16).permute(0, 3, 1, 2)
        yield f"tap {units} x {side}²", 1, maps.nbytes, partial(sweep, maps)
        if units in (64, 1024):
            yield (
                f"tap contiguous {units} x {side}²",
                1,
                maps.nbytes,
                partial(sweep, torch.empty_like(maps).contiguous()),
            )
    for units, tokens in TOKENS[:1]:
        maps = torch.empty(images, tokens, units).transpose(1, 2).unsqueeze(3)
        yield f"tap float32 {units} x {tokens}", 1, maps.nbytes, partial(sweep, maps)
        yield f"both ends {units} x {tokens}", 1, maps.nbytes, partial(sweep, maps, None, True)
        yield f"one drawn {units} x {tokens}", 1, maps.nbytes, partial(sweep, maps, marks, False, True)
        yield f"counted {units} x {tokens}", 1, maps.nbytes, partial(sweep, maps, marks, False, False, True)


def accumulators(images: int) -> Iterator[Work]:
    """What is done with a batch of ResNet-50's readings."""
    from actmine.pipeline.readings import unit_kernels as kernels
    from actmine.pipeline.readings.bucket_edges import BUCKETS

    units = 42_664
    values, places = torch.empty(images, units), torch.empty(images, units, dtype=torch.int32)
    numbers = torch.arange(images)
    for k in (50, 200):
        keys, positions = torch.empty(units, k, dtype=torch.int64), torch.empty(units, k, dtype=torch.int32)
        read = values.nbytes + places.nbytes
        call = partial(kernels.keep_best, keys, positions, values, places, numbers)
        yield f"the {k} best", 1, read + 2 * (keys.nbytes + positions.nbytes), call
    integers, doubles = (torch.empty(units, dtype=kind) for kind in (torch.int64, torch.float64))
    of = dict.fromkeys(("images", "nan", "fired"), integers) | dict.fromkeys(("sum", "square_sum"), doubles)
    of |= dict.fromkeys(("maximum", "minimum"), torch.empty(units))
    yield "statistics", 1, values.nbytes, partial(kernels.add_statistics, of, values)
    counts = torch.empty(units, BUCKETS, dtype=torch.int32)
    yield "histograms", 1, values.nbytes, partial(kernels.count, counts, values)
    missing, total, largest = (
        torch.empty(20, units, dtype=kind) for kind in (torch.int32, torch.float64, torch.float32)
    )
    squares = torch.empty(2, units, dtype=torch.float64)
    call = partial(kernels.add_labelled, values, numbers % 20, missing, total, largest, squares)
    yield "labels", 1, values.nbytes, call
    yield "in two", 1, 3 * values.nbytes, partial(kernels.in_two, values)
