"""The tables of a mined run: what was merged, which rows won and their crops, laid out by schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.crops import CropStore
from pipeline.exemplars import Rows
from pipeline.files import table_file
from pipeline.layer_table import layer_rows
from pipeline.layers import Layer
from pipeline.merge import Merged
from pipeline.receptive_field import Field
from pipeline.statistics import Statistics
from pipeline.tables import image_column, units_a_group, write_rows, write_table
from pipeline.taps import unit_offsets
from pipeline.units import unit_table
from schemas.exemplars import EXEMPLARS, FOCUS
from schemas.images import IMAGES
from schemas.layers import LAYERS
from schemas.units import UNITS


class MinedTables:
    """Writes the tables of one run; `words` names the labels where the shards themselves do not."""

    def __init__(
        self,
        run: Path,
        layers: Sequence[Layer],
        fields: dict[str, Field],
        merged: Merged,
        rows: Rows,
        crops: CropStore,
        words: Sequence[str] | None,
    ) -> None:
        self.run, self.layers, self.fields = run, layers, fields
        self.merged, self.rows, self.crops = merged, rows, crops
        labels = merged.images["label"].to_pylist()
        self.names = _label_names(labels, merged.images["label_name"].to_pylist(), words or ())
        self.labels = np.array([-1 if label is None else label for label in labels], np.int64)
        statistics = merged.accumulators["statistics"]
        assert isinstance(statistics, Statistics)
        self.summary = {name: values.cpu().numpy() for name, values in statistics.summary().items()}
        self.first_unit = dict(zip((layer.name for layer in layers), unit_offsets(layers), strict=False))

    def write_lists(self) -> None:
        """`images.parquet` and `layers.parquet`."""
        images = self.merged.images
        columns = {name: images[name] for name in images.column_names}
        columns |= {"image_id": images["image"], "label_name": pa.array(self.names, pa.string())}
        table = pa.table([columns[name] for name in IMAGES.names], schema=IMAGES)
        write_table(self.run / "images.parquet", IMAGES, [table])
        write_rows(self.run / "layers.parquet", LAYERS, layer_rows(self.layers, self.fields))

    def write_layer(self, layer: Layer, k: int) -> None:
        """One layer's files of `exemplars/` and `units/`, of a run that keeps `k` exemplars of a unit."""
        write_table(
            table_file(self.run, "exemplars", layer.name), EXEMPLARS, self._exemplar_parts(layer, units_a_group(k))
        )
        first = self.first_unit[layer.name]
        part = self.rows.of_units(first, first + layer.units)
        summary = {name: values[first : first + layer.units] for name, values in self.summary.items()}
        table = unit_table(layer, summary, self.rows, part, first, self.labels, self.names)
        write_table(table_file(self.run, "units", layer.name), UNITS, [table])

    def _exemplar_parts(self, layer: Layer, step: int) -> Iterator[pa.Table]:
        """One table for every `step` units, so that a row group holds whole units."""
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
                "rank": pa.array(rows.rank[part]),
                "activation": pa.array(rows.activation[part]),
                "image_id": images["image"],
                "key": images["key"],
                "label": images["label"],
                "label_name": names.take(pa.array(rows.image[part])),
                "y": pa.array(rows.y[part], mask=nowhere),
                "x": pa.array(rows.x[part], mask=nowhere),
                **{side: pa.array(rows.box[part, i]) for i, side in enumerate(("left", "top", "right", "bottom"))},
                "clipped": pa.array(rows.clipped[part]),
                **dict.fromkeys(FOCUS, pa.nulls(count, pa.int32())),  # measured later, see focus.py
                "crop_activation": pa.nulls(count, pa.float32()),  # and this, see crop_check.py
                "crop": image_column(self.crops.take(part)),
            }
            yield pa.table([columns[name] for name in EXEMPLARS.names], schema=EXEMPLARS)


def _label_names(labels: Sequence[int | None], given: Sequence[str | None], words: Sequence[str]) -> list[str | None]:
    """In words: what the shard says of the image, else what is known of the dataset's classes."""
    return [
        name if name is not None else words[label] if label is not None and 0 <= label < len(words) else None
        for label, name in zip(labels, given, strict=True)
    ]
