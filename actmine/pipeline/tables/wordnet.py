"""Derives `imagenet_tree.csv`, the kinds above ImageNet's 1,000 classes, from WordNet 3.0.

    python -m actmine.pipeline.tables.wordnet /usr/share/wordnet/data.noun SYNSETS > imagenet_tree.csv

`data.noun` is in Debian's package wordnet-base (or Princeton's WordNet-3.0); SYNSETS is a file with one n01440764 a
line, in the order of the class numbers; without it those of the table that is there. Names of synsets are offsets in
that file. Of several hypernyms the first is the parent, in the order in which WordNet gives them: it makes a dog a
canine rather than a domestic animal.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from actmine.pipeline.tables.label_tree import BUILT_IN, CLASSES, NOTICE, read_tree


def main() -> None:
    """Writes the table to standard output."""
    nouns, *synsets = sys.argv[1:]
    known = Path(synsets[0]).read_text().split() if synsets else list(read_tree(BUILT_IN).parent)[:CLASSES]
    sys.stdout.write(f"# {NOTICE}\n")
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["label", "parent", "name", "also"])
    table.writerows(tree_of(known, Path(nouns).read_text(encoding="utf-8").splitlines()))


def tree_of(classes: Iterable[str], lines: Iterable[str]) -> Iterator[tuple[str, str, str, str]]:
    """Synset, parent, name and synonyms of the `classes` and of all above them, by the lines of `data.noun`."""
    known = dict(map(_synset, (line for line in lines if not line.startswith(" "))))
    waiting, listed = list(classes), set()
    while waiting:
        above = []
        for synset in waiting:
            if synset not in listed:
                listed.add(synset)
                parent, names = known[synset]
                yield synset, parent, names[0], "|".join(names[1:])
                above += [parent] if parent else []
        waiting = sorted(set(above))


def _synset(line: str) -> tuple[str, tuple[str, list[str]]]:
    """A line as wndb(5) describes it: offset, file, kind, words (hexadecimal) with a number each, pointers of four."""
    fields = line.split(" | ")[0].split()
    words = int(fields[3], 16)
    names = [name.replace("_", " ") for name in fields[4 : 4 + 2 * words : 2]]
    pointers = fields[5 + 2 * words :]
    kinds = zip(pointers[::4], pointers[1::4], strict=False)
    parent = next((f"n{offset}" for kind, offset in kinds if kind in ("@", "@i")), "")
    return f"n{fields[0]}", (parent, names)


if __name__ == "__main__":
    main()
