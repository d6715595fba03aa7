"""How faithful are a run's visualizations? `python -m benchmarks.faithfulness RUN [PRESET]` (of a run that has some).

Of each layer: how many units reach at least the dataset's maximum on their own picture (ratio), how many suit it best
in their layer (rank 0), how many never fired; and the seconds a unit took. Nothing is computed: it reads
`visualizations/`, `units/` and `run.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np
import pandas as pd

from actmine.pipeline.run import Run, open_run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import read_rows

BARS = {"reach the dataset's maximum": 0.99, "suit their own unit best": 0.95}


def main() -> None:
    """Prints a line for each layer, one for all, and the bars."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run")
    words.add_argument("preset", nargs="?", default="default")
    words.add_argument("--worst", type=int, default=0, help="also name so many units that miss a bar")
    given = words.parse_args()
    run = open_run(given.run)
    rows = drawn(run, given.preset, run.layers["layer"])
    if rows.empty:
        raise SystemExit(f"{run.path} has no visualizations by {given.preset}: make visualize RUN={run.path}")
    print(f"{run.record['dataset']}, {run.record['model']} ({run.record['weights']}), {given.preset}")
    print(f"{'layer':40} units fire  ratio >= 1  median ratio   rank 0  worst rank  never fired")
    for layer, its in rows.groupby("layer", sort=False):
        print(line(str(layer), its))
    print(line("all", rows))
    firing = rows[rows.firing_rate > 0]
    shares = (firing.ratio >= 1).mean(), (firing["rank"] == 0).mean()
    for (what, bar), share in zip(BARS.items(), shares, strict=True):
        print(f"of {len(firing):,} units that fire, {share:.2%} {what} (bar {bar:.0%}: {said(share >= bar)})")
    stuck = int((~(firing.activation > 0)).sum())
    print(f"stuck at zero: {stuck} (bar 0: {said(not stuck)})")
    counted = run.record.get("visualizations", {}).get(given.preset, {})
    if counted.get("drawn"):
        print(f"{counted['seconds'] / counted['drawn']:.3f} seconds a unit, drawn last: {counted['drawn']:,} units")
    missing = firing[(firing.ratio < 1) | (firing["rank"] > 0)].sort_values("rank", ascending=False)
    for row in missing.head(given.worst).itertuples():
        print(f"  {row.layer}, unit {row.unit}: ratio {row.ratio:.2f}, rank {row.rank}, fires on {row.firing_rate:.1%}")


def drawn(run: Run, preset: str, layers: Iterable[str]) -> pd.DataFrame:
    """A row for each unit that `preset` has drawn (of several facets its best), with its firing rate."""
    found = []
    for layer in layers:
        path = table_file(run.path, "visualizations", f"{layer}-{preset}")
        if path.is_file():
            rows = read_rows(path, ["layer", "unit", "activation", "ratio", "rank"]).to_pandas()
            rows = rows.sort_values("activation", ascending=False, kind="stable").drop_duplicates("unit")
            found.append(rows.sort_values("unit").merge(run.units(layer)[["unit", "firing_rate"]], on="unit"))
    return pd.concat(found) if found else pd.DataFrame()


def line(name: str, rows: pd.DataFrame) -> str:
    """Figures of some units that fire."""
    firing = rows[rows.firing_rate > 0]
    return (
        f"{name:40} {len(rows):5} {len(firing):4}  {(firing.ratio >= 1).mean():10.1%}  "
        f"{np.nanmedian(firing.ratio):12.2f}  {(firing['rank'] == 0).mean():7.1%}  {firing['rank'].max():10.0f}  "
        f"{int((~(firing.activation > 0)).sum()):11}"
    )


def said(reached: bool) -> str:
    """In a word."""
    return "reached" if reached else "missed"


if __name__ == "__main__":
    main()
