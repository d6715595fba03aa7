"""One mining under way: scan, merge, pictures, tables; every stage resumes, and the record says which is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actmine.pipeline import record
from actmine.pipeline.cores import usable_cores
from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.datasets.sources import Block, Dataset, blocks_of
from actmine.pipeline.engines.engine import Engine, Tally
from actmine.pipeline.errors import UserError, listed
from actmine.pipeline.exemplars.crops import KEPT, CropPart, crop_parts
from actmine.pipeline.exemplars.exemplars import Rows, exemplar_rows
from actmine.pipeline.exemplars.maps import KEPT as KEPT_MAPS
from actmine.pipeline.exemplars.maps import MapSettings, asked_of
from actmine.pipeline.exemplars.winners import winners
from actmine.pipeline.network.computation import probe
from actmine.pipeline.network.dictionary_layers import origins
from actmine.pipeline.network.grids import Grid, grids
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.progress import Progress
from actmine.pipeline.readings.maxima import opened
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import unit_offsets
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.pipeline.scanning.compute import Compute
from actmine.pipeline.scanning.ledger import Ledger, StateLost
from actmine.pipeline.scanning.limits import most_blocks
from actmine.pipeline.scanning.merge import Merged, merge
from actmine.pipeline.scanning.scan import ScanSettings
from actmine.pipeline.stages.first_look import FirstLook
from actmine.pipeline.stages.mined_run import clear, lost_of, tables_of
from actmine.pipeline.storage.files import is_local, remove_files
from actmine.pipeline.storage.parquet import whole_parts, write_arrow, write_table
from actmine.pipeline.tables.label_tree import Tree
from actmine.pipeline.tables.map_tables import MapTables
from actmine.pipeline.tables.mined_tables import MinedTables, matrix_images
from actmine.pipeline.tables.picture_tables import write_pictures
from actmine.pipeline.words import MAPPED, NONE, SIDE
from actmine.pipeline.work import CropWork, ScanWork
from actmine.schemas.labels import MAXIMA_IMAGES
from actmine.schemas.shards import SHARDS
from actmine.schemas.skipped import SKIPPED

_LANES = 8
"""Layers whose tables are written at once, at most: each holds those of its units in memory."""


@dataclass(frozen=True, slots=True)
class MineSettings:
    """How to mine. `workers` and `max_skipped` have no say in the tables.

    `batch_size` 0 is what suits the device, `workers` 0 one for each usable core. `precision` is one of
    `compute.PRECISIONS`; `compile` is 1, 0 or auto, see `compiling.decide`; `decoder` is pillow or nvjpeg; `pictures`
    is what is kept of winning images, see `crops.parse_pictures`; `maps` of how many first exemplars of each unit the
    activation map is; `tree` is that of the labels, if they form one. Dictionaries that explain less than a share
    `least_explained` of their layer's variance are refused.
    """

    keep: StatisticsOptions = field(default_factory=StatisticsOptions)
    batch_size: int = 0
    workers: int = 0
    max_skipped: float = 0.01
    precision: str = "fp32"
    compile: str = "auto"
    decoder: str = "pillow"
    pictures: str = SIDE
    maps: int = MAPPED
    tree: Tree | None = None
    least_explained: float = 0.0


class Mining:
    """One mining under way: the stages share what is fixed from the start."""

    def __init__(
        self,
        dataset: Dataset,
        subject: Subject,
        run: Path,
        engine: Engine,
        settings: MineSettings,
        how: Compute,
        progress: Progress,
        ledger: Ledger,
        fields: dict[str, Field],
        look: FirstLook,
    ) -> None:
        self.look = look
        self.dataset, self.subject, self.run, self.engine = dataset, subject, run, engine
        self.network, self.layers = subject.network, subject.layers
        self.settings, self.how, self.progress, self.ledger, self.fields = settings, how, progress, ledger, fields
        units = sum(layer.units for layer in self.layers)
        self.blocks = blocks_of(dataset, most_blocks(units, settings.keep, dataset.about))
        self.words = dataset.label_words(self.network.categories)
        ledger.contents = {block.number: block.changed for block in self.blocks if block.changed}
        self.grids: dict[str, Grid] = grids(subject.traced, self.layers)
        self.seconds: dict[str, float] = {}

    def go(self, known: dict[str, Any]) -> dict[str, Any]:
        """Every stage in turn."""
        start = time.perf_counter()
        self._say_lost()
        keep = self.settings.keep
        merged = self._merged(keep.keeps_maxima)
        if self.again:
            remove_files([self.run / "run.json"])  # from here on tables hold some of each
        self._write_accounts(merged)
        if keep.keeps_maxima:
            write_table(self.run / "maxima" / "images.parquet", MAXIMA_IMAGES, [matrix_images(merged)])
        won = winners(merged, keep)
        merged = merged.keeping(won.image_id)
        rows = exemplar_rows(won, merged, self.layers, self.fields, self.network.preprocessing, self.grids)
        labels = self._write_tables(merged, rows, self._cut(merged, rows))
        self.seconds["mine"] = time.perf_counter() - start
        written = {
            "fingerprint": self.ledger.fingerprint,
            **known,
            "url": self.dataset.shards[0].url if self.dataset.shards else "",
            "missing_weights": sorted(self.network.missing),
            "asked": {
                **self.network.asked, **({"dictionaries": read} if (read := origins(self.layers)) else {}),
                "dataset": self.dataset.word, "data": self.dataset.root,
            },
            "probe": probe(self.network.module, self.network.input_shape),
            "units": sum(layer.units for layer in self.layers),
            "blocks": len(self.blocks),
            "boxes": known["preprocessing"]["boxes"],
            "tables": tables_of(self.run, self.layers, merged.maxima if keep.keeps_maxima else ()),
            "counts": {
                "samples": merged.samples, "seen": merged.seen, "skipped": merged.samples - merged.seen,
                "turned": merged.turned,
                "exemplars": len(rows.unit), "images_with_exemplars": merged.images.num_rows,
            },
            "labels_account": labels,
            "settings": {"max_skipped": self.settings.max_skipped, "workers": self.settings.workers},
            "versions": record.versions(),
            "machine": self.engine.machine(),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }  # fmt: skip
        record.write_record(self.run, written)
        clear(self.ledger)
        return written

    def _say_lost(self) -> None:
        """Says so where a run that was done is mined again."""
        before = record.read_record(self.run)
        self.again = before.get("fingerprint") == self.ledger.fingerprint
        if self.again:
            lost = lost_of(self.run, before)
            further = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
            self.progress.say(
                f"{self.run} was mined, but {lost[0]}{further} is gone or damaged. It is mined again; what other "
                "commands had added to its tables is lost: say them again."
            )

    def _merged(self, whole: bool) -> Merged:
        """The states of all blocks; one that is damaged or gone is made again, once."""
        made_again = set()
        while True:
            self._scan()
            start = time.perf_counter()
            try:
                merged = merge((self.ledger.load(block.number) for block in self.blocks), whole)
                self.seconds["merge"] = time.perf_counter() - start
                return merged
            except StateLost as error:
                if error.block in made_again or not is_local(self.run):  # elsewhere another command may have ended it
                    raise
                self.progress.say(str(error))
                made_again.add(error.block)
                self.ledger.forget(error.block)

    def _scan(self) -> None:
        missing = set(self.ledger.missing(block.number for block in self.blocks))
        todo = [block for block in self.blocks if block.number in missing]
        if not todo:
            return
        start = time.perf_counter()
        done = len(self.blocks) - len(todo)
        if done:
            self.progress.say(f"Going on: {done} of {len(self.blocks)} blocks are done.")
        its = self.settings
        how = ScanSettings(self.network.preprocessing, its.keep, self.how, its.decoder)
        total = self.dataset.samples
        before = round((total or 0) * done / len(self.blocks))
        with self.progress.stage("Scanning", total, "images", before) as advance:
            counter = _Counter(todo, total, advance)
            found = self.engine.map(ScanWork(self.subject, how), todo, counter)
            with ThreadPoolExecutor(1, thread_name_prefix="commit") as pool:  # behind the next block
                for _ in map_in_order(lambda done: self.ledger.commit(done[1]), found, pool, 2):
                    pass
        self.seconds["scan"] = time.perf_counter() - start

    def _write_accounts(self, merged: Merged) -> None:
        write_table(self.run / "shards.parquet", SHARDS, [merged.shards])
        write_table(self.run / "skipped.parquet", SKIPPED, [merged.skipped])
        skipped = merged.samples - merged.seen
        if silent := _without_numbers(merged, self.layers):
            self.progress.say(
                f"Every value of {listed(silent)} was NaN, for all images: no image can win. Are the weights whole?"
            )
        for url, members in zip(*(merged.shards[name].to_pylist() for name in ("url", "members")), strict=True):
            if not members:
                self.progress.say(f"Shard {url} is empty.")
        if merged.turned:
            as_it_is = "turned upright" if self.network.preprocessing.upright else (
                "mined as they are stored, as torchvision and timm read them (--orientation exif turns them)"
            )  # fmt: skip
            self.progress.say(f"{merged.turned:,} images have an EXIF orientation: they are {as_it_is}.")
        if not merged.seen:
            raise UserError(f"No image of {self.dataset.name} could be read; see {self.run / 'skipped.parquet'}.")
        if skipped > self.settings.max_skipped * merged.samples:
            raise UserError(
                f"{skipped} of {merged.samples} samples were skipped, more than "
                f"--max-skipped={self.settings.max_skipped:g} allows. {self.run / 'skipped.parquet'} "
                f"names each with its reason (the first: {_first_skip(merged)}). "
                "Mend them, or say the same again with a larger --max-skipped."
            )

    def _cut(self, merged: Merged, rows: Rows) -> list[tuple[Path, Path]]:
        """One look at each winning image; returns the files of pictures and of maps of every part."""
        start = time.perf_counter()
        folder, its, how = self.run / "state", self.settings, self.network.preprocessing
        on_grid = {
            number: self.grids[layer.name]
            for number, layer in enumerate(self.layers)
            if layer.name in self.grids and its.maps
        }
        if its.pictures == NONE and not on_grid:
            return []
        asked = asked_of(rows, self.subject, its.maps, its.keep.topk, on_grid) if on_grid else {}
        work = CropWork(how, MapSettings(self.subject, self.how, on_grid) if on_grid else None)
        before, paths = whole_parts(folder.glob("pictures-*"), KEPT), dict[str, tuple[Path, Path]]()
        before |= whole_parts(folder.glob("maps-*"), KEPT_MAPS)
        images = merged.images.num_rows if its.pictures != NONE else len(asked)
        with self.progress.stage("Keeping pictures", images, "images") as advance:

            def todo() -> Iterator[CropPart]:
                for part in crop_parts(self.blocks, merged, rows, its.pictures, not how.followed, asked, how.upright):
                    names = [f"{kind}-{part.name}-{self.ledger.scanned}.arrow" for kind in ("pictures", "maps")]
                    paths[part.name] = folder / names[0], folder / names[1]
                    if before.issuperset(names):
                        advance(len(part.tasks))
                    else:
                        yield part

            for part, kept in self.engine.map(work, todo(), lambda tally: advance(tally.done)):
                for path, buffer in zip(paths[part.name], kept, strict=True):
                    write_arrow(path, buffer)
        self.seconds["pictures"] = time.perf_counter() - start
        return list(paths.values())

    def _write_tables(self, merged: Merged, rows: Rows, kept: Sequence[tuple[Path, Path]]) -> dict[str, Any]:
        """Writes all tables; returns the account of the labels."""
        start = time.perf_counter()
        of_before = ("labels", "matches", "checkpoints", *(() if self.again else ("visualizations",)))
        for made in of_before:
            remove_files((self.run / made).glob("*.parquet"))
        stage = self.progress.stage("Writing tables", len(self.layers), "layers")
        with opened(merged.maxima) as matrix, stage as advance:
            tables = MinedTables(
                self.run, self.layers, self.fields, merged, rows, self.words, matrix, self.settings.keep.min_support,
                self.settings.tree, self.grids, self.subject.traced.dictionaries, self.look,
            )  # fmt: skip
            begun = time.perf_counter()
            write_pictures(self.run, [] if self.settings.pictures == NONE else [pictures for pictures, _ in kept])
            self.seconds["picture_tables"] = time.perf_counter() - begun
            how, map_files = self.network.preprocessing, [maps for _, maps in kept]
            on_grid = self.grids if self.settings.maps else {}
            maps = MapTables(self.run, self.fields, on_grid, merged, rows, how, map_files)
            tables.norm_ratios = maps.norm_ratios
            tables.write_lists()

            def write(layer: Layer) -> None:
                tables.write_layer(layer)
                maps.write_layer(layer, tables.first_unit[layer.name])

            lanes = min(usable_cores(), _LANES)
            with ThreadPoolExecutor(lanes, "tables") as pool:
                for _ in map_in_order(write, self.layers, pool, lanes):
                    advance(1)
        self.seconds["tables"] = time.perf_counter() - start - self.seconds["picture_tables"]
        account = tables.labels_account()
        tree = self.settings.tree
        if tree and not tree.built_in and (outside := account["labels"] - account["in_tree"]):
            self.progress.say(f"--label-tree: {outside:,} of {account['labels']:,} labels are not in the tree.")
        return account


class _Counter:
    """Turns tallies into progress; guesses the total from the shards done while nothing else tells it."""

    def __init__(self, todo: Sequence[Block], total: int | None, advance: Any) -> None:
        self.shards = sum(len(block.shards) for block in todo)
        self.total, self.advance = total, advance
        self.seen = self.skipped = self.finished = 0

    def __call__(self, tally: Tally) -> None:
        """So much more is done."""
        self.seen += tally.done
        self.skipped += tally.lost
        self.finished += tally.shards
        note = f"{self.skipped} skipped" if self.skipped else ""
        if self.total is None and self.finished:
            self.advance(tally.done, note=note, total=round(self.seen / self.finished * self.shards))
        else:
            self.advance(tally.done, note=note)


def _without_numbers(merged: Merged, layers: Sequence[Layer]) -> list[str]:
    """Names of layers all of whose units had NaN for every image."""
    seen, offsets = merged.accumulators["statistics"].state()["images"], unit_offsets(layers)
    return [
        layer.name for layer, first in zip(layers, offsets, strict=False)
        if not bool(seen[first : first + layer.units].any())
    ]  # fmt: skip


def _first_skip(merged: Merged) -> str:
    row = merged.skipped.slice(0, 1).to_pylist()[0]
    return f"shard {row['shard']}, {row['key']}: {row['error']}"
