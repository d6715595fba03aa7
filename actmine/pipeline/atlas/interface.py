"""The atlas for programs: what an address below /api gives, and how its rows and pages of rows are written as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from actmine.pipeline.atlas.images import Topping
from actmine.pipeline.atlas.pages import Atlas
from actmine.pipeline.errors import UserError

MOST_ROWS = 1000
"""Of an answer with a page of rows."""
ROWS = 100


class NoWord(UserError):
    """A word behind an address that is none of its kind."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address asks for, checked: parts of its path, and the words behind it."""

    layer: str = ""
    unit: int = 0
    image: int = 0
    words: Mapping[str, Any] = field(default_factory=dict)
    topping: Callable[[], Topping] | None = None
    """Gives which image tops which units."""

    @property
    def columns(self) -> list[str]:
        """The columns of the rows that are asked for; all where there are none."""
        return list(self.words.get("columns") or ())

    @property
    def limit(self) -> int:
        """How many rows at most."""
        return int(self.words["limit"])

    @property
    def offset(self) -> int:
        """How many rows lie before the first."""
        return int(self.words["offset"])


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one page of a list, which has `count` of them; `more` is said beside them."""

    count: int
    rows: Sequence[Mapping[str, Any]]
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """One address of the interface.

    `make` gives an object (without `schema`), a row (`one`), all rows of a list, or a `Part` where it pages by itself;
    None where there is nothing of that number. `schema` is the table's, `adds` are columns beside it; a picture in a
    row is its address, and bytes are left out. `words` are those of `interface_words.WORDS` that may stand behind the
    address; rows have `columns` too, and a list `limit` and `offset`. `more` says what an answer has beside its rows,
    as JSON schemas. What is not `shared` is for pages of the atlas alone, never for those of other origins; what is
    `heavy` is done only a few times at once.
    """

    path: str
    says: str
    make: Callable[[Atlas, Asked], Any | None]
    schema: pa.Schema | None = None
    adds: Sequence[pa.Field] = ()
    one: bool = False
    words: Sequence[str] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    shared: bool = True
    heavy: bool = False

    @property
    def columns(self) -> list[pa.Field]:
        """The columns of a row."""
        return [*(each for each in self.schema or () if not pa.types.is_binary(each.type)), *self.adds]

    @property
    def listed(self) -> bool:
        """Whether it is a list, which comes in pages."""
        return self.schema is not None and not self.one

    @property
    def all_words(self) -> tuple[str, ...]:
        """Every word that may stand behind the address."""
        return (*self.words, *(("limit", "offset") if self.listed else ()), *(("columns",) if self.schema else ()))


def answered(answer: Answer, atlas: Atlas, asked: Asked, to: Callable[[int], str]) -> dict[str, Any] | None:
    """What an address says, as JSON can say it; None where there is nothing. `to` gives the page at an offset.

    Raises `NoWord` for a word that does not fit, `UserError` where a table cannot be read.
    """
    found = answer.make(atlas, asked)
    if found is None:
        return None
    if answer.schema is None:
        return said(found)
    known = [each.name for each in answer.columns]
    names = [each for each in known if each in asked.columns] if asked.columns else known
    if answer.one:
        return said(_row(found, names))
    first, after = asked.offset, asked.offset + asked.limit
    part = found if isinstance(found, Part) else Part(len(found), found[first:after])
    return said({
        "count": part.count, "offset": first, "next": to(after) if after < part.count else None, **part.more,
        "rows": [_row(row, names) for row in part.rows],
    })  # fmt: skip


def _row(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A row with every column; null where the table, of a version before, lacks it."""
    return {name: row.get(name) for name in names}


def said(object_: Mapping[str, Any]) -> dict[str, Any]:
    """An object as JSON can say it: what is no finite number is null, bytes are left out."""
    return {str(_plain(str(name))): _plain(each) for name, each in object_.items() if not isinstance(each, bytes)}


def _plain(value: Any) -> Any:
    if type(value) is int:  # most of all are counts of histograms
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return said(value)
    if isinstance(value, list | tuple):
        return [each if type(each) is int else _plain(each) for each in value]
    return value
