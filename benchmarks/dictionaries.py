"""What a dictionary of very many latents costs: `python -m benchmarks.dictionaries`.

A top-k dictionary of random directions on a layer of 196 tokens of 768 numbers. Prints, of one batch, the medians of
interleaved rounds of the bare matrix product and of reading all latents by it (ratio; bar 1.5). Then a run is mined
with it by the command, in a process of its own, over some generated images: its peak memory (bar 8 GB), its seconds an
image beside those of the product, the bytes of its tables an exemplar (bar 200), and how long one latent's exemplars
take to find (bar 50 ms). The dictionary's file takes 3.2 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.dictionaries.plain import read
from actmine.pipeline.network.encoded import Encoded
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.points import Read
from actmine.pipeline.readings.reductions import read_fired
from actmine.pipeline.readings.taps import SideBySide
from actmine.pipeline.storage.tensors import write_tensors

WIDTH, TOKENS, K = 768, 196, 16
_AT_ONCE = 4096


class Patches(nn.Module):
    """Tokens of 16 x 16 pixels each, by one linear map: `[B, 196, 768]`."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 16, 16)
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Of images `[B, 3, 224, 224]`."""
        mixed: Tensor = self.mix(self.patches(images).flatten(2).transpose(1, 2))
        return mixed


def network() -> nn.Module:
    """The network of this benchmark, for `benchmarks.dictionaries:network`."""
    return Patches()


def product(file: Path, images: int, rounds: int) -> tuple[float, float]:
    """Median seconds an image of the bare matrix product, and of reading all latents by it."""
    torch.set_num_threads(usable_cores())
    dictionary = read(file)
    of = Layer("mix", "linear", WIDTH, TOKENS, 1, "mix", "tokens")
    its = Read(read_fired, (True, "read_layer", "tokens", TOKENS, 1), SideBySide())
    encoded = Encoded(dictionary, Latents(of, ""), its)
    vectors = torch.randn(images, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    times: tuple[list[float], list[float]] = ([], [])

    def bare() -> None:
        flat = vectors.reshape(-1, WIDTH)
        for start in range(0, dictionary.latents, _AT_ONCE):
            flat @ dictionary.encoder[:, start : start + _AT_ONCE]

    with torch.inference_mode():
        for number in range(rounds + 1):
            for kept, work in zip(times, (bare, lambda: encoded(vectors)), strict=True):
                start = time.perf_counter()
                work()
                if number:
                    kept.append((time.perf_counter() - start) / images)
    return statistics.median(times[0]), statistics.median(times[1])


def mined(folder: Path, file: Path, images: int, topk: int) -> tuple[float, float]:
    """Mines generated images; peak memory (GB) of the process, and its seconds."""
    random = np.random.Generator(np.random.PCG64(0))
    (folder / "photos").mkdir()
    for number in range(images):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(folder / "photos" / f"{number:03d}.jpg")
    words = [
        sys.executable, "-m", "actmine", "mine", "--dataset", str(folder / "photos"), "--model",
        "benchmarks.dictionaries:network", "--dictionary", f"mix:d={file}", "--layers", "mix:d", "--topk", str(topk),
        "--run", str(folder / "run"), "--no-visualize", "--no-sheets", "--maps", "0", "--compile", "0",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(words)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mine ended with {status}")
    return usage.ru_maxrss / 1e6, time.perf_counter() - start


def main() -> None:
    """Prints all of it."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--latents", type=int, default=1 << 20)
    words.add_argument("--images", type=int, default=64)
    words.add_argument("--topk", type=int, default=20)
    words.add_argument("--rounds", type=int, default=3)
    given = words.parse_args()
    with TemporaryDirectory() as name:
        folder, file = Path(name), Path(name) / "dictionary.safetensors"
        generator = torch.Generator().manual_seed(0)
        encoder = torch.empty(WIDTH, given.latents).normal_(generator=generator)
        write_tensors(file, {"W_enc": encoder, "k": torch.tensor([K])}, {})
        del encoder
        print(f"{date.today()}, {usable_cores()} cores: {given.latents:,} latents, {TOKENS} tokens of {WIDTH}, k = {K}")
        bare, whole = product(file, 8, given.rounds)
        print(
            f"an image: product {bare:.3f} s, all latents read {whole:.3f} s: {whole / bare:.2f} (bar 1.5)", flush=True
        )
        memory, seconds = mined(folder, file, given.images, given.topk)
        record = json.loads((folder / "run" / "run.json").read_text())
        scan = record["seconds"]["scan"] / given.images
        rows = record["counts"]["exemplars"]
        size = sum(path.stat().st_size for path in (folder / "run" / "exemplars").rglob("*.parquet"))
        print(
            f"mine of {given.images} images: {seconds:.0f} s in all, {record['seconds']}; peak {memory:.1f} GB (bar 8)"
        )
        print(
            f"scan an image {scan:.2f} s, {scan / bare:.2f} of the product; {rows:,} exemplars of {size / rows:.0f} B"
        )
        times = []
        for unit in np.random.Generator(np.random.PCG64(1)).integers(0, given.latents, 20).tolist():
            start = time.perf_counter()
            pd.read_parquet(folder / "run" / "exemplars", filters=[("unit", "==", unit)])
            times.append(time.perf_counter() - start)
        print(f"one latent's exemplars: {1000 * statistics.median(times[1:]):.0f} ms by pandas (bar 50)")


if __name__ == "__main__":
    main()
