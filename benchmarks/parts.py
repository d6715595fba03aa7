"""What do the parts of mining cost, alone? `python -m benchmarks.parts`.

Reductions of a map [64, C, H, W] in channels_last against memory speed, and what the accumulators do with the image
activations of SqueezeNet 1.1 (3,944 units, k = 50), all with freed memory kept. Medians, in milliseconds a batch of 64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.readings.batch_index import BatchIndex
from actmine.pipeline.readings.reductions import read_map
from actmine.pipeline.readings.sketches import Sketches
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.taps import Readings
from actmine.pipeline.readings.topk import pack
from benchmarks.rounds import interleaved

MAPS = ((64, 111), (16, 55), (64, 55), (128, 27), (192, 13), (1000, 13))
UNITS, K, BATCH, ROUNDS = 3944, 50, 64, 15


def main() -> None:
    """Prints a line a candidate."""
    keep_freed_memory()
    torch.set_num_threads(usable_cores())
    torch.manual_seed(0)
    with torch.inference_mode():
        for channels, side in MAPS:
            reductions(channels, side)
        accumulators()


def reductions(channels: int, side: int) -> None:
    """The tap, the maximum alone, and an in-place ReLU for comparison."""
    image = torch.randn(BATCH, channels, side, side).relu_().to(memory_format=torch.channels_last)
    timings = interleaved(
        {"tap": lambda: read_map(image), "amax": lambda: image.amax((2, 3)), "relu_": lambda: functional.relu_(image)},
        ROUNDS,
    )
    speeds = (
        f"{name} {t.median * 1e3:5.2f} ms {image.nbytes / t.median / 1e9:4.0f} GB/s" for name, t in timings.items()
    )
    print(f"[{BATCH}, {channels}, {side}, {side}]  " + "   ".join(speeds))


def accumulators() -> None:
    """Merging the top-k after so many images, packing, statistics, sketches."""
    values = torch.randn(BATCH, UNITS)
    images = torch.arange(BATCH)
    statistics, sketches = Statistics(UNITS), Sketches(UNITS)
    many = Readings(torch.randn(256, UNITS), torch.zeros(256, UNITS, dtype=torch.int64))
    readings = Readings(values, torch.zeros_like(values, dtype=torch.int64))
    candidates: dict[str, tuple[Callable[[], object], int]] = {
        "packing": (lambda: pack(values, images[:, None]), BATCH),
        "statistics": (lambda: statistics.update(readings, BatchIndex.of(images)), BATCH),
        "sketches every 256 images": (lambda: sketches.update(many, BatchIndex.of(torch.arange(256))), 256),
    }
    for rows in (256, 512, 1024):
        kept, new = torch.randint(1 << 62, (UNITS, K)), torch.randint(1 << 62, (rows, UNITS))
        for in_order in (False, True):
            name = f"merge every {rows} images{', sorted' if in_order else ''}"
            candidates[name] = (partial(_merge, kept, new, in_order), rows)
    timings = interleaved({name: call for name, (call, _) in candidates.items()}, ROUNDS)
    for name, timing in timings.items():
        print(f"{name:<32}{timing.median * 1e3 * BATCH / candidates[name][1]:6.2f} ms")


def _merge(kept: Tensor, new: Tensor, in_order: bool) -> Tensor:
    return torch.cat([kept, new.t()], 1).topk(K, dim=1, sorted=in_order)[1]


if __name__ == "__main__":
    main()
