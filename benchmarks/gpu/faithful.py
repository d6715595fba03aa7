"""Whether what rises on a device is as faithful as on a CPU: the units of the demo's network, on its images."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import torch

from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.visualize import visualize_run
from benchmarks.faithfulness import drawn
from benchmarks.gpu.setting import Setting

BAR = 0.99  # of what a CPU reaches
SMALL = "block2.*"


def ascent(setting: Setting) -> None:
    """Units that reach the dataset's maximum, and that suit their own unit best, on the device and on the CPU."""
    network = load_network("demo")
    traced = network.traced()
    layers = traced.choose(SMALL if setting.small else "")
    found: dict[str, pd.DataFrame] = {}
    with TemporaryDirectory(prefix="actmine-demo-") as folder:
        run = Path(folder) / "run"
        settings = MineSettings(StatisticsOptions(9, maxima="none"), setting.batch_size, maps=0)
        mine(find_dataset("demo"), network, traced, layers, run, setting.device, settings)
        for device in (torch.device("cpu"), setting.device):
            copied = shutil.copytree(run, Path(folder) / f"drawn-{len(found)}")
            engine = LocalEngine(device)
            visualize_run(copied, network, traced, layers, find_preset("default"), device, engine=engine)
            its = drawn(open_run(copied), "default", [layer.name for layer in layers])
            found["device" if found else "cpu"] = its[its.firing_rate > 0]
    print(f"ascent, default recipe, {len(found['cpu']):,} units of the demo that fire")
    reached = {
        where: (float((its.ratio >= 1).mean()), float((its["rank"] == 0).mean())) for where, its in found.items()
    }
    for number, what in enumerate(("reach the dataset's maximum", "suit their own unit best")):
        here, there = reached["cpu"][number], reached["device"][number]
        bar = setting.judged(f"{what}, share of the CPU's", there / here, BAR)
        print(f"  {what}: {there:.1%} on {setting.device.type}, {here:.1%} on the CPU {bar}", flush=True)
        setting.keep("faithful", **{f"{what} {where}": shares[number] for where, shares in reached.items()})
