"""How much of a run its exported pages hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Extent:
    """How many `exemplars` of each kind a unit's page shows (0: all), and whether images have pages of their own.

    Without `pictures` nothing is shown of the dataset's images: exemplars are rows of a table.
    """

    exemplars: int = 0
    image_pages: bool = True
    pictures: bool = True

    def cut(self, count: int) -> int:
        """How many of so many exemplars are shown."""
        return min(count, self.exemplars) if self.exemplars else count


def of_run(record: Mapping[str, Any]) -> Extent:
    """What the server shows of a run: everything, but no pictures of one that was published without."""
    return Extent(pictures=bool(record.get("published", {}).get("pictures", True)))


EVERYTHING = Extent()
"""All that a run holds."""
