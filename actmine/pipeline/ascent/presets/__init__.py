"""Presets: named recipes of ascent, nothing but parts put together; `PRESETS` holds them all."""

from __future__ import annotations

from actmine.pipeline.ascent.presets.deepdream import DEEPDREAM
from actmine.pipeline.ascent.presets.default import DEFAULT
from actmine.pipeline.ascent.presets.facets import MEAN_IMAGE
from actmine.pipeline.ascent.presets.filter_max import FILTER_MAX
from actmine.pipeline.ascent.presets.gan_prior import GAN_PRIOR
from actmine.pipeline.ascent.presets.lucid import LUCID
from actmine.pipeline.ascent.presets.maco import MACO
from actmine.pipeline.ascent.presets.noise import NOISE
from actmine.pipeline.ascent.presets.oygard import OYGARD_CLASS, OYGARD_GOOGLENET, OYGARD_VGG
from actmine.pipeline.ascent.presets.vital import VITAL
from actmine.pipeline.ascent.presets.yosinski import YOSINSKI_1, YOSINSKI_2, YOSINSKI_3, YOSINSKI_4
from actmine.pipeline.ascent.recipe import Preset
from actmine.pipeline.errors import UserError, near_matches

_ALL = (
    DEFAULT, FILTER_MAX, NOISE, OYGARD_GOOGLENET, OYGARD_VGG, OYGARD_CLASS,
    YOSINSKI_1, YOSINSKI_2, YOSINSKI_3, YOSINSKI_4, DEEPDREAM, LUCID, MACO,
    MEAN_IMAGE, VITAL, GAN_PRIOR,
)  # fmt: skip
PRESETS: dict[str, Preset] = {preset.name: preset for preset in _ALL}


def find_preset(name: str) -> Preset:
    """The preset called `name`. Raises `UserError` for an unknown one, with near matches."""
    if name not in PRESETS:
        known = ", ".join(PRESETS)
        raise UserError(f"There is no preset {name!r}.{near_matches(name, PRESETS)} PRESET is one of: {known}.")
    return PRESETS[name]
