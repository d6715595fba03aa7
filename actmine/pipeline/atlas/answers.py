"""What the atlas answers programs: every address below /api, the table that its rows are of, and what reads them.

A further table is a line in `ANSWERS`, and what reads its rows where `rows_of_run` or `rows_of_unit` do not.
"""

from __future__ import annotations

import pyarrow as pa

from actmine.pipeline.atlas import answer_rows as rows
from actmine.pipeline.atlas.interface import Answer, Asked
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.words import MapOf
from actmine.schemas.atlas_cells import CELLS
from actmine.schemas.atlas_points import POINTS
from actmine.schemas.checkpoints import CHECKPOINTS
from actmine.schemas.directions import DIRECTIONS
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.facets import FACETS
from actmine.schemas.fields import field, table
from actmine.schemas.image_map import IMAGE_MAP
from actmine.schemas.images import IMAGES
from actmine.schemas.labels import LABELS
from actmine.schemas.layers import LAYERS
from actmine.schemas.maps import MAPS
from actmine.schemas.matches import MATCHES
from actmine.schemas.neighbors import NEIGHBORS
from actmine.schemas.skipped import SKIPPED
from actmine.schemas.unit_map import UNIT_MAP
from actmine.schemas.units import UNITS
from actmine.schemas.views import VIEWS
from actmine.schemas.visualizations import VISUALIZATIONS


def _address(name: str, says: str) -> pa.Field:
    return field(name, pa.string(), f"address of {says}; null where there is none", nullable=True)


_PAGE, _API = _address("page", "its page"), _address("api", "it for programs")
_WHOLE, _HEAT = _address("image", "the whole image, reduced"), _address("heat", "the map as a picture with colours")

FOUND = table(
    field("kind", pa.string(), "layer, unit (found by its number), label (a unit with that label), or image"),
    field("layer", pa.string(), "name of the layer; null for an image", nullable=True),
    field("unit", pa.int32(), "number of the unit within its layer; null for layers and images", nullable=True),
    field("image_id", pa.int64(), "number of the image; null for layers and units", nullable=True),
    field("key", pa.string(), "the image's name; null for layers and units", nullable=True),
    field("label", pa.string(), "the label by which a unit was found, or the image's own", nullable=True),
)  # fmt: skip
"""A row per thing that a search found."""
_NOTE = pa.struct([(name, pa.string()) for name in ("id", "at", "by", "text")])
NOTED = table(
    field("layer", pa.string(), "name of the layer; null for an image", nullable=True),
    field("unit", pa.int32(), "number of the unit within its layer; null for layers and images", nullable=True),
    field("image_id", pa.int64(), "number of the image; null for layers and units", nullable=True),
    field("star", pa.bool_(), "whether it has a star"),
    field("name", pa.string(), "what somebody calls it; empty if nothing"),
    field("tags", pa.list_(pa.string()), "its tags, in alphabetical order"),
    field("notes", pa.list_(_NOTE), "its notes in the order of their times: what each says, by whom, when (UTC)"),
)  # fmt: skip
"""A row per unit, layer or image of which something is noted."""


def _index(atlas: Atlas, asked: Asked) -> rows.Row:
    here = atlas.links.rows()
    return {
        "description": f"{here}/openapi.json",
        "addresses": {here + each.path.removeprefix("/api"): each.says for each in ANSWERS},
    }


