"""Which labels may be named of a unit, and how they are written: the one place that tables and viewers ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LIKELY = 0.05
"""A statement is made where its q-value is below this: of all that a run makes, at most this share is false."""
MARGIN = 0.1
"""And where it is so far above chance: the share of exemplars above the expected share, or the correlation above 0."""
BELOW = " < "
"""Between the nodes of a path: from a node up to the highest above it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may be made of a unit, by the columns of units/ that hold it.

    The label in words and as a number, its q-value, its score and what that is by chance (0 where empty); `further`
    columns say nothing without it.
    """

    words: str
    label: str
    q: str
    score: str
    chance: str = ""
    further: tuple[str, ...] = ()


SHARED, NODE, TOLD = "shared", "node", "told"
STATEMENTS = {
    SHARED: Statement("top_label_name", "top_label", "label_purity_q", "label_purity", "label_purity_chance"),
    NODE: Statement(
        "best_node_name", "", "best_node_q", "best_node_correlation",
        further=("best_node_auc", "best_node_auc_low", "best_node_auc_high", "best_node_purity", "best_node_path"),
    ),
    TOLD: Statement(
        "best_label_name", "best_label", "best_label_q", "best_label_correlation",
        further=(
            "best_label_auc", "best_label_auc_low", "best_label_auc_high", "best_label_purity", "class_selectivity",
        ),
    ),
}  # fmt: skip
"""The label that exemplars share, the node of the tree of labels that a unit tells best, the label: in this order."""
COLUMNS = tuple(
    dict.fromkeys(
        name
        for each in STATEMENTS.values()
        for name in (each.words, each.label, each.q, each.score, each.chance, *each.further)
        if name
    )
)
"""What of units/ it takes to know all of it."""
STATEMENT_OF = {
    column: kind
    for kind, each in STATEMENTS.items()
    for column in (each.q, each.score, each.chance, *each.further)
    if column
}
"""Which statement a number belongs to, without which it is not shown."""


def holds(q: Any, score: Any, chance: Any = 0.0) -> Any:
    """Whether evidence is enough to name a label; of numbers or arrays, NaN where there is none."""
    return (q < LIKELY) & (score - chance >= MARGIN)


def in_words(name: object, number: object = None) -> str:
    """A label as people read it: its name, else its number, else nothing."""
    said = name.replace("_", " ").strip() if isinstance(name, str) else ""
    if said or number is None or number != number:
        return said
    return f"label {int(number)}"  # type: ignore[call-overload]


def is_in(wanted: str, name: str) -> bool:
    """Whether a name holds what somebody wrote, case and underscores aside."""
    return in_words(wanted).casefold() in in_words(name).casefold()


def labels_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The labels that may be named of a unit, a row of units/, in words, by statement; the first is the one to show."""
    found = {kind: in_words(row.get(each.words), row.get(each.label)) for kind, each in STATEMENTS.items()}
    return {kind: said for kind, said in found.items() if said and _holds_in(row, STATEMENTS[kind])}


def label_of(row: Mapping[str, Any]) -> str:
    """The one label to show for a unit, in words; empty where none may be named."""
    return next(iter(labels_of(row).values()), "")


def label_of_cell(row: Mapping[str, Any]) -> str:
    """The label that may be named of a cell of an activation atlas, in words; empty where none may."""
    numbers = (_number(row.get(name)) for name in ("label_q", "label_share", "label_chance"))
    return in_words(row.get("label_name"), row.get("label")) if holds(*numbers) else ""


def held(rows: pa.Table, kind: str) -> np.ndarray:
    """Of which rows of units/ a statement holds, bool; of none in tables that lack its columns."""
    each = STATEMENTS[kind]
    chance = numbers(rows, each.chance) if each.chance else 0.0
    found: np.ndarray = holds(numbers(rows, each.q), numbers(rows, each.score), chance)
    return found & (words(rows, kind).is_valid().to_numpy(zero_copy_only=False))


def words(rows: pa.Table, kind: str) -> pa.Array:
    """The labels of a statement in words, as `in_words` has them; null where there is none."""
    each = STATEMENTS[kind]
    lacking = pa.nulls(len(rows), pa.string())
    names = rows[each.words].cast(pa.string()) if each.words in rows.column_names else lacking
    numbered = lacking
    if each.label in rows.column_names:
        numbered = pc.binary_join_element_wise("label", rows[each.label].cast(pa.string()), " ")
    said = pc.utf8_trim_whitespace(pc.replace_substring(names, "_", " "))
    found = pc.coalesce(pc.if_else(pc.equal(said, ""), None, said), numbered)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def numbers(rows: pa.Table, column: str) -> np.ndarray:
    """A column of numbers, float64; NaN where there is none, everywhere if the table lacks it."""
    if column not in rows.column_names:
        return np.full(len(rows), np.nan)
    values: np.ndarray = rows[column].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values


def ancestors(path: str | None) -> list[str]:
    """The nodes of a path in words, from the node itself upwards."""
    return [in_words(name) for name in path.split(BELOW)] if path else []


def verdict(account: Mapping[str, Any] | None, units: int) -> str:
    """What the labels of a run are good for, where that is nothing; in one sentence, empty where units have labels.

    `account` is `labels_account` of run.json; None in runs of versions before, which know no evidence.
    """
    if account is None:
        return "No label is named: this run was mined before labels had evidence. Mine it again to see them."
    named = account["named"]
    if not account["labels"] or named[SHARED] or named[TOLD]:
        return ""
    of = f"{account['images']:,} images of {account['labels']:,} labels"
    if not account["supported"]:
        kinds = f" Kinds of labels are named, of {named[NODE]:,} units." if named[NODE] else ""
        return (
            f"No label is named: {of} support no statement about a unit; none has {account['min_support']} images in "
            f"each half of the dataset (--min-support).{kinds}"
        )
    if named[NODE]:
        return ""
    return f"No label is named: {of}, and what {units:,} units do with them is not beyond chance."


def _holds_in(row: Mapping[str, Any], each: Statement) -> bool:
    q, score, chance = (
        _number(row.get(each.q)), _number(row.get(each.score)), _number(row.get(each.chance)) if each.chance else 0.0,
    )  # fmt: skip
    return bool(holds(q, score, chance))


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
