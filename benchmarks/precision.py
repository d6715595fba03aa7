"""What do other precisions, compilation and batch sizes change? `python -m benchmarks.precision DATASET MODEL WEIGHTS`.

Mines a dataset as the exact run does (float32, not compiled, batches of 16), once more in each other way, and compares
the exemplars: share of each unit's top-k images that both have, share of units with the same first image, of shared
exemplars at the same position, and how far apart their activations are. One line a way; means over the units that fire.
Further words: LAYERS, and depths of the top-k (9,50).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.network.devices import pick_device
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.stages.mine import MineSettings, mine

OTHERS: dict[str, dict[str, object]] = {
    "batches of 64": {"batch_size": 64},
    "compiled": {"compile": "1"},
    "bf16": {"precision": "bf16"},
    "bf16 compiled": {"precision": "bf16", "compile": "1"},
    "fp16": {"precision": "fp16"},
}


def main(dataset: str, model: str, weights: str, layers: str = "", topk: str = "9,50") -> None:
    """Prints the comparison of each way with the exact one."""
    device = pick_device("auto")
    source, network = find_dataset(dataset), load_network(model, weights)
    traced = Traced(network.module, network.input_shape)
    chosen = traced.choose(layers)
    depths = [int(k) for k in topk.split(",")]
    units = sum(layer.units for layer in chosen)
    print(f"{model} ({network.weights}), {units:,} units, {source.samples} images, {device}")

    def mined(**settings: object) -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            how = MineSettings(StatisticsOptions(max(depths)), **({"compile": "0", "batch_size": 16} | settings))  # type: ignore[arg-type]
            mine(source, network, traced, chosen, Path(folder), device, how)
            columns = ["layer", "unit", "rank", "activation", "image_id", "y", "x"]
            return pd.read_parquet(Path(folder) / "exemplars", columns=columns)

    exact = mined()
    for name, settings in OTHERS.items():
        other = mined(**settings)
        for k in depths:
            print(f"{name:14} k={k:<3} {compared(exact, other, k)}", flush=True)


def compared(exact: pd.DataFrame, other: pd.DataFrame, k: int) -> str:
    """What both runs have in common among the first k of each unit that fires."""
    unit = ["layer", "unit"]
    fires = exact[exact["rank"] == 0].set_index(unit)["activation"] > 0
    first, second = (
        run[run["rank"] < k].set_index(unit).loc[fires[fires].index].reset_index() for run in (exact, other)
    )
    both = first.merge(second, on=[*unit, "image_id"], suffixes=("", "_other"))
    overlap = len(both) / len(first)
    tops = [run[run["rank"] == 0].set_index(unit)["image_id"] for run in (first, second)]
    place = ((both["y"] == both["y_other"]) & (both["x"] == both["x_other"])) | both["y"].isna()
    apart = np.median(np.abs(both["activation_other"] / both["activation"] - 1))
    worst = both.groupby(unit).size().min() / k
    return (
        f"images {overlap:.4f} (worst unit {worst:.2f}), first {(tops[0] == tops[1]).mean():.4f}, "
        f"place {place.mean():.4f}, activation {apart:.1e}"
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main(*sys.argv[1:])
