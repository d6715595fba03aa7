"""Labels that form a tree: read from a file, or the one above ImageNet's classes; which nodes hold which labels."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.naming import BELOW, in_words
from actmine.pipeline.tables.told_labels import Groups
from actmine.pipeline.words import AUTO, NONE

BUILT_IN = Path(__file__).with_name("imagenet_tree.csv")
NOTICE = (
    "Derived from WordNet 3.0, Copyright 2006 by Princeton University, by actmine/pipeline/tables/wordnet.py; "
    "licence: WORDNET-LICENSE beside this file."
)
CLASSES = 1000
_HALF, _NEARLY_ALL = 0.5, 0.95


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of labels: the parent of each node (empty for those at the top), its words, and its synonyms.

    `built_in` is the one above ImageNet's classes: its first 1,000 nodes are the classes in the order of their numbers.
    """

    parent: Mapping[str, str]
    words: Mapping[str, str]
    also: Mapping[str, Sequence[str]]
    fingerprint: str
    built_in: bool = False

    def path(self, node: str) -> str:
        """The words of a node and of all above it."""
        return BELOW.join(self.words[each] for each in self.above(node))

    def above(self, node: str) -> list[str]:
        """A node and all above it."""
        found = [node]
        while self.parent[found[-1]]:
            found.append(self.parent[found[-1]])
        return found


def find_tree(word: str) -> Tree | None:
    """What `--label-tree` means: a file, `auto` the one built in, `none` none. Raises `UserError` for no such file."""
    if word == NONE:
        return None
    return _built_in() if word == AUTO else read_tree(Path(word))


@cache
def _built_in() -> Tree:
    return read_tree(BUILT_IN, built_in=True)


def read_tree(path: Path, built_in: bool = False) -> Tree:
    """The tree in a CSV file with the columns label and parent (also: name), or in JSON: {label: parent} or such rows.

    Raises `UserError` where it cannot be read, a label has two parents, or is above itself.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
        rows = _of_json(text) if path.suffix.lower() == ".json" else _of_csv(text)
        each = [{key: str(value or "").strip() for key, value in row.items() if key} for row in rows]
        pairs = [(row["label"], row["parent"], row) for row in each if row["label"]]
    except OSError as error:
        raise UserError(f"--label-tree {path} cannot be read ({error.strerror}). Say a file, auto or none.") from error
    except (ValueError, KeyError, AttributeError, TypeError, csv.Error) as error:
        raise UserError(
            f"--label-tree {path} is no table of labels and parents ({first_line(error)}). It is CSV with a first line "
            'label,parent, or JSON as {"beagle": "dog", "dog": "animal"}.'
        ) from error
    parent: dict[str, str] = {}
    for label, above, _ in pairs:
        if parent.get(label, above) != above:
            raise UserError(f"--label-tree {path}: {label!r} has several parents. Keep one.")
        parent[label] = above
    parent |= {above: "" for above in parent.values() if above and above not in parent}
    _refuse_rings(parent, path)
    words = {label: in_words(row.get("name") or label) for label, _, row in pairs}
    also = {label: tuple(filter(None, row.get("also", "").split("|"))) for label, _, row in pairs}
    return Tree(
        parent, {node: in_words(node) for node in parent} | words, also, hashlib.sha256(data).hexdigest()[:16], built_in
    )


def _of_csv(text: str) -> list[dict[str, object]]:
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def _of_json(text: str) -> list[dict[str, object]]:
    found = json.loads(text)
    if isinstance(found, dict):
        return [{"label": label, "parent": parent} for label, parent in found.items()]
    return list(found)


def _refuse_rings(parent: Mapping[str, str], path: Path) -> None:
    for node in parent:
        at, passed = node, {""}
        while at not in passed:
            passed.add(at)
            at = parent[at]
        if at:
            raise UserError(f"--label-tree {path}: {at!r} is above itself, so that it is no tree.")


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a tree that hold labels of a dataset: `names` of the nodes, and which labels each holds.

    `inside` counts the labels that are in the tree.
    """

    tree: Tree
    names: tuple[str, ...]
    groups: Groups
    inside: int


def nodes_of(tree: Tree, numbers: Sequence[int], names: Sequence[str | None]) -> Nodes | None:
    """The nodes above the labels with these `numbers` and `names`, lower ones first.

    None where no label is in the tree; of the one built in, where fewer than half are.
    """
    rows: dict[str, list[int]] = {}
    for row, node in enumerate(_found(tree, numbers, names)):
        if node:
            rows.setdefault(node, []).append(row)
    inside = sum(map(len, rows.values()))
    if not inside or (tree.built_in and inside < _HALF * len(numbers)):
        return None
    paths = {node: tuple(reversed(tree.above(node))) for node in rows}
    found: list[int] = []
    begin: dict[str, int] = {}
    end: dict[str, int] = {}
    for node in sorted(rows, key=paths.__getitem__):  # what is below a node is side by side
        for above in paths[node]:
            begin.setdefault(above, len(found))
            end[above] = len(found) + len(rows[node])
        found += rows[node]
    rest = sorted(set(range(len(numbers))) - set(found))
    depth = {above: at for path in paths.values() for at, above in enumerate(path)}
    nodes = sorted(begin, key=lambda node: (-depth[node], node))
    number = {node: at for at, node in enumerate(nodes)}
    groups = Groups(
        np.array(found + rest),
        np.array([begin[node] for node in nodes]),
        np.array([end[node] for node in nodes]),
        np.array([len(rows.get(node, ())) for node in nodes]),
        np.array([number.get(tree.parent[node], -1) for node in nodes]),
    )
    return Nodes(tree, tuple(nodes), groups, inside)


def _known(tree: Tree) -> dict[str, list[str]]:
    """The nodes that a label may mean, by its folded words: its own name first, then its words, then synonyms."""
    found: dict[str, list[str]] = {}
    for ways in ({node: (node,) for node in tree.parent}, {n: (w,) for n, w in tree.words.items()}, tree.also):
        for node, said in ways.items():
            for way in said:
                its = found.setdefault(in_words(way).casefold(), [])
                if node not in its:
                    its.append(node)
    return found


def _found(tree: Tree, numbers: Sequence[int], names: Sequence[str | None]) -> list[str | None]:
    """The node that each label is, by its words; by its number where it has none. None for one that may be several.

    Where nearly all labels have the numbers of ImageNet's classes, those do, for which words are not enough.
    """
    known, classes = _known(tree), list(tree.parent)[: CLASSES if tree.built_in else 0]
    may = [known.get(in_words(name or str(number)).casefold(), ()) for number, name in zip(numbers, names, strict=True)]
    if classes:
        leaves = set(classes)
        may = [[node for node in nodes if node in leaves] or nodes for nodes in may]
        own = [classes[number] if number < len(classes) else None for number in numbers]
        if sum(node in nodes for node, nodes in zip(own, may, strict=True)) >= _NEARLY_ALL * len(numbers):
            return own
    return [nodes[0] if len(nodes) == 1 or (nodes and not tree.built_in) else None for nodes in may]
