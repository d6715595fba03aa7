"""Whether a run compiles its network: as it was told, as the run was begun, or when that pays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.devices import let_go
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.progress import Progress
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.scanning.compute import Compute, Runner

PAYS_FROM = {"cpu": 5e14, "cuda": 1e17}
"""Operations of a scan from which on it saves more than compiling takes."""


def decide(
    word: str,
    network: TappedNetwork,
    preprocessing: Preprocessing,
    how: Compute,
    images: int,
    begun: dict[str, Any] | None,
    progress: Progress,
    here: bool,
) -> Compute:
    """`how`, with `compiled` as `word` (1, 0 or auto) has it.

    auto goes on as the run was `begun` (its identity). A new run compiles if about so many `images` through this
    network make it worth while and, where the work is done `here`, in this process, if the network can
    be compiled at all; else one line says why not. Raises `UserError` for another word.
    """
    if word not in ("auto", "0", "1"):
        raise UserError(f"COMPILE={word!r} is auto, 0 or 1.")
    if network.dependent:
        if word == "1":
            raise UserError(
                f"COMPILE=1 fills the last batch of a shard up with black, which layers would see that depend on their "
                f"batch: {network.dependent[0]}, to begin with. Say COMPILE=0, or choose LAYERS without them."
            )
        return replace(how, compiled=False)
    if word != "auto":
        return replace(how, compiled=word == "1")
    if begun is not None:
        return replace(how, compiled=bool(begun.get("compiled")))
    work = images * operations(network, preprocessing)
    if work < PAYS_FROM.get(how.device.type, float("inf")):
        return how
    compiled = replace(how, compiled=True)
    progress.say(f"Compiling the network, since some {images:,} images are worth it (COMPILE=0 leaves it as it is).")
    if here:
        try:
            Runner(network, preprocessing, compiled, usable_cores())
        except UserError as error:
            progress.say(f"Going on without: {error}")
            return how
        finally:
            let_go()
    return compiled


def operations(network: TappedNetwork, preprocessing: Preprocessing) -> int:
    """Floating-point operations of one image's way through the network, a multiply-add counted as two."""
    image = torch.zeros(1, preprocessing.channels, *preprocessing.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()
