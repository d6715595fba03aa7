"""Mines a dataset: what is asked for is checked, what is there already is looked at, and the rest is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from actmine.pipeline import record
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.engines.engine import Engine
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.dictionary_layers import rectified_spans
from actmine.pipeline.network.layers import Layer, Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.preprocessing.device_decode import check_decodable
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields
from actmine.pipeline.scanning.compiling import decide
from actmine.pipeline.scanning.compute import Compute
from actmine.pipeline.scanning.ledger import Ledger, begun
from actmine.pipeline.scanning.limits import check_fits, say_size, settled
from actmine.pipeline.scanning.scan import ScanSettings
from actmine.pipeline.stages.first_look import first_look
from actmine.pipeline.stages.fitting import NamedTooLarge, fitting
from actmine.pipeline.stages.growth import PART, Growth, fold, growth, layers_of, settle, stale
from actmine.pipeline.stages.mined_run import mined
from actmine.pipeline.stages.mining import MineSettings, Mining
from actmine.pipeline.storage.files import alone, is_local, remove_files
from actmine.pipeline.trust import remember


def mine(
    dataset: Dataset,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    run: Path,
    device: torch.device,
    settings: MineSettings = MineSettings(),
    progress: Progress = Silent(),
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Mines `layers` over `dataset` into the tables of `run` and returns its record.

    `engine` does the work, this process on `device` if there is none; of an `engine` the device counts that it has.
    What an interrupted call had committed is kept. Raises `UserError` for a run begun with other settings, for
    weights that lack what the layers need, and for more skipped samples than `settings.max_skipped`.
    """
    engine = engine or LocalEngine(device, settings.workers)
    if is_local(run) and any(os.path.abspath(run) == shard.url for shard in dataset.shards):
        raise UserError(f"RUN={run} is the folder of the images: its own pictures would be mined too. Say another RUN.")
    written = _mine(dataset, network, traced, layers, run, settings, progress, engine)
    remember(run, written, (shard.url for shard in dataset.shards))
    return written


def _mine(
    dataset: Dataset,
    network: Network,
    traced: Traced,
    layers: Sequence[Layer],
    run: Path,
    settings: MineSettings,
    progress: Progress,
    engine: Engine,
) -> dict[str, Any]:
    device = engine.device
    if settings.decoder != "pillow" and device.type != "cuda":
        raise UserError(f"--decoder {settings.decoder} decodes on an NVIDIA GPU, not on {device.type}. Leave it out.")
    if settings.decoder != "pillow":
        check_decodable(network.preprocessing)
        if settings.keep.unique:
            raise UserError("UNIQUE looks at images that Pillow decodes. Leave --decoder nvjpeg out.")
    units = sum(layer.units for layer in layers)
    keep = replace(
        settings.keep, density=any(layer.latents for layer in layers), rectified=rectified_spans(traced, layers)
    )
    settings = replace(settings, keep=settled(keep, units, dataset.about, is_local(run)))
    check_fits(units, settings.keep, progress)
    say_size(settings.keep, units, dataset.about, progress)
    tapped = TappedNetwork(traced, layers, settings.keep.minima, settings.keep.positions, settings.keep.ignore_norm)
    _check_weights(network, tapped)
    subject = Subject(network, traced, layers)
    before, here = begun(run), isinstance(engine, LocalEngine)
    how = Compute(device, settings.precision)
    trial = ScanSettings(network.preprocessing, settings.keep, how)
    how = replace(how, batch_size=fitting(settings.batch_size, subject, trial, before, engine, progress))
    how = decide(settings.compile, tapped, network.preprocessing, how, dataset.about, before, progress, here)
    its = settings
    known = record.identity(dataset, network, traced, layers, its.keep, how, its.decoder, its.pictures, its.maps)
    known |= {"label_tree": its.tree.fingerprint} if its.tree and its.keep.labels else {}
    settle(run)
    if (grown := growth(run, known)) is not None:
        if grown.layers:
            return _grow(dataset, network, traced, grown, run, settings, progress, engine)
        known |= grown.held
    written = mined(run, Ledger(run, known), progress)
    if written is not None:
        return written
    with alone(run, progress.say):
        # again: whoever we waited for may have begun the run, with batches of another size, or ended it
        if before is None and not settings.batch_size and (theirs := begun(run)) is not None:
            how = replace(how, batch_size=int(theirs.get("batch_size", how.batch_size)))
            known["batch_size"] = how.batch_size
        ledger = Ledger(run, known)
        written = mined(run, ledger, progress)
        if written is not None:
            return written
        look = first_look(dataset, network, traced, layers, settings.least_explained, progress)
        fields = receptive_fields(traced, layers)
        job = Mining(dataset, subject, run, engine, settings, how, progress, ledger, fields, look)
        try:
            return job.go(known)
        except UserError:
            written = mined(run, ledger, progress)  # where nothing locks, another may end it and clear our state
            if written is None:
                raise
            return written


def _grow(
    dataset: Dataset,
    network: Network,
    traced: Traced,
    grown: Growth,
    run: Path,
    settings: MineSettings,
    progress: Progress,
    engine: Engine,
) -> dict[str, Any]:
    """Mines what a finished run lacks beside it, and takes it in."""
    has, more = grown.before["layers"], grown.topk > grown.before["topk"]
    lacking = [name for name in grown.layers if name not in has]
    if more:
        progress.say(
            f"{run} keeps {grown.before['topk']} exemplars of each unit, and is to keep {grown.topk}: which images "
            f"come next is not known, so {len(grown.layers)} layers are scanned."
        )
    else:
        progress.say(f"Adding {len(lacking)} layers to {run}, which has {len(has)}.")
    layers = layers_of(traced, grown.layers, bool(grown.before.get("dependent")))
    keep = replace(settings.keep, topk=grown.topk)
    compiled, size = "1" if grown.before["compiled"] else "0", int(grown.before["batch_size"])
    settings = replace(settings, keep=keep, compile=compiled, batch_size=size)
    part = run / PART
    wanted = {"layers": [layer.name for layer in layers], "topk": grown.topk}
    if stale(part, wanted):
        remove_files(path for path in part.rglob("*") if path.is_file())
    try:
        written = _mine(dataset, network, traced, layers, part, settings, progress, engine)
    except NamedTooLarge as error:
        raise UserError(
            f"{run} was begun with batches of {size} images, which no longer fit in the GPU's memory. "
            f"Choose another RUN with --batch-size {error.size}."
        ) from error
    with alone(run, progress.say):
        return fold(run, grown, traced, written, progress)


def _check_weights(network: Network, tapped: TappedNetwork) -> None:
    lacking = sorted(tapped.parameter_names() & network.missing)
    if lacking:
        raise UserError(
            f"WEIGHTS {network.weights} lacks {', '.join(lacking[:6])}{' …' if len(lacking) > 6 else ''}, "
            "which the chosen layers need. Choose LAYERS below them (LAYERS='features.*', say) or complete weights."
        )
