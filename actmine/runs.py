"""A run as people hold it in a notebook: it shows itself, its layers, its units, and its atlas."""

from __future__ import annotations

import html
import io
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
from PIL import Image

from actmine.commands.live import NOTHING_LIVE, Live
from actmine.pipeline import run as tables
from actmine.pipeline.naming import label_of
from actmine.pipeline.spoken import from_python
from actmine.pipeline.words import Shown

if TYPE_CHECKING:
    from actmine.pipeline.atlas.server import Serving

_TILE = 96
_SHOWN = ("unit", "activation_max", "activation_mean", "activation_std", "firing_rate", "visualization_ratio")


class Run(tables.Run):
    """A finished run: its tables as DataFrames, its pictures as Pillow images, its sheets and its atlas.

    What `actmine.mine` gives also remembers the network and the dataset it was made of, so that further functions take
    it as it is; one that was opened from its folder loads its network again, if that has a name.
    """

    live: Live = NOTHING_LIVE

    def layer(self, name: str) -> Layer:
        """One layer. Raises `UserError` for one that the run does not have."""
        self.at(name)
        return Layer(self, name)

    __getitem__ = layer

    def __iter__(self) -> Any:
        return (Layer(self, name) for name in self.layers["layer"])

    def __len__(self) -> int:
        return len(self.layers)

    def sheet(
        self, layer: str, unit: int, *, field: str = "box", preset: str = "", method: str = "", maps: bool = True
    ) -> Image.Image:
        """The contact sheet of a unit: its visualization, its numbers, its strongest images. A notebook shows it.

        `field` is box or focus, `preset` whose visualization, `method` which views, `maps` whether heat maps lie over
        large crops. Raises `UserError` for a unit that the run does not have.
        """
        from actmine.pipeline.sheets.write import sheet

        with from_python():
            return sheet(self, layer, unit, shown=Shown(field), preset=preset, method=method, maps=maps)

    def atlas(self, port: int | None = None) -> Atlas:
        """Serves the atlas of the run on this machine, prints its address and gives it; `stop` ends it.

        It ends by itself when nothing refers to what was given any more. `port` None is 8420 or the next that is free.
        Raises `UserError` for a port that is taken, and without the extra atlas.
        """
        with from_python():
            return Atlas.serving(self, port)

    def _repr_html_(self) -> str:
        counts = self.record.get("counts", {})
        about = (
            f"{self.record['units']:,} units of {len(self.layers)} layers of {self.record['model']} "
            f"({self.record['weights']}) over {counts.get('seen', 0):,} images of {self.record['dataset']}"
        )
        shown = self.layers[["layer", "kind", "units", "height", "width", "rf_height", "rf_width"]]
        table = shown.to_html(index=False, max_rows=24, border=0, na_rep="")
        return f"<p><b>{html.escape(str(self.path))}</b><br>{html.escape(about)}</p>{table}"

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


