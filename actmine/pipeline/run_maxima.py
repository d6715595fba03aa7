"""All image activations of a run, where it keeps them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from actmine.pipeline.errors import UserError, near_matches
from actmine.pipeline.spoken import LEFT_OPEN, command
from actmine.pipeline.storage.files import local_copy
from actmine.pipeline.storage.parquet import read_rows


class RunMaxima:
    """The matrix of all image activations of a run: a row per image that went through the network."""

    def __init__(self, run: Path, layers: pd.DataFrame) -> None:
        self.folder, self._run, self._layers = run / "maxima", run, layers
        if not (self.folder / "images.parquet").is_file():
            raise UserError(
                f"{run} does not keep all image activations. Mine it again in a new RUN: "
                f"{command('mine', run=LEFT_OPEN, keep_maxima=1)} (4 bytes an image and unit; float16 takes half)."
            )

    @cached_property
    def images(self) -> pd.DataFrame:
        """Which image each row is: `maxima/images.parquet`."""
        return read_rows(self.folder / "images.parquet").to_pandas()

    def layer(self, name: str) -> np.ndarray:
        """The image activations of all units of a layer, float32 `[N, U]`. Raises `UserError` without such a layer."""
        names, units = self._layers["layer"].tolist(), self._layers["units"].to_numpy()
        if name not in names:
            raise UserError(f"{self._run} has no layer {name!r}.{near_matches(name, names)}")
        place = names.index(name)
        begin = int(units[:place].sum())
        end = begin + int(units[place])
        parts = []
        for file in self.images["file"].unique():
            with local_copy(self.folder / file) as path:
                parts.append(np.asarray(np.load(path, mmap_mode="r")[:, begin:end], np.float32))
        return np.concatenate(parts)
