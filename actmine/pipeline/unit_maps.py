"""Where a run's maps of units and of images lie, and whether they are of what the run holds now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actmine.pipeline.words import MapOf

_NUMBER = (int, float, type(None))
_KINDS: dict[str, Any] = {
    "rows": int, "neighbors": int, "seed": int, "library": str, "layers": list, "kept": _NUMBER, "chance": _NUMBER,
    "without_variance": (int, type(None)),
}  # fmt: skip
"""What is said of a map; a record in which it is something else is not ours."""
MAP_FILES = {MapOf.units: "map.parquet", MapOf.images: "map_images.parquet"}


def is_fresh(record: Mapping[str, Any], by: MapOf) -> bool:
    """Whether the run has such a map, made of what it holds now: one that has grown since has none until it is made."""
    about = (record.get("maps_of") or {}).get(str(by))
    if not isinstance(about, Mapping) or about.get("mined") != record.get("fingerprint"):
        return False
    return all(isinstance(about.get(word), kinds) for word, kinds in _KINDS.items())


def truth(about: Mapping[str, Any], what: str) -> str:
    """How far a map of `what`, units or images, can be believed, in a sentence; empty where nothing is known."""
    kept, chance, most = about.get("kept"), about.get("chance"), about.get("neighbors")
    if kept is None or chance is None or not most:
        return ""
    of = f"Of the {most} {what} most alike each, {100 * kept:.0f}% are among the {most} nearest here"
    return f"{of} ({100 * chance:.2g}% by chance)." if chance < kept else f"{of}, no more than by chance."
