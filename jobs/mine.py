"""`mine`: a dataset and a network in, a run's tables, visualizations and sheets out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Display
from pipeline.layers import Traced
from pipeline.mine import MineSettings
from pipeline.mine import mine as mine_dataset
from pipeline.models import load_network, pick_device
from pipeline.sources import find_dataset


def mine(
    dataset: Annotated[
        str, typer.Option(help="demo, imagenet-val, imagenet-train, imagenette, a folder, or tars.")
    ] = "demo",
    model: Annotated[
        str, typer.Option(help="demo (default for the demo), or any torchvision name (default googlenet).")
    ] = "",
    weights: Annotated[str, typer.Option(help="Default weights if empty; 'random'; or a .safetensors/.pth file.")] = "",
    layers: Annotated[
        str, typer.Option(help="Comma-separated globs or exact names; all unit-bearing layers if empty.")
    ] = "",
    topk: Annotated[int, typer.Option(min=1, help="Exemplars kept of each unit.")] = 50,
    run: Annotated[str, typer.Option(help="Folder of the run; runs/DATASET-MODEL if empty.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a batch.")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="Decode threads; 0: one per core. No table depends on it.")] = 0,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of skipped samples that is tolerated.")
    ] = 0.01,
    data: Annotated[str, typer.Option(help="Where named datasets live.")] = "data",
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")] = False,
) -> None:
    """Finds what every unit of a network responds to.

    Example:  mine --dataset photos/ --model resnet50 --layers 'layer4.*'

    Interrupt it at any time: the same command goes on where it stopped.
    """
    display = Display(quiet)
    source = find_dataset(dataset, Path(data), display)
    network = load_network(model or ("demo" if dataset == "demo" else "googlenet"), weights)
    traced = Traced(network.module, network.input_shape)
    chosen = traced.choose(layers)
    folder = Path(run or f"runs/{source.name}-{network.name}")
    settings = MineSettings(topk, batch_size, workers, max_skipped)
    mine_dataset(source, network, traced, chosen, folder, pick_device(device), settings, display)
