"""What a network makes of a picture, as `actmine.inspect` gives it: a notebook shows its pictures."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Inspection:
    """The `page` that shows all `pictures`, of each of `layers` the units that stand out, and what is said `about` it.

    Each of `layers` has its name, and units with activations and positions.
    """

    page: Path
    pictures: Sequence[Path]
    layers: Sequence[Mapping[str, Any]]
    about: Sequence[str]

    def _repr_html_(self) -> str:
        said = "<br>".join(map(html.escape, self.about))
        shown = "".join(
            f'<p><img src="data:image/png;base64,{b64encode(path.read_bytes()).decode()}" '
            f'alt="{html.escape(path.stem)}" style="max-width:100%"></p>'
            for path in self.pictures
        )
        return f"<p>{said}</p>{shown}"
