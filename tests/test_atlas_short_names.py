"""Short names of layers: they fit, tell layers apart, and leave out what the layers share."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as some

from actmine.pipeline.atlas.short_names import ROOM, shortened

SQUEEZENET = ["features.1"] + [
    f"features.{fire}.{part}_activation"
    for fire in (3, 4, 6, 7, 9, 10, 11, 12) for part in ("squeeze", "expand1x1", "expand3x3")
]  # fmt: skip
VIT = ["conv_proj", *(f"encoder.layers.encoder_layer_{n}.{part}" for n in range(12) for part in ("mlp", "ln_2", "add"))]


def test_layers_of_known_networks_are_told_apart_by_what_differs():
    short = shortened(SQUEEZENET)
    assert short["features.1"] == "features.1"
    assert short["features.7.expand3x3_activation"] == "…7.expand3x3…"
    assert short["features.12.squeeze_activation"] == "…12.squeeze…"
    assert shortened(VIT)["encoder.layers.encoder_layer_11.ln_2"] == "…layer_11.ln_2"
    for names in (SQUEEZENET, VIT):
        assert all(len(said) <= ROOM for said in shortened(names).values())


names_ = some.lists(some.text("ab12._/é", min_size=1, max_size=40), unique=True, max_size=12)


@given(names_, some.integers(3, 20))
def test_short_names_are_distinct_and_pieces_of_the_whole_in_order(names, room):
    short = shortened(names, room)
    assert list(short) == names and len(set(short.values())) == len(names)
    for name, said in short.items():
        assert said == name or len(said) <= room
        assert re.fullmatch(".*".join(map(re.escape, said.split("…"))), name)
        assert len(name) > room or said == name
