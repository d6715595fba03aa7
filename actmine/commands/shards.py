"""`shards`: a dataset in; WebDataset shards with the original bytes out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from actmine.console import Display
from actmine.options.shards import Shards
from actmine.pipeline.datasets.shard_writer import out_folder, write_shards
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.spoken import command


def shards(options: Shards, display: Display) -> dict[str, Any]:
    """Carries out `shards`; its answer is what `--json` says."""
    folder = out_folder(options.out)
    dataset = find_dataset(options.source, options.data, display)
    written = write_shards(dataset, folder, options.samples_per_shard, options.name, options.workers, display)
    display.say(f"{written.samples:,} images in {written.shards:,} shards are in {written.folder}.")
    if written.skipped:
        display.say(
            f"{written.skipped:,} samples were left out: {written.folder / 'skipped.parquet'} says which and why."
        )
    if written.renamed:
        display.say(f"{written.renamed:,} images have another key than before; the indices keep the old one.")
    display.say(f"Mine them:  {command('mine', dataset=written.folder)}")
    return dict(**asdict(written))
