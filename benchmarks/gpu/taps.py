"""Reading maps once against copying them: bytes of the map a second, as shares of what a copy reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from actmine.pipeline.readings.reductions import read_map, read_rows
from actmine.pipeline.readings.tap_operator import read_once, reads_once
from benchmarks.gpu.kernels import MAPS, TOKENS
from benchmarks.gpu.kernels import chains as all_chains
from benchmarks.gpu.setting import Setting

TILES = ((256, 1, 8, 1), (256, 2, 4, 2), (256, 4, 4, 4), (256, 8, 4, 8), (128, 4, 8, 2), (64, 16, 4, 4))
"""Units, places across, rows and warps that are tried beside the tile that is taken."""
BAR = 0.80


def sweeps(setting: Setting) -> None:
    """A line for each map, channels last, a few contiguous, and tokens; bf16."""
    print("reading a map, GB/s of the map read (copy: read and written)")
    for channels, side in MAPS[-2:] if setting.small else MAPS:
        image = torch.randn(setting.batch_size, channels, side, side, device=setting.device, dtype=torch.bfloat16)
        _line(setting, image.to(memory_format=torch.channels_last), "channels_last")
        if channels in (64, 1024):
            _line(setting, image, "contiguous")
    for units, tokens in TOKENS[:1] if setting.small else TOKENS:
        values = torch.randn(setting.batch_size, tokens, units, device=setting.device, dtype=torch.bfloat16)
        _line(setting, values.transpose(1, 2).unsqueeze(3), "tokens")


def _captured(way: Callable[[], object]) -> Callable[[], object]:
    """As a CUDA graph, as the scan runs it: without what launching costs."""
    with torch.inference_mode():
        way()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            way()
    return graph.replay


def _line(setting: Setting, image: Tensor, kind: str) -> None:
    other = torch.empty_like(image)
    ways: dict[str, Callable[[], object]] = {"copy": partial(other.copy_, image), "amax": partial(image.amax, (2, 3))}
    if reads_once(image):
        from actmine.pipeline.readings.tap_kernel import Tile, sweep

        ways["tap"] = partial(read_once, image)
        marks = torch.arange(len(image), device=setting.device)
        ways |= {"both": partial(read_once, image, None, True), "sample": partial(read_once, image, marks, False, True)}
        ways["counts"] = partial(read_once, image, torch.zeros_like(marks), False, False, True)
        ways["rows"] = partial(read_rows, image)
        ways |= {"/".join(map(str, tile)): partial(sweep, image, tile=Tile(*tile)) for tile in TILES}
    else:
        ways["tap"] = partial(read_map, image)
    if setting.cuda:
        ways = {name: _captured(way) for name, way in ways.items()}
    timings = setting.timed(ways, 10)
    speed = {name: 10 * image.nbytes / timing.median / 1e9 for name, timing in timings.items()}
    share = speed["tap"] / (2 * speed["copy"])
    shown = ", ".join(f"{name} {value:.0f}" for name, value in speed.items() if "/" not in name and name != "copy")
    print(
        f"  {list(image.shape)} {kind}: copy {2 * speed['copy']:.0f}, {shown}; "
        f"tap / copy {share:.2f} {setting.judged(f'tap / copy, {list(image.shape)} {kind}', share, BAR)}"
    )
    if tried := {name: value for name, value in speed.items() if "/" in name}:
        print("    " + ", ".join(f"{name} {value:.0f}" for name, value in tried.items()), flush=True)
    setting.keep("taps", **{f"{list(image.shape)} {kind} {name}": round(value, 1) for name, value in speed.items()})


def chains(setting: Setting) -> None:
    """What networks have behind convolutions, with its taps, in one sweep: bytes moved a second against a copy."""
    from actmine.pipeline.readings.tap_kernel import Tile

    if not setting.cuda:
        print("chains in one sweep are for GPUs")
        return
    print("chains in one sweep, GB/s read and written, and as a share of a copy's")
    image = torch.empty(setting.batch_size, 256, 56, 56, device=setting.device, dtype=torch.bfloat16)
    copy = _captured(partial(torch.empty_like(image).copy_, image))
    seconds = setting.timed({"copy": copy}, 10)["copy"].median / 10
    fastest = 2 * image.nbytes / seconds / 1e9
    print(f"  copy {fastest:.0f}", flush=True)
    whole = floor = 0.0
    for name, times, size, call in all_chains(setting.batch_size, setting.device):
        tried = TILES[1:4] if "1010" in name or "gelu" in name else ()
        ways = {"taken": call} | {"/".join(map(str, tile)): partial(call, tile=Tile(*tile)) for tile in tried}
        timings = setting.timed({way: _captured(run) for way, run in ways.items()}, 10)
        speed = {way: 10 * size / timing.median / 1e9 for way, timing in timings.items()}
        whole += times * size / speed["taken"] / 1e6
        floor += times * size / fastest / 1e6
        others = ", ".join(f"{way} {value:.0f}" for way, value in speed.items() if way != "taken")
        print(f"  {name:<44}{speed['taken']:7.0f}  {speed['taken'] / fastest:.2f}  {others}", flush=True)
        setting.keep("chains", **{f"{name} {way}": value for way, value in speed.items()})
    print(f"  all of both networks: {whole:.2f} ms a batch, {floor:.2f} at the speed of a copy", flush=True)
