"""How fast is mining beside what people use today? `python -m benchmarks.peers` (needs `pip install 'actmine[bench]'`).

SqueezeNet 1.1, the same 26 layers. semanticlens 0.2: its cache of the maxima (`ActMaxCache`, k = 50, bfloat16, no
positions) fed with tensors in memory, and its own loader over JPEG files. zennit-crp 0.6: its feature visualization
(`FeatureVisualization.run`, k = 40 as it is fixed there), tensors in memory. Each in a process of its own, with memory
as it comes, as their users have it; actmine as its commands run.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.preprocessing.images import decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from benchmarks.elsewhere import Elsewhere
from benchmarks.end_to_end import scanning
from benchmarks.mining import KEEP, mining, show
from benchmarks.photographs import photographs
from benchmarks.rounds import interleaved
from benchmarks.subject import PREPROCESSING, network, normalized

BATCH = 64


def main() -> None:
    """Prints images/s of each and the ratios with their bars."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--images", type=int, default=256, help="tensors in memory a round")
    words.add_argument("--files", type=int, default=512, help="JPEG files a round")
    given = words.parse_args()
    folder = photographs(Path(gettempdir()) / f"actmine-photographs-{given.files}", given.files)
    print(f"{date.today()}  semanticlens {version('semanticlens')}, zennit-crp {version('zennit-crp')}, cpu")
    counts = {"crp": min(64, given.images), "semanticlens from files": given.files, "actmine from files": given.files}
    with ExitStack() as stack:
        candidates = {
            "actmine": Elsewhere(mining, given.images, "fp32", False, keep=True),
            "semanticlens": Elsewhere(semanticlens, given.images, keep=False),
            "crp": Elsewhere(crp, counts["crp"], keep=False),
            "actmine from files": Elsewhere(scanning, folder, keep=True),
            "semanticlens from files": Elsewhere(semanticlens_from_files, folder, keep=False),
        }
        for candidate in candidates.values():
            stack.enter_context(candidate)
        timings = interleaved(candidates, given.rounds)
    for name, timing in timings.items():
        show(name, timing, counts.get(name, given.images))
    seconds = {name: timing.median / counts.get(name, given.images) for name, timing in timings.items()}
    for ours, theirs, bar in (
        ("actmine", "semanticlens", 2.3),
        ("actmine from files", "semanticlens from files", 2.3),
        ("actmine", "crp", 12),
    ):
        ratio = seconds[theirs] / seconds[ours]
        print(f"{ours} / {theirs} = {ratio:.1f} (bar {bar}: {'reached' if ratio >= bar else 'missed'})")


def taps_of(module: nn.Module) -> list[str]:
    """Modules that give the same 26 tensors: the activation behind each convolution."""
    return [name for name, part in module.named_modules() if isinstance(part, nn.ReLU)]


def semanticlens(images: int) -> Callable[[], None]:
    """Its hooks around the forward pass in channels_last, maxima."""
    from semanticlens.component_visualization.activation_caching import ActMaxCache
    from semanticlens.component_visualization.aggregators import aggregate_conv_max

    module, batches = network(), normalized(images).split(BATCH)

    @torch.no_grad()
    def run() -> None:
        cache = ActMaxCache(taps_of(module), aggregation_fn=aggregate_conv_max, n_collect=KEEP.topk)
        with cache.hook_context(module):
            for batch in batches:
                module(batch)

    return run


def semanticlens_from_files(folder: Path) -> Callable[[], None]:
    """Its own loop and loader, a worker process for each core."""
    from semanticlens.component_visualization import ActivationComponentVisualizer
    from semanticlens.component_visualization.aggregators import aggregate_conv_max

    module, files = network(), _Files(folder)

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()):
            visualizer = ActivationComponentVisualizer(
                module, files, files, taps_of(module), num_samples=KEEP.topk, aggregate_fn=aggregate_conv_max
            )
            visualizer._run(batch_size=BATCH, num_workers=usable_cores())

    return run


def crp(images: int) -> Callable[[], None]:
    """Its analysis of activations and relevances, which needs a backward pass."""
    from crp.attribution import CondAttribution
    from crp.concepts import ChannelConcept
    from crp.visualization import FeatureVisualization
    from zennit.composites import EpsilonPlusFlat

    module = network()
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    data = TensorDataset(normalized(images), torch.zeros(images, dtype=torch.int64))
    layers = {name: ChannelConcept() for name in taps_of(module)}

    def run() -> None:
        with (
            TemporaryDirectory() as folder,
            contextlib.redirect_stderr(io.StringIO()),
            open(os.devnull, "w") as nowhere,
            contextlib.redirect_stdout(nowhere),
        ):
            seen = FeatureVisualization(CondAttribution(module), data, layers, path=folder)
            seen.run(EpsilonPlusFlat(), 0, images, batch_size=32, checkpoint=100)

    return run


class _Files(Dataset[tuple[Tensor, int]]):
    """A folder's images as network input, by the same pixels that actmine sees."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.name = "files"

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        image: Image.Image = decode(self.paths[number].read_bytes())
        pixels = torch.from_numpy(network_pixels(image, PREPROCESSING))[None]
        return Normalize(PREPROCESSING, torch.device("cpu"))(pixels)[0], 0


if __name__ == "__main__":
    main()
