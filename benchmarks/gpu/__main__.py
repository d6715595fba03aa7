"""What does mining cost on a GPU? `make bench-gpu`, or `PYTHONPATH=. python -m benchmarks.gpu` in a plain checkout.

Needs torch, torchvision, numpy, pyarrow and pandas, no data and no network. Parts, each of which prints its lines as it
ends: taps (reading maps against copying them), mining (ResNet-50 against its bare forward pass, eager and compiled),
vit, batches (speed and memory by batch size), accumulators, files (from JPEGs), ascent, profile.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from importlib import import_module
from pathlib import Path

import torch

from benchmarks.gpu.setting import Setting

PARTS = {
    "taps": ("taps", "sweeps"),
    "mining": ("mining", "resnet"),
    "vit": ("mining", "vit"),
    "batches": ("mining", "batches"),
    "accumulators": ("mining", "accumulators"),
    "files": ("files", "end_to_end"),
    "ascent": ("ascent", "speed"),
    "profile": ("mining", "profile"),
    "launches": ("launches", "table"),
}
"""The file and function of each; imported when it is run, so that a part needs no more than it uses."""


def main() -> None:
    """Prints ratios of medians, and where a GPU is missing says so."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("parts", nargs="*", help=f"which, in this order; all by default: {' '.join(PARTS)}")
    words.add_argument("--device", default="cuda", help="cpu tries the benchmark itself")
    words.add_argument("--small", action="store_true", help="tiny sizes, to try the benchmark itself")
    words.add_argument("--rounds", type=int, default=5)
    words.add_argument("--batch-size", type=int, default=256)
    words.add_argument("--out", type=Path, help="a folder for figures as JSON and for profiles, written part by part")
    given = words.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        words.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if given.device == "cuda" and not torch.cuda.is_available():
        print("No GPU is at hand: nothing to measure here. `make bench` measures the CPU.")
        return
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    setting = Setting(device, given.small, given.rounds, 8 if given.small else given.batch_size, given.out)
    print(f"{date.today()}  torch {torch.__version__}, {name}, batches of {setting.batch_size}", flush=True)
    for part in given.parts or PARTS:
        start = time.perf_counter()
        file, function = PARTS[part]
        getattr(import_module(f"benchmarks.gpu.{file}"), function)(setting)
        print(f"  ({part}: {time.perf_counter() - start:.0f} s)", flush=True)
        if setting.out is not None:
            setting.out.mkdir(parents=True, exist_ok=True)
            (setting.out / "figures.json").write_text(json.dumps({"card": name, **setting.figures}, indent=1))


if __name__ == "__main__":
    main()
