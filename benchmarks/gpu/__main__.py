"""What does mining cost on a GPU? `make bench-gpu`, or `PYTHONPATH=. python -m benchmarks.gpu` in a plain checkout.

Needs torch, torchvision, numpy, Pillow and what docs/gpu.md lists, no data and no network. Parts, each of which prints
its lines as it ends: taps (reading maps against copying them), mining (ResNet-50 against its bare forward pass, eager
and compiled), vit, batches (speed and memory by batch size), accumulators, files (from JPEGs, and a whole run of them),
ascent, faithful (its pictures beside a CPU's), profile; code and launches need no GPU. One that fails says so, the
others go on, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.gpu.parts import run_part
from benchmarks.gpu.setting import BARS, Setting, table_line

PARTS = {
    "code": ("machine_code", "report"),
    "taps": ("taps", "sweeps"),
    "chains": ("taps", "chains"),
    "mining": ("mining", "resnet"),
    "vit": ("mining", "vit"),
    "batches": ("mining", "batches"),
    "accumulators": ("mining", "accumulators"),
    "files": ("files", "end_to_end"),
    "ascent": ("ascent", "speed"),
    "faithful": ("faithful", "ascent"),
    "profile": ("mining", "profile"),
    "launches": ("launches", "table"),
}
"""The file and function of each; imported when it is run, so that a part needs no more than it uses."""


def main() -> None:
    """Prints ratios of medians, and where a GPU is missing says so. Exits with 1 where a part failed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", nargs="*", help=f"which, in this order; all by default: {' '.join(PARTS)}")
    words.add_argument("--device", default="cuda", help="cpu tries the benchmark itself")
    words.add_argument("--small", action="store_true", help="tiny sizes, to try the benchmark itself")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--batch-size", type=int, default=256)
    words.add_argument(
        "--out", type=Path, help="a folder for figures.json, written figure by figure, profiles and tracebacks"
    )
    given = words.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        words.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        print("No GPU is at hand: nothing to measure here. `make bench` measures the CPU.")
        return
    with TemporaryDirectory() as scratch:
        figures = (given.out or Path(scratch)) / "figures.json"
        figures.parent.mkdir(parents=True, exist_ok=True)
        figures.unlink(missing_ok=True)
        size = 8 if given.small else given.batch_size
        setting = Setting(torch.device(given.device), given.small, given.rounds, size, figures, given.out)
        of = {part: PARTS[part] for part in given.parts or PARTS}
        failed = measure({part: (f"benchmarks.gpu.{file}", function) for part, (file, function) in of.items()}, setting)
    if failed:
        sys.exit(1)


def measure(parts: Mapping[str, tuple[str, str]], setting: Setting) -> list[str]:
    """Each part, a module and its function, in turn, then all that has a bar as a table; the parts that failed."""
    card = torch.cuda.get_device_name(setting.device) if setting.cuda else "cpu"
    setting.keep("of", date=str(date.today()), card=card, torch=torch.__version__, batch_size=setting.batch_size)
    print(f"{date.today()}  torch {torch.__version__}, {card}, batches of {setting.batch_size}", flush=True)
    failed = [part for part, place in parts.items() if not run_part(part, *place, setting)]
    if judged := setting.found().get(BARS):
        print("\n| | | bar | |\n| --- | --- | --- | --- |")
        print("\n".join(table_line(what, its) for what, its in judged.items()))
    if failed:
        print(f"Failed: {', '.join(failed)}.", flush=True)
    return failed


if __name__ == "__main__":
    main()
