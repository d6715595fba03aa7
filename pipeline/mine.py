"""Mines a dataset: scan, merge, crops, tables; every stage resumes, and the record says which is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline import record
from pipeline.batches import Batch
from pipeline.cores import usable_cores
from pipeline.crops import CropStore, cut_tasks, write_crops
from pipeline.engines.local import LocalEngine
from pipeline.errors import UserError
from pipeline.exemplars import Rows, exemplar_rows
from pipeline.layers import Layer, Traced
from pipeline.ledger import Ledger
from pipeline.merge import Merged, merge
from pipeline.mined_tables import MinedTables
from pipeline.models import Network
from pipeline.progress import Progress, Silent
from pipeline.receptive_field import Field, receptive_fields
from pipeline.scan import BlockState, ScanSettings, scan
from pipeline.sources import Block, Dataset, blocks_of
from pipeline.tables import write_table
from pipeline.taps import TappedNetwork
from schemas.shards import SHARDS
from schemas.skipped import SKIPPED


@dataclass(frozen=True, slots=True)
class MineSettings:
    """How to mine; only `topk` and `batch_size` have a say in the tables."""

    topk: int = 50
    batch_size: int = 64
    workers: int = 0  # 0: one per usable core
    max_skipped: float = 0.01


def mine(
    dataset: Dataset,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    run: Path,
    device: torch.device,
    settings: MineSettings = MineSettings(),
    progress: Progress = Silent(),
) -> dict[str, Any]:
    """Mines `layers` over `dataset` into the tables of `run` and returns its record.

    What an interrupted call had committed is kept. Raises `UserError` for a run begun with other settings, for
    weights that lack what the layers need, and for more skipped samples than `settings.max_skipped`.
    """
    tapped = TappedNetwork(traced, layers)
    _check_weights(network, tapped)
    known = record.identity(dataset, network, layers, settings.topk, settings.batch_size, device)
    ledger = Ledger(run, known)
    written = record.read_record(run)
    if written.get("fingerprint") == ledger.fingerprint:
        progress.say(f"{run} is already mined with these settings.")
        return written
    job = _Mining(dataset, network, layers, run, device, settings, progress, ledger, receptive_fields(traced, layers))
    return job.go(tapped, known)


def _check_weights(network: Network, tapped: TappedNetwork) -> None:
    lacking = sorted(tapped.parameter_names() & network.missing)
    if lacking:
        raise UserError(
            f"WEIGHTS {network.weights} lacks {', '.join(lacking[:6])}{' …' if len(lacking) > 6 else ''}, "
            "which the chosen layers need. Choose LAYERS below them (LAYERS='features.*', say) or complete weights."
        )


class _Mining:
    """One mining under way: the stages share what is fixed from the start."""

    def __init__(
        self,
        dataset: Dataset,
        network: Network,
        layers: Sequence[Layer],
        run: Path,
        device: torch.device,
        settings: MineSettings,
        progress: Progress,
        ledger: Ledger,
        fields: dict[str, Field],
    ) -> None:
        self.dataset, self.network, self.layers, self.run = dataset, network, layers, run
        self.device, self.settings, self.progress, self.ledger = device, settings, progress, ledger
        self.fields = fields
        self.blocks = blocks_of(dataset)
        self.workers = settings.workers or usable_cores()
        self.words = dataset.label_words(network.categories)
        self.seconds: dict[str, float] = {}

    def go(self, tapped: TappedNetwork, known: dict[str, Any]) -> dict[str, Any]:
        """Every stage in turn."""
        start = time.perf_counter()
        self._scan(tapped)
        merged = merge(self.ledger.load(block.number) for block in self.blocks)
        self._write_accounts(merged)
        rows = exemplar_rows(merged, self.layers, self.fields, self.network.preprocessing)
        paths = self._cut(merged, rows)
        self._write_tables(merged, rows, CropStore(paths, len(rows.unit)))
        self.seconds["mine"] = time.perf_counter() - start
        written = {
            "fingerprint": self.ledger.fingerprint,
            **known,
            "url": self.dataset.shards[0].url if self.dataset.shards else "",
            "missing_weights": sorted(self.network.missing),
            "units": sum(layer.units for layer in self.layers),
            "blocks": len(self.blocks),
            "counts": {
                "samples": merged.samples, "seen": merged.seen, "skipped": merged.samples - merged.seen,
                "exemplars": len(rows.unit), "images_with_exemplars": merged.images.num_rows,
            },
            "settings": {"max_skipped": self.settings.max_skipped, "workers": self.workers},
            "versions": record.versions(),
            "machine": record.machine(self.device),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }  # fmt: skip
        record.write_record(self.run, written)
        self.ledger.clear("block-*")
        self.ledger.clear("crops-*")
        return written

    def _scan(self, tapped: TappedNetwork) -> None:
        missing = set(self.ledger.missing(block.number for block in self.blocks))
        todo = [block for block in self.blocks if block.number in missing]
        if not todo:
            return
        start = time.perf_counter()
        done = len(self.blocks) - len(todo)
        if done:
            self.progress.say(f"Going on: {done} of {len(self.blocks)} blocks are done.")
        tapped.to(self.device).to(memory_format=torch.channels_last)
        how = ScanSettings(self.network.preprocessing, self.settings.topk, self.settings.batch_size, self.workers)
        total = self.dataset.samples
        before = round((total or 0) * done / len(self.blocks))
        with self.progress.stage("Scanning", total, "images", before) as advance:
            counter = _Counter(todo, total, advance)

            def worker(blocks: Iterable[Block]) -> Iterator[BlockState]:
                return scan(blocks, tapped, how, self.device, counter)

            for state in LocalEngine().map(worker, todo):
                self.ledger.commit(state)
        self.seconds["scan"] = time.perf_counter() - start

    def _write_accounts(self, merged: Merged) -> None:
        write_table(self.run / "shards.parquet", SHARDS, [merged.shards])
        write_table(self.run / "skipped.parquet", SKIPPED, [merged.skipped])
        skipped = merged.samples - merged.seen
        for url, members in zip(*(merged.shards[name].to_pylist() for name in ("url", "members")), strict=True):
            if not members:
                self.progress.say(f"Shard {url} is empty.")
        if not merged.seen:
            raise UserError(f"No image of {self.dataset.name} could be read; see {self.run / 'skipped.parquet'}.")
        if skipped > self.settings.max_skipped * merged.samples:
            raise UserError(
                f"{skipped} of {merged.samples} samples were skipped, more than "
                f"--max-skipped={self.settings.max_skipped:g} allows. {self.run / 'skipped.parquet'} "
                f"names each with its reason (the first: {_first_skip(merged)}). "
                "Mend them, or say the same again with a larger --max-skipped."
            )

    def _cut(self, merged: Merged, rows: Rows) -> list[Path]:
        start = time.perf_counter()
        paths = []
        with self.progress.stage("Cutting crops", len(rows.unit), "crops") as advance:
            for block in self.blocks:
                path = self.run / "state" / f"crops-{block.number:06d}-{self.ledger.fingerprint}.arrow"
                tasks = cut_tasks(block, merged, rows)
                if not tasks:
                    continue
                if path.exists():
                    advance(sum(len(task.rows) for task in tasks))
                else:
                    write_crops(path, tasks, self.workers, advance)
                paths.append(path)
        self.seconds["crops"] = time.perf_counter() - start
        return paths

    def _write_tables(self, merged: Merged, rows: Rows, crops: CropStore) -> None:
        start = time.perf_counter()
        tables = MinedTables(self.run, self.layers, self.fields, merged, rows, crops, self.words)
        tables.write_lists()
        with self.progress.stage("Writing tables", len(self.layers), "layers") as advance:
            for layer in self.layers:
                tables.write_layer(layer, self.settings.topk)
                advance(1)
        self.seconds["tables"] = time.perf_counter() - start


class _Counter:
    """Turns batches into progress; guesses the total from the shards done while nothing else tells it."""

    def __init__(self, todo: Sequence[Block], total: int | None, advance: Any) -> None:
        self.shards = sum(len(block.shards) for block in todo)
        self.total, self.advance = total, advance
        self.seen = self.skipped = self.finished = 0

    def __call__(self, batch: Batch) -> None:
        """One more batch is done."""
        self.seen += batch.samples
        self.skipped += len(batch.rejected)
        self.finished += batch.last
        note = f"{self.skipped} skipped" if self.skipped else ""
        if self.total is None and self.finished:
            self.advance(batch.samples, note=note, total=round(self.seen / self.finished * self.shards))
        else:
            self.advance(batch.samples, note=note)


def _first_skip(merged: Merged) -> str:
    row = merged.skipped.slice(0, 1).to_pylist()[0]
    return f"shard {row['shard']}, {row['key']}: {row['error']}"
