"""The card of a published run: YAML for the hub and `datasets`, and what people should know before they use it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actmine.pipeline.atlas.take_away import run_citation
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import in_bytes
from actmine.pipeline.publishing.contents import HOLDS, NEVER, Part, pixels_of_images, rows_of, tables_of
from actmine.pipeline.publishing.markup import code, markdown, plain, visible, yaml
from actmine.pipeline.run import Run

FILE = "README.md"
UNKNOWN, OTHER = "unknown", "other"
LICENSES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 "
    "bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc "
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 "
    "cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 "
    "cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 "
    "eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c "
    "ms-pl mpl-2.0 odc-by odbl ofl-1.1 osl-3.0 postgresql ncsa unlicense zlib pddl lgpl-lr unknown other".split()
)
"""What the hub knows licences by."""
TAGS = ("interpretability", "feature-visualization", "activation-maximization", "computer-vision", "actmine")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"),
          (10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"))  # fmt: skip
SIZES = (*(name for _, name in _SIZES), "n>1B")
TASKS = ("image-feature-extraction",)
MOST_TITLE = 300
_SLUG = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")


@dataclass(frozen=True, slots=True)
class Card:
    """What is said of a publication beside what is in it: `license` as given, a `title`, and whether there is an atlas
    of which `shown` exemplars (0: all)."""

    license: str = ""
    title: str = ""
    pictures: bool = True
    shown: int = 0
    layers: tuple[str, ...] = ()
    """The layers whose pages there are, where not all have any."""


def metadata(run: Run, found: list[Part], card: Card) -> dict[str, Any]:
    """The fields at the head of the card. Raises `UserError` for a licence that is no word."""
    rows = sum(part.rows for part in found if part.table == "exemplars")
    size = next((name for most, name in _SIZES if rows < most), SIZES[-1])
    tables = tables_of(found)
    default = "units" if "units" in tables else tables[0]
    return {
        "license": UNKNOWN,
        **_license(card.license),
        "pretty_name": _title(run, card),
        "annotations_creators": ["machine-generated"],
        "task_categories": list(TASKS),
        "size_categories": [size],
        "tags": list(TAGS),
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": _files_of(name, found)}],
             **({"default": True} if name == default else {})}
            for name in sorted(tables, key=lambda each: each != default)
        ],
    }  # fmt: skip


def _license(word: str) -> dict[str, str]:
    word = word.strip().lower()
    if not word:
        return {}
    if not _SLUG.fullmatch(word) or len(word) > 60:
        raise UserError(f"LICENSE={word} is no name of a licence. Write one as the hub does, such as cc-by-4.0, or a "
                        "short name in lower-case letters, digits, dots and dashes.")  # fmt: skip
    return {"license": word} if word in LICENSES else {"license": OTHER, "license_name": word}


def _files_of(table: str, found: list[Part]) -> str:
    name = next(part.name for part in found if part.table == table)
    return f"{table}/*.parquet" if "/" in name else name


def _title(run: Run, card: Card) -> str:
    of, on = (plain(_of(run, word)) or "?" for word in ("model", "dataset"))
    return (plain(card.title) or f"What drives each unit of {of} on {on}")[:MOST_TITLE].strip()


def _of(run: Run, word: str) -> str:
    return str(run.record.get(word) or "?")


def text(run: Run, found: list[Part], card: Card) -> str:
    """The whole card."""
    fields = metadata(run, found, card)
    return f"---\n{yaml(fields)}---\n\n{_body(run, found, card, fields)}"


def _body(run: Run, found: list[Part], card: Card, fields: Mapping[str, Any]) -> str:
    record = run.record
    layers, units = len(run.layers), int(run.layers["units"].sum())
    counts = record.get("counts", {})
    seen = f"{int(counts['seen']):,} images" if "seen" in counts else "images"
    pages = f"the first {card.shown} exemplars of each unit" if card.shown else "every exemplar"
    narrowed = f" of {_listed(card.layers)}" if card.layers else ""
    drawn = ", what gradient ascent draws for it, and" if rows_of(found, "visualizations") else ", and"
    pixels = "the network's input" if record.get("boxes") == "network input" else "the original image"
    tables = "\n".join(f"| `{_files_of(name, found)}` | {rows_of(found, name):,} | {HOLDS[name]} |"
                       for name in tables_of(found))  # fmt: skip
    origin = "\n".join(f"- {name}: {code(str(value))}" for name, value in _origin(record) if value)
    return f"""# {markdown(str(fields["pretty_name"]))}

