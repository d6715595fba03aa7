"""Names of layers that fit below a tile: what most of them share is left out, what tells them apart stays."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

ROOM = 16
"""So many characters a tile has room for."""
_CUT = "…"


def shortened(names: Iterable[str], room: int = ROOM) -> dict[str, str]:
    """A name of at most `room` characters for each of several, no two alike; whole where none so short tells it apart.

    Of a long one the parts that most of the others have as well go first; a part that is too long loses its middle.
    """
    parts = {name: re.findall(r"[^._/]*[._/]?", name)[:-1] for name in names}
    common = Counter(part.rstrip("._/") for its in parts.values() for part in dict.fromkeys(its))
    short = {name: _without(its, common, room) for name, its in parts.items()}
    alike = Counter([*short.values(), *parts])  # a short one may be another's whole name
    return {name: said if said == name or alike[said] == 1 else name for name, said in short.items()}


def _without(parts: list[str], common: Counter[str], room: int) -> str:
    """The parts in so many characters: the commonest are left out first, of equally common ones the first."""
    left = list(parts)
    for at in sorted(range(len(parts)), key=lambda at: (-common[parts[at].rstrip("._/")], at)):
        said = _joined(left)
        if len(said) <= room or sum(each != _CUT for each in left) == 1:
            break
        left[at] = _CUT
    said = _joined(left)
    ends = (room - 1) // 2
    return said if len(said) <= room else said[: room - 1 - ends] + _CUT + said[-ends:]


def _joined(parts: list[str]) -> str:
    return re.sub(f"[._/]?{_CUT}+", _CUT, "".join(parts))
