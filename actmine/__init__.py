"""What does each unit of a vision network respond to? Maximal-activation mining at dataset scale.

>>> import actmine
>>> run = actmine.mine("demo", "demo", layers="block5.*")                             # doctest: +SKIP
>>> run["block5.relu"][7]                                                             # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actmine.inspection import Inspection
    from actmine.library import (
        activation_atlas,
        atlas_export,
        check,
        compare,
        dictionary,
        facets,
        focus,
        inspect,
        layers,
        map,
        mine,
        notes,
        publish,
        score,
        shards,
        sheets,
        views,
        visualize,
    )
    from actmine.pipeline.datasets.tars import ShardError
    from actmine.pipeline.errors import UserError
    from actmine.pipeline.preprocessing.images import ImageError
    from actmine.pipeline.readings.bucket_edges import edges as histogram_edges
    from actmine.pipeline.readings.bucket_edges import middles as histogram_middles
    from actmine.pipeline.run import picture
    from actmine.pipeline.sheets.figures import figure_style
    from actmine.runs import Atlas, Layer, Run, Unit, atlas, open_run

__all__ = [
    "Atlas", "ImageError", "Inspection", "Layer", "Run", "ShardError", "Unit", "UserError",
    "activation_atlas", "atlas", "atlas_export", "check", "compare", "dictionary", "facets", "figure_style", "focus",
    "histogram_edges", "histogram_middles", "inspect", "layers", "map", "mine", "notes", "open_run", "picture",
    "publish",
    "score", "shards", "sheets", "views", "visualize",
]  # fmt: skip
_PLACES = {
    "actmine.inspection": ("Inspection",),
    "actmine.pipeline.datasets.tars": ("ShardError",),
    "actmine.pipeline.errors": ("UserError",),
    "actmine.pipeline.preprocessing.images": ("ImageError",),
    "actmine.pipeline.readings.bucket_edges": ("histogram_edges", "histogram_middles"),
    "actmine.pipeline.run": ("picture",),
    "actmine.pipeline.sheets.figures": ("figure_style",),
    "actmine.runs": ("Atlas", "Layer", "Run", "Unit", "atlas", "open_run"),
}
_CALLED = {"histogram_edges": "edges", "histogram_middles": "middles"}
_PLACE_OF = {name: place for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Imported when first asked for: `import actmine` alone takes no time."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("actmine")
    if name not in __all__:
        raise AttributeError(f"module 'actmine' has no attribute {name!r}")
    found = getattr(importlib.import_module(_PLACE_OF.get(name, "actmine.library")), _CALLED.get(name, name))
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