_OTHER = field("run", pa.string(), "name of the other run")
_UNIT = "/api/layer/{layer}/{unit}"
_CUT = {
    "cut": {"type": "boolean", "description": "whether there is more than is listed: write more of the name"},
    "near": {"type": "array", "items": {"type": "string"}, "description": "names like it, where nothing is called so"},
}
_ERROR = field("error", pa.string(), "why it was skipped, and no unit saw it", nullable=True)
ANSWERS = (
    Answer("/api", "All addresses, and what each gives.", _index),
    Answer("/api/run", "What the run was made from: run.json, without what tells of the machine.", rows.run),
    Answer("/api/skipped", "What did not go through the network.", rows.rows_of_run("skipped", SKIPPED), SKIPPED),
    Answer("/api/layers", "The layers, in the network's own order.", rows.layers, LAYERS, (_PAGE, _API)),
    Answer(
        "/api/layer/{layer}", "Units of a layer, sorted and chosen.", rows.units, UNITS, (_PAGE, _API),
        words=("sort", "reverse", "label"),
    ),
    Answer(_UNIT, "A unit with all its numbers.", rows.unit, UNITS, (_PAGE, _API), one=True),
    Answer(
        f"{_UNIT}/exemplars", "Its exemplars, of all bands.", rows.rows_of_unit("exemplars", EXEMPLARS), EXEMPLARS,
        (_WHOLE,),
    ),
    Answer(
        f"{_UNIT}/maps", "Where it is active in its first exemplars.", rows.rows_of_unit("maps", MAPS), MAPS, (_HEAT,)
    ),
    Answer(f"{_UNIT}/labels", "Its label statistics.", rows.rows_of_unit("labels", LABELS), LABELS),
    Answer(f"{_UNIT}/neighbors", "The units of the run most alike.", rows.neighbors, NEIGHBORS),
    Answer(
        f"{_UNIT}/directions", "The latents whose directions lie nearest.", rows.rows_of_unit("directions", DIRECTIONS),
        DIRECTIONS,
    ),
    Answer(
        f"{_UNIT}/matches", "The units most alike in runs that it was compared with.", rows.matches, MATCHES,
        (_OTHER, _address("picture", "the other unit's picture")),
    ),
    Answer(
        f"{_UNIT}/visualizations", "What was drawn of it, by every preset.",
        rows.rows_of_unit("visualizations", VISUALIZATIONS, rows.presets), VISUALIZATIONS,
    ),
    Answer(f"{_UNIT}/facets", "Groups of its exemplars that look alike.", rows.rows_of_unit("facets", FACETS), FACETS),
    Answer(f"{_UNIT}/views", "Its exemplars projected back.", rows.rows_of_unit("views", VIEWS, rows.methods), VIEWS),
    Answer(
        f"{_UNIT}/checkpoints", "What it was at checkpoints of training, the oldest first.",
        rows.rows_of_unit("checkpoints", CHECKPOINTS), CHECKPOINTS,
    ),
    Answer(
        "/api/layer/{layer}/cells", "The cells of its activation atlas, without pictures.",
        rows.rows_of_files(CELLS, rows.of_its_layer("atlas_cells")), CELLS,
    ),
    Answer(
        "/api/layer/{layer}/points", "The positions that its activation atlas is made of.",
        rows.rows_of_files(POINTS, rows.of_its_layer("atlas_points")), POINTS,
    ),
    Answer(
        "/api/map/units", "Units on the map of all units.", rows.rows_of_map(MapOf.units, UNIT_MAP), UNIT_MAP,
    ),
    Answer(
        "/api/map/images", "Images on the map of images.", rows.rows_of_map(MapOf.images, IMAGE_MAP), IMAGE_MAP,
    ),
    Answer(
        "/api/matches", "Units most alike in all runs that this one was compared with.",
        rows.rows_of_files(MATCHES, rows.of_comparisons), MATCHES, (_OTHER,),
    ),
    Answer(
        "/api/checkpoints", "All units at checkpoints of training.",
        rows.rows_of_files(CHECKPOINTS, rows.of_all_layers("checkpoints")), CHECKPOINTS,
    ),
    Answer("/api/image/{image}", "An image.", rows.image, IMAGES, (_ERROR, _WHOLE, _PAGE, _API), one=True),
    Answer(
        "/api/image/{image}/units", "The exemplars that are this image: the units that it tops, the best ranks first.",
        rows.topped, EXEMPLARS, (_WHOLE, _PAGE, _API),
    ),
    Answer(
        "/api/search", "Layers, units, labels and images by a part of their name, as on the search page.", rows.found,
        FOUND, (_PAGE, _API), words=("q",), more=_CUT, heavy=True,
    ),
    Answer(
        "/api/notes", "What people have noted. No page of another origin may read it.", rows.noted, NOTED, (_PAGE,),
        words=("q", "layer", "unit", "image"), shared=False,
    ),
)  # fmt: skip
"""Every address but that of the description."""
