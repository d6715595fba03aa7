"""Presets: named recipes of ascent, nothing but parts put together; `PRESETS` holds them all."""

from __future__ import annotations

from pipeline.ascent.presets.default import DEFAULT
from pipeline.ascent.recipe import Preset
from pipeline.errors import UserError, near_matches

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (DEFAULT,)}


def find_preset(name: str) -> Preset:
    """The preset called `name`. Raises `UserError` for an unknown one, with near matches."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"There is no preset {name!r}.{near_matches(name, PRESETS)} PRESET is one of: {known}.")
    return PRESETS[name]
