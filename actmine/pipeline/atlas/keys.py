"""The keys of the atlas: one table, of which its help is made and by which its script acts."""

from __future__ import annotations

from dataclasses import dataclass

_SHOWN = {
    "ArrowLeft": "←", "ArrowRight": "→", "ArrowUp": "↑", "Arrows": "← ↑ → ↓", "Shift": "⇧", "Escape": "Esc",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Key:
    """What is pressed (`Shift+ArrowLeft`; `g h` is one after the other), and what for.

    `does` is a verb of keys.js and a selector of what on the page it acts; empty for keys that only have a meaning
    where one is, which other scripts or the browser know.
    """

    stroke: str
    words: str
    does: str = ""

    @property
    def caps(self) -> list[list[str]]:
        """What is written on the keys, those pressed together in one list."""
        return [[_SHOWN.get(part, part) for part in each.split("+")] for each in self.stroke.split(" ")]


KEYS: dict[str, tuple[Key, ...]] = {
    "Everywhere": (
        Key("?", "these keys", "help [data-keys]"),
        Key("/", "search", "focus #q"),
        Key("g h", "to the run", "follow [data-go=run]"),
        Key("g n", "to the notes", "follow [data-go=notes]"),
        Key("g p", "a picture of your own", "follow [data-go=look]"),
        Key("ArrowLeft", "the one before", "follow link[rel=prev]"),
        Key("ArrowRight", "the next", "follow link[rel=next]"),
        Key("ArrowUp", "up, from the top of a page", "rise link[rel=up]"),
        Key("Shift+ArrowLeft", "the page before, of a wide layer", 'follow [data-page="-1"]'),
        Key("Shift+ArrowRight", "its next page", 'follow [data-page="1"]'),
        Key("Escape", "out of a field, or of what is open"),
    ),
    "Exemplars": (
        Key("j", "the next exemplar", "next .frame"),
        Key("k", "the one before", "back .frame"),
        Key("Enter", "shows it large; ← and → go on"),
        Key("h", "heat maps, on and off", "press [data-heat-switch]"),
        Key("o", "opens all rows, or closes them", "rows [data-rows]"),
    ),
    "A place in an image": (
        Key("c", "the crosshair", "focus [data-crosshair]"),
        Key("Arrows", "move it; with ⇧ further"),
        Key("Enter", "lists the units that fire there"),
    ),
    "Notes": (
        Key("n", "a note", "focus [data-write]"),
        Key("t", "a tag", "focus [data-tag]"),
        Key("s", "a star", "press [data-star]"),
        Key("Ctrl+Enter", "keeps what is typed"),
    ),
}
"""By where they are of use."""
