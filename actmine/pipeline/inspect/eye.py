"""The network of a run as an eye: what every unit makes of one picture, where it lies, for the atlas to show."""

from __future__ import annotations

import io

import torch
from PIL import Image
from torch import Tensor

from actmine.pipeline.atlas.looked import Looked, Response
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.inspect.maps import seen_by, whole_map
from actmine.pipeline.mined_network import mined_network, mined_trace
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.grids import Grid, grids
from actmine.pipeline.network.layers import Layer
from actmine.pipeline.network.points import Read
from actmine.pipeline.preprocessing.geometry import WayBack
from actmine.pipeline.preprocessing.images import ImageError, decode, network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.sight import padding_warning, sight
from actmine.pipeline.receptive_fields.receptive_field import Field, receptive_fields
from actmine.pipeline.run import Run
from actmine.pipeline.tables.map_tables import extent

_SIDE = 960


class Eye:
    """The network of a run, loaded again; raises `UserError` as `mined_network` does. For one thread at a time."""

    def __init__(self, run: Run) -> None:
        compute_exactly()
        self.network = mined_network(run)
        self.traced = mined_trace(run, self.network)
        names = ",".join(choose_layers(run, []))
        self.layers = self.traced.choose(names, bool(run.record.get("dependent")))
        self.grids = grids(self.traced, self.layers)
        self.fields = receptive_fields(self.traced, self.layers)
        read = [Read(whole_map, (layer.layout, layer.height, layer.width)) for layer in self.layers]
        self._reading = self.traced.reading(self.layers, read, tuple)
        self._normalize = Normalize(self.network.preprocessing, torch.device("cpu"))
        self._about = f"Seen by {self.network.name} ({self.network.weights}). {sight(self.network.preprocessing)}"

    def __call__(self, data: bytes, name: str) -> Looked:
        """What it makes of an encoded picture, decoded and preprocessed as the images that were mined, in float32.

        Raises `UserError` for what is none.
        """
        how = self.network.preprocessing
        try:
            image = decode(data, how.upright)
            pixels = network_pixels(image, how)
        except (ImageError, MemoryError) as error:
            raise UserError(f"{name} cannot be shown to the network: {first_line(error)}.") from error
        with torch.inference_mode():
            found = self._reading(self._normalize(torch.from_numpy(pixels)[None]))
        size = image.size if how.followed else (how.size[1], how.size[0])
        shown = image if how.followed else seen_by(pixels, how)
        shown.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        warning = padding_warning(how, [image.size])
        return Looked(
            name, size, _encoded(shown),
            {
                layer.name: self._response(layer, values, size)
                for layer, values in zip(self.layers, found, strict=True)
            },
            (self._about, *([warning] if warning else [])),
        )  # fmt: skip

    def _response(self, layer: Layer, values: Tensor, size: tuple[int, int]) -> Response:
        flat = values.flatten(1)
        maxima = flat.amax(1).numpy()
        grid = self.grids.get(layer.name)
        if grid is None or flat.shape[1] == 1:
            return Response(maxima)
        laid, _ = grid.laid_out(values)
        return Response(maxima, laid.contiguous().numpy(), self._place(self.fields[layer.name], grid, size))

    def _place(self, field: Field, grid: Grid, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """Where a map lies in the picture, as `map_tables` places those of exemplars, all its rows and columns kept."""
        back = WayBack(*size, self.network.preprocessing)
        ends = extent(field, grid, pooled=False)
        left, top, right, bottom = (back.point(axis, ends[axis][end]) for end in (0, 1) for axis in (0, 1))
        return left, top, right, bottom


def _encoded(image: Image.Image) -> bytes:
    data = io.BytesIO()
    if max(image.size) <= 64:
        image.save(data, "PNG")
    else:
        image.save(data, "JPEG", quality=88)
    return data.getvalue()