class Layer:
    """One layer of a run; `layer[7]` is a unit of it."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name

    @property
    def about(self) -> Mapping[str, Any]:
        """Its row of `layers.parquet`."""
        row: Mapping[str, Any] = self.run.layers.iloc[self.run.at(self.name)].to_dict()
        return row

    def units(self) -> pd.DataFrame:
        """The rows of its units."""
        return self.run.units(self.name)

    def __len__(self) -> int:
        return int(self.about["units"])

    def __getitem__(self, unit: int) -> Unit:
        if not 0 <= unit < len(self):
            raise IndexError(f"{self.name} has {len(self)} units, from 0 on")
        return Unit(self.run, self.name, unit)

    def _repr_html_(self) -> str:
        each = self.about
        size = "" if each["height"] != each["height"] else f", maps of {each['height']:.0f} × {each['width']:.0f}"
        rows = self.units()
        shown = rows[[name for name in _SHOWN if name in rows]].assign(
            label=[label_of(row) for row in rows.to_dict("records")]  # of the labels, those that something speaks for
        )
        table = shown.to_html(index=False, max_rows=12, border=0)
        return f"<p><b>{html.escape(self.name)}</b>: {len(self):,} units{size}</p>{table}"

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {len(self)} units)"


class Unit:
    """One unit of a layer of a run; a notebook shows its visualization and its strongest exemplars."""

    def __init__(self, run: Run, layer: str, number: int) -> None:
        self.run, self.layer, self.number = run, layer, number

    @property
    def about(self) -> Mapping[str, Any]:
        """Its row of `units/`."""
        row: Mapping[str, Any] = self.run.units(self.layer, self.number).iloc[0].to_dict()
        return row

    @property
    def visualization(self) -> Image.Image | None:
        """What it prefers by gradient ascent, if that was drawn."""
        return tables.picture(self.about.get("visualization"))

    def exemplars(self, band: str = "") -> pd.DataFrame:
        """Its exemplars, best first."""
        return self.run.exemplars(self.layer, self.number, band)

    def crops(self, most: int = 9) -> list[Image.Image]:
        """What its first exemplars show."""
        rows = [row.to_dict() for _, row in self.exemplars().head(most).iterrows()]
        return [crop for crop in self.run.crops(rows) if crop is not None]

    def sheet(self, **look: Any) -> Image.Image:
        """Its contact sheet, as `Run.sheet`."""
        return self.run.sheet(self.layer, self.number, **look)

    def _repr_html_(self) -> str:
        row, drawn = self.about, self.visualization
        said = [f"maximum {row['activation_max']:.3g}", f"fires for {row['firing_rate']:.1%} of the images"]
        label = label_of(row)
        said += [html.escape(label)] if label else []
        shown = [] if drawn is None else [(drawn, "what gradient ascent drew")]
        shown += [(crop, "an exemplar") for crop in self.crops()]
        tiles = "".join(_tile(image, about) for image, about in shown)
        return f"<p><b>{html.escape(self.layer)} {self.number}</b>: {'; '.join(said)}</p><p>{tiles}</p>"

    def __repr__(self) -> str:
        return f"Unit({self.layer!r}, {self.number})"


class Atlas(str):
    """The address of an atlas that is being served; it stops with this object."""

    _serving: Serving

    @classmethod
    def serving(cls, run: Run, port: int | None) -> Self:
        """Serves the atlas of a run and prints where."""
        from actmine.pipeline.atlas.extra import atlas_extra

        with atlas_extra():
            from actmine.pipeline.atlas.server import Serving
        begun = Serving(run.path, port, run.trusted)
        here = cls(begun.address)
        here._serving = begun
        print(begun.address)
        return here

    def stop(self) -> None:
        """Ends it; the address answers no more."""
        self._serving.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.stop()

    def _repr_html_(self) -> str:
        return f'<a href="{html.escape(self)}" target="_blank">{html.escape(self)}</a>'


def _tile(image: Image.Image, about: str) -> str:
    small = image.convert("RGB")
    small.thumbnail((2 * _TILE, 2 * _TILE))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    source = b64encode(data.getvalue()).decode()
    return (
        f'<img src="data:image/jpeg;base64,{source}" alt="{about}" title="{about}" '
        f'style="height:{_TILE}px;width:{_TILE}px;object-fit:contain;margin:2px">'
    )


def open_run(path: str | Path, trust: bool = False) -> Run:
    """The finished run in a folder, which may be `s3://bucket/prefix`.

    With `trust`, addresses in the tables of someone else's run may be asked, and the code that it names imported.
    Raises `UserError` if there is none, or if its run.json is damaged.

    >>> run = actmine.open_run("runs/demo-demo")                                      # doctest: +SKIP
    >>> run.sheet("block5.relu", 7)                                                   # doctest: +SKIP
    """
    with from_python():
        return Run(tables.open_run(path).path, trust=trust)


def atlas(run: str | Path | Run, port: int | None = None) -> Atlas:
    """Serves the atlas of a run, as `Run.atlas` does."""
    return (run if isinstance(run, Run) else open_run(run)).atlas(port)


def held(run: Run, live: Live) -> Run:
    """The same run, which remembers what it was made of."""
    run.live = live
    if live.dataset is not None:
        run._shards = live.dataset.by_number
    return run
