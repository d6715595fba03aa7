"""Taking notes in the browser: who may, what a form says, and what is noted as lists for pages."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from actmine.pipeline.atlas.links import Links
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.request_words import is_number
from actmine.pipeline.errors import UserError
from actmine.pipeline.notes import Noted, Notes, Target

MOST_BYTES = 1 << 16
"""Of a form."""
_MOST_FIELDS = 20


@dataclass(frozen=True, slots=True)
class Desk:
    """Where notes are taken: `author` is who takes them unless a form says another name.

    Whoever sends a form knows the `token` from a page of this server: no page elsewhere can send one for its readers.
    """

    author: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def refused(self, fields: Mapping[str, str], origin: str | None, host: str) -> str:
        """Why a form is not taken; empty if it is."""
        return refusal(self.token, fields, origin, host)


def refusal(token: str, fields: Mapping[str, str], origin: str | None, host: str) -> str:
    """Why a form is not taken that should carry a `token`, by where it comes from; empty if it is."""
    if origin is not None and urlsplit(origin).netloc != host:
        return "The form comes from another site."
    if not hmac.compare_digest(fields.get("token", "").encode(), token.encode()):
        return "The page is of an atlas that has ended. Load it again, and say it again."
    return ""


def fields_of(data: bytes) -> dict[str, str]:
    """The fields of a form, the last of each name. Raises `UserError` for what is none."""
    try:
        found = parse_qs(data.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise UserError("This is no form of the atlas.") from error
    return {name: values[-1] for name, values in found.items()}


def target_of(queries: Queries, fields: Mapping[str, str]) -> Target:
    """What a form is of. Raises `UserError` where the run has no such thing."""
    layer, unit, image = (fields.get(name, "") for name in ("layer", "unit", "image"))
    numbers = [int(each) if is_number(each) else -1 for each in (unit, image)]
    if layer in queries.layers and not image and (not unit or 0 <= numbers[0] < queries.layers[layer].units):
        return Target(layer, numbers[0] if unit else None)
    if image and not layer and not unit and queries.images.get(numbers[1]) is not None:
        return Target(image_id=numbers[1])
    raise UserError("The run has no such unit, layer or image.")


def said(notes: Notes, target: Target, author: str, fields: Mapping[str, str]) -> None:
    """Keeps what a form says. Raises `UserError` as `Notes.say` does."""
    by = fields.get("by", "").strip() or author
    if "star" in fields:
        notes.say(target, by, star=fields["star"] == "1")
    elif "tag" in fields:
        notes.say(target, by, tag=fields["tag"], on="off" not in fields)
    elif "name" in fields:
        notes.say(target, by, name=fields["name"])
    elif "remove" in fields:
        notes.say(target, by, remove=fields["remove"])
    else:
        notes.say(target, by, note=fields.get("note", ""))


def place_of(links: Links, target: Target) -> str:
    """The address of the page of what is noted of; empty where there is none."""
    if target.image_id is not None:
        return links.image(target.image_id)
    assert target.layer is not None
    return links.layer(target.layer) if target.unit is None else links.unit(target.layer, target.unit)


@dataclass(frozen=True, slots=True)
class Listed:
    """A unit, layer or image with what is noted of it, for a list."""

    target: Target
    noted: Noted
    words: str


def listed(queries: Queries, known: Mapping[Target, Noted]) -> list[Listed]:
    """All that is noted of what the run has, in the order of its layers, units, and then images."""
    order = {name: at for at, name in enumerate(queries.layers)}

    def key(target: Target) -> tuple[int, int, int]:
        layer = len(order) if target.layer is None else order[target.layer]
        return layer, -1 if target.unit is None else target.unit, target.image_id or 0

    there = [each for each in known if each.layer is None or each.layer in order]
    return [Listed(each, known[each], _words(queries, each)) for each in sorted(there, key=key)]


def _words(queries: Queries, target: Target) -> str:
    if target.image_id is not None:
        image = queries.images.get(target.image_id)
        return image.key if image else f"image {target.image_id}"
    return f"{target.layer}" if target.unit is None else f"{target.layer}, unit {target.unit}"


def tags_of(rows: Sequence[Listed]) -> dict[str, list[Listed]]:
    """What has which tag, tags in alphabetical order."""
    tags = sorted({tag for each in rows for tag in each.noted.tags}, key=str.casefold)
    return {tag: [each for each in rows if tag in each.noted.tags] for tag in tags}


def units_with(known: Mapping[Target, Noted], layer: str, text: str) -> list[int]:
    """The units of a layer of which something with `text` is noted."""
    wanted = text.strip().casefold()
    return [
        target.unit
        for target, noted in known.items()
        if target.layer == layer and target.unit is not None and wanted and wanted in noted.words.casefold()
    ]
