"""Does a trainer of our own pay? `python -m benchmarks.training`: ours beside overcomplete's TopKSAE.

Both learn from the same vectors of block4.relu of the demo's network (80 units), as many of them, 640 latents of which
16 are active, batches of 2,048; one image in sixteen is held out. Prints the share of the held-out variance that each
explains, its active and its silent latents (those that no held-out vector has), and its seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import Tensor

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.dictionaries.dictionary import KLargest
from actmine.pipeline.dictionaries.training import Training
from actmine.pipeline.network.layer import Latents
from actmine.pipeline.network.models import load_network
from actmine.pipeline.stages.layer_vectors import LayerVectors

LATENTS, K, BATCH = 640, 16, 2048


def ours(learned: Tensor, vectors: int) -> KLargest:
    """That of this project, by its rates."""
    training = Training(learned[:65536], LATENTS, K, vectors)
    generator = torch.Generator().manual_seed(0)
    while training.seen < vectors:
        order = torch.randperm(len(learned), generator=generator)
        for at in range(0, len(learned) - BATCH + 1, BATCH):
            training.step(learned[order[at : at + BATCH]])
            if training.seen >= vectors:
                break
    return training.made()


def theirs(learned: Tensor, vectors: int) -> Any:
    """overcomplete's, with its own loop, its default encoder and Adam at its tutorial's rate."""
    vars(mpl.cm)["get_cmap"] = mpl.colormaps.get_cmap  # which it draws with, by a name that is gone
    from overcomplete.sae import TopKSAE, train_sae  # type: ignore[import-untyped]

    torch.manual_seed(0)
    sae = TopKSAE(learned.shape[1], LATENTS, top_k=K)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(learned), batch_size=BATCH, shuffle=True)

    def loss(x: Tensor, x_hat: Tensor, *_: object) -> Tensor:
        return (x - x_hat).square().mean()

    optimizer = torch.optim.Adam(sae.parameters(), lr=5e-4)
    epochs = max(round(vectors / len(learned)), 1)
    train_sae(sae, loader, loss, optimizer, nb_epochs=epochs, device="cpu", monitoring=0)
    return sae.eval()


def main() -> None:
    """Prints both."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--vectors", type=int, default=4_000_000)
    words.add_argument("--data", type=Path, default=Path("data"))
    given = words.parse_args()
    torch.set_num_threads(usable_cores())
    network = load_network("demo")
    traced = network.traced()
    (layer,) = traced.choose("block4.relu")
    chunk = LayerVectors(
        network, traced, Latents(layer, ""), find_dataset("demo", given.data).shards, 1 << 22, None, 0
    ).chunk(0)
    held = chunk.held
    spread = float((held - held.mean(0)).square().sum())
    print(f"{date.today()}, {usable_cores()} cores: {len(chunk.learned):,} vectors, {len(held):,} held out")
    trainers: dict[str, Callable[[Tensor, int], Any]] = {"ours": ours, "overcomplete": theirs}
    for name, train in trainers.items():
        start = time.perf_counter()
        made = train(chunk.learned, given.vectors)
        seconds = time.perf_counter() - start
        with torch.no_grad():
            latents = made(held) if name == "ours" else made.encode(held)[-1]
            again = made.reconstructed(held)[0] if name == "ours" else made.decode(latents)
        left = float((again - held).square().sum()) / spread
        active, dead = float((latents > 0).sum(1).float().mean()), int((latents > 0).any(0).logical_not().sum())
        print(f"{name}: {1 - left:.1%} explained, {active:.1f} active, {dead} of {LATENTS} silent, {seconds:.0f} s")


if __name__ == "__main__":
    main()