For each of {units:,} units in {layers} layer{"s" if layers != 1 else ""} of the network {code(_of(run, "model"))},
the images among {seen} of {code(_of(run, "dataset"))} that drive it hardest, with the place in each image{drawn}
statistics of all its activations. Mined in one pass by actmine.

**Look at it**: open `atlas/index.html`, pages that need no server; they show {pages}{narrowed}. The tables hold all.

## Tables

A row each for:

| file | rows | holds |
| --- | ---: | --- |
{tables}

Every column has a description with its unit in the schema of its file. Pictures are `struct<bytes, path>`.
{_pictures(card, found)}Not in here: {NEVER}{"" if any(part.table == "notes" for part in found) else ", notes"}.

## Questions

In a copy of this folder, with pandas:

```python
import pandas as pd

units = pd.read_parquet("units")
print(units.sort_values("activation_max", ascending=False)[["layer", "unit", "activation_max", "firing_rate"]].head())
```

with DuckDB:

```sql
SELECT layer, unit, rank, activation, key FROM 'exemplars/*.parquet' WHERE rank < 3 ORDER BY layer, unit, rank LIMIT 9
```

with `datasets`, here or by the name of the repository on the hub:

```python
from pathlib import Path

from datasets import load_dataset

exemplars = load_dataset(str(Path.cwd()), "exemplars", split="train")
```

with actmine, which also cuts out what a unit sees of an image:

```python
import actmine

run = actmine.open_run(".")
print(run.exemplars(run.layers.layer[0], 0).head())
```

## What the numbers mean, and what they do not

- An *activation* is a unit's value at one position; an *image activation* its maximum over an image. `exemplars` are
  the images with the highest of them, exactly: no image of the dataset was left out but {_left_out(record)}.
- `left, top, right, bottom` is the receptive field at that position, half-open, in pixels of {pixels}: nothing outside
  can change the activation. Much inside may not matter.
- A label is what images of this dataset are called; a unit that prefers it need not detect it. `label_purity_q` and
  `best_label_q` say how many of such statements chance would make (Benjamini and Hochberg); from 0.05 on, do not
  believe them.
- Correlations, AUC and selectivity are measured on another half of the images than the one that chose the label.
- Similarities of `neighbors` are estimates; below `chance` units with nothing in common reach them too.
- A visualization shows what can drive a unit, not what does in photographs: `visualization_ratio` and
  `visualization_rank` say how hard, and whether it suits another unit better.
- What a unit responds to here is bound to this dataset: what no image shows, no unit can have been seen to prefer.

## Where it comes from

{origin}

## Licence

{_of_license(fields, card, found)}

## Citation

```bibtex
{visible(run_citation(run))}```
"""


def _left_out(record: Mapping[str, Any]) -> str:
    near = " and, of those that look nearly the same, all but the strongest" if record.get("unique") else ""
    return f"those in `skipped`{near}"


def _pictures(card: Card, found: list[Part]) -> str:
    count, size = pixels_of_images(found)
    if not card.pictures:
        return "No picture of the dataset is in here, nor one that is made of such.\n"
    return f"{count:,} pictures of images of the dataset are in here ({in_bytes(size)}).\n" if count else ""


def _of_license(fields: Mapping[str, Any], card: Card, found: list[Part]) -> str:
    said = (
        "None was stated by whoever published this: ask before you use it."
        if fields["license"] == UNKNOWN
        else f"As stated by whoever published this: {code(str(fields.get('license_name', fields['license'])))}."
    )
    if not (card.pictures and pixels_of_images(found)[0]):
        return said
    return f"{said} Pictures are parts of the dataset, and stay under the terms of the dataset, whatever is said here."


def _origin(record: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    versions = record.get("versions") or {}
    size = (record.get("preprocessing") or {}).get("size")
    return (
        ("network", record.get("model")), ("weights", record.get("weights")),
        ("SHA-256 of the weights", record.get("weights_hash")), ("dataset", record.get("dataset")),
        ("fingerprint of the dataset", record.get("dataset_fingerprint")),
        ("fingerprint of the run", record.get("fingerprint")),
        ("exemplars a unit", record.get("topk")), ("input", f"{size[0]} x {size[1]} pixels" if size else None),
        ("arithmetic", " ".join(str(record[word]) for word in ("device", "precision") if record.get(word)) or None),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items()) or None),
    )  # fmt: skip


def _listed(names: Iterable[str]) -> str:
    return ", ".join(code(name) for name in names)
