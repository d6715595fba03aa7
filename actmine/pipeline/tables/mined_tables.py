"""The tables of a mined run: what was merged and which rows won, laid out by schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa

from actmine.pipeline import naming
from actmine.pipeline.dictionaries.dictionary import Dictionary
from actmine.pipeline.exemplars.exemplars import Rows
from actmine.pipeline.network.grids import Grid
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.readings.batch_index import NO_LABEL
from actmine.pipeline.readings.density import Density
from actmine.pipeline.readings.histograms import Histograms
from actmine.pipeline.readings.labels import Labels
from actmine.pipeline.readings.maxima import Matrix
from actmine.pipeline.readings.positions import Positions
from actmine.pipeline.readings.sketches import Sketches
from actmine.pipeline.readings.statistics import Statistics
from actmine.pipeline.readings.taps import unit_offsets
from actmine.pipeline.receptive_fields.receptive_field import Field
from actmine.pipeline.scanning.merge import Merged
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import units_a_part, write_rows, write_table
from actmine.pipeline.tables.direction_tables import write_directions
from actmine.pipeline.tables.label_table import LabelTable
from actmine.pipeline.tables.label_tree import Tree
from actmine.pipeline.tables.latent_columns import about_latents, latent_columns
from actmine.pipeline.tables.layer_table import layer_rows
from actmine.pipeline.tables.shared_labels import SharedLabels
from actmine.pipeline.tables.sketch_tables import write_sketches
from actmine.pipeline.tables.units import unit_table
from actmine.schemas.exemplars import EXEMPLARS, FOCUS
from actmine.schemas.fields import IMAGE
from actmine.schemas.images import IMAGES
from actmine.schemas.labels import LABELS, MAXIMA_IMAGES
from actmine.schemas.layers import LAYERS
from actmine.schemas.units import UNITS

_LABELS_A_GROUP = 1 << 16


class MinedTables:
    """Writes the tables of one run; `words` names the labels where the shards themselves do not.

    `matrix` has the image activations of all images, where they are at hand; `least` is `min_support`,
    `tree` that of the labels, if they form one, `grids` those of layers by name, `dictionaries` those of layers
    of latents, `look` what some images showed before the scan (`stages.first_look`).
    """

    def __init__(
        self,
        run: Path,
        layers: Sequence[Layer],
        fields: dict[str, Field],
        merged: Merged,
        rows: Rows,
        words: Sequence[str] | None,
        matrix: Matrix | None = None,
        least: int = 5,
        tree: Tree | None = None,
        grids: Mapping[str, Grid] | None = None,
        dictionaries: Mapping[str, Dictionary] = MappingProxyType({}),
        look: Any = None,
    ) -> None:
        self.run, self.layers, self.fields, self.grids = run, layers, fields, grids or {}
        self.merged, self.rows = merged, rows
        self.dictionaries, self.look = dictionaries, look
        self.norm_ratios: np.ndarray | None = None
        """Of each exemplar, see `MapTables`."""
        density = merged.accumulators.get("density")
        self.fired_at = density.positions.cpu().numpy() if isinstance(density, Density) else None
        labels = merged.images["label"].to_pylist()
        self.names = _label_names(labels, merged.images["label_name"].to_pylist(), words or ())
        statistics = merged.accumulators["statistics"]
        assert isinstance(statistics, Statistics)
        self.summary = {name: values.cpu().numpy() for name, values in statistics.summary().items()}
        histograms = merged.accumulators.get("histograms")
        self.counts = histograms.counts.cpu().numpy() if isinstance(histograms, Histograms) else None
        positions = merged.accumulators.get("positions")
        self.positions = positions.counts.cpu().numpy() if isinstance(positions, Positions) else None
        by_label = merged.accumulators.get("labels")
        seen = by_label.seen.sum(1).cpu().numpy() if isinstance(by_label, Labels) else None
        own = np.array([NO_LABEL if label is None else label for label in labels], np.int64)
        self.shared = SharedLabels(rows, sum(layer.units for layer in layers), own, self.names, seen)
        self._named = dict.fromkeys(naming.STATEMENTS, 0)
        self._least = least
        self.by_label = None
        if isinstance(by_label, Labels) and len(by_label.labels) and not by_label.too_many:
            self.by_label = LabelTable(by_label, self._words(words or ()), merged, rows, matrix, least, tree)
        sketches = merged.accumulators.get("sketches")
        self.sketches = sketches if isinstance(sketches, Sketches) else None
        self.first_unit = dict(zip((layer.name for layer in layers), unit_offsets(layers), strict=False))

    def write_lists(self) -> None:
        """`images.parquet` and `layers.parquet`."""
        images = self.merged.images
        columns = {name: images[name] for name in images.column_names}
        columns |= {"image_id": images["image"], "label_name": pa.array(self.names, pa.string())}
        table = pa.table([columns[name] for name in IMAGES.names], schema=IMAGES)
        write_table(self.run / "images.parquet", IMAGES, [table])
        further = {layer.name: self._about(layer) for layer in self.layers}
        write_rows(self.run / "layers.parquet", LAYERS, layer_rows(self.layers, self.fields, self.grids, further))

    def write_layer(self, layer: Layer) -> None:
        """One layer's files of `exemplars/`, `units/`, `labels/`, `sketches/` and `directions/`."""
        most = int(self.rows.rank.max(initial=0)) + 1
        write_table(
            table_file(self.run, "exemplars", layer.name, new=True),
            EXEMPLARS,
            self._exemplar_parts(layer, units_a_part(most)),
        )
        first = self.first_unit[layer.name]
        summary = {name: values[first : first + layer.units] for name, values in self.summary.items()}
        counts = None if self.counts is None else self.counts[first : first + layer.units]
        further = self.shared.columns(slice(first, first + layer.units))
        if self.by_label is not None:
            further |= self.by_label.columns(layer, first)
            rows = self.by_label.rows(layer, first)
            parts = (rows.slice(at, _LABELS_A_GROUP) for at in range(0, max(len(rows), 1), _LABELS_A_GROUP))
            write_table(table_file(self.run, "labels", layer.name, new=True), LABELS, parts)
        fired_at = None if self.fired_at is None else self.fired_at[first : first + layer.units]
        further |= latent_columns(layer, self.dictionaries.get(layer.name), fired_at, summary["images_seen"])
        positions = None if self.positions is None else self.positions[first : first + layer.units]
        table = unit_table(layer, summary, counts, further, positions)
        write_table(table_file(self.run, "units", layer.name, new=True), UNITS, [table])
        if layer.name in self.dictionaries:
            write_directions(self.run, layer.name, self.dictionaries[layer.name])
        self._named = {kind: count + int(naming.held(table, kind).sum()) for kind, count in self._named.items()}
        if self.sketches is not None:
            write_sketches(self.run, layer.name, self.sketches, slice(first, first + layer.units), summary)

    def labels_account(self) -> dict[str, Any]:
        """For run.json: images with a label, labels, those that may be told apart, and of how many units one is named.

        Of the layers written so far.
        """
        seen = self.merged.accumulators.get("labels")
        counts = seen.seen.cpu().numpy() if isinstance(seen, Labels) else np.zeros((0, 2), np.int64)
        nodes = self.by_label.nodes if self.by_label is not None else None
        return {
            "images": int(counts.sum()), "labels": len(counts), "min_support": self._least,
            "supported": int((counts >= self._least).all(1).sum()), "named": self._named,
            "in_tree": nodes.inside if nodes else 0,
        }  # fmt: skip

    def _norm_ratios(self, part: slice, count: int) -> pa.Array:
        """That of exemplars at tokens, where images were looked at again."""
        if self.norm_ratios is None:
            return pa.nulls(count, pa.float32())
        return pa.array(self.norm_ratios[part], from_pandas=True)

    def _about(self, layer: Layer) -> Mapping[str, Any]:
        """Columns of a layer of latents."""
        its = slice(self.first_unit[layer.name], self.first_unit[layer.name] + layer.units)
        fired_at = None if self.fired_at is None else self.fired_at[its]
        fired, images = (self.summary[name][its] for name in ("images_fired", "images_seen"))
        return about_latents(layer, fired_at, fired, images, self.look)

    def _words(self, words: Sequence[str]) -> dict[int, str | None]:
        known: dict[int, str | None] = {**dict(enumerate(words)), **self.merged.names}
        given = zip(self.merged.images["label"].to_pylist(), self.names, strict=True)
        return known | {label: name for label, name in given if label is not None and name is not None}

    def _exemplar_parts(self, layer: Layer, step: int) -> Iterator[pa.Table]:
        """One table for every `step` units, so that row groups hold whole units."""
        rows, first = self.rows, self.first_unit[layer.name]
        names = pa.array(self.names, pa.string())
        for begin in range(first, first + layer.units, step):
            part = rows.of_units(begin, min(begin + step, first + layer.units))
            count = part.stop - part.start
            if not count:
                continue
            images = self.merged.images.take(pa.array(rows.image[part]))
            nowhere = np.full(count, layer.height is None)
            columns = {
                "layer": pa.array([layer.name] * count, pa.string()),
                "unit": pa.array(rows.unit[part] - first),
                "band": pa.DictionaryArray.from_arrays(rows.band[part], list(rows.bands)).dictionary_decode(),
                "rank": pa.array(rows.rank[part]),
                "activation": pa.array(rows.activation[part]),
                "image_id": images["image"],
                "key": images["key"],
                "label": images["label"],
                "label_name": names.take(pa.array(rows.image[part])),
                "y": pa.array(rows.y[part], mask=nowhere),
                "x": pa.array(rows.x[part], mask=nowhere),
                "token": pa.array(rows.token[part].tolist(), pa.string()),
                **{side: pa.array(rows.box[part, i]) for i, side in enumerate(("left", "top", "right", "bottom"))},
                "clipped": pa.array(rows.clipped[part]),
                "token_norm_ratio": self._norm_ratios(part, count),
                **dict.fromkeys(FOCUS, pa.nulls(count, pa.int32())),  # measured later, see focus.py
                "crop_activation": pa.nulls(count, pa.float32()),  # and this, see crop_check.py
                "facet": pa.nulls(count, pa.int32()),  # and this, see exemplar_facets.py
                "crop": pa.nulls(count, IMAGE),  # see picture_tables.py
            }
            yield pa.table([columns[name] for name in EXEMPLARS.names], schema=EXEMPLARS)


def _label_names(labels: Sequence[int | None], given: Sequence[str | None], words: Sequence[str]) -> list[str | None]:
    """In words: what the shard says of the image, else what is known of the dataset's classes."""
    return [
        name if name is not None else words[label] if label is not None and 0 <= label < len(words) else None
        for label, name in zip(labels, given, strict=True)
    ]


def matrix_images(merged: Merged) -> pa.Table:
    """Which image each row of the matrix of all image activations belongs to, with the columns of `MAXIMA_IMAGES`."""
    parts = merged.maxima
    image = np.concatenate([part.numbers for part in parts])
    members = merged.images.take(pa.array(np.searchsorted(merged.images["image"].to_numpy(), image)))
    sizes = [len(part.numbers) for part in parts]
    columns = {
        "image_id": pa.array(image),
        "key": members["key"],
        "label": members["label"],
        "file": pa.array(np.repeat([part.path.name for part in parts], sizes).tolist(), pa.string()),
        "row": pa.array(np.concatenate([np.arange(size) for size in sizes]), pa.int32()),
    }
    return pa.table([columns[name] for name in MAXIMA_IMAGES.names], schema=MAXIMA_IMAGES)
