"""`dictionary`: trains a dictionary on a layer of a finished run's network, over its dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actmine.commands.finished import mined_dataset
from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.dictionary import Dictionary
from actmine.pipeline.allocator import keep_freed_memory
from actmine.pipeline.errors import UserError
from actmine.pipeline.mined_network import mined_network
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.dictionary_layers import latents_of
from actmine.pipeline.run import open_run
from actmine.pipeline.spoken import LEFT_OPEN, command
from actmine.pipeline.stages.train_dictionary import TrainingSettings, train_dictionary
from actmine.pipeline.storage.files import readable_name

_TIMES = 8


def dictionary(options: Dictionary, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `dictionary`; its answer is what `--json` says."""
    keep_freed_memory()
    compute_exactly()
    opened = open_run(options.run, options.trust)
    network = mined_network(opened, options.weights, live.module, live.transform)
    traced = network.traced()
    layer = traced.choose(options.layer, bool(opened.record.get("dependent")))
    if len(layer) != 1:
        raise UserError(f"LAYER={options.layer} is {len(layer)} layers; a dictionary is of one.")
    its = latents_of(traced, layer[0], options.tokens)
    dataset = mined_dataset(opened, options.dataset, options.data, live, display)
    latents = options.latents or _TIMES * layer[0].units
    out = Path(options.out or f"{opened.path}/dictionaries/{readable_name(layer[0].name)}/{latents}")
    display.say(
        f"Training {latents:,} latents, {options.k} active at a position, on {layer[0].name} ({layer[0].units} units) "
        f"of {network.name}, from {options.vectors:,} vectors of {dataset.name}."
    )
    about = {
        "model_name": network.name, "hook_name": layer[0].name, "weights_hash": network.weights_hash,
        "dataset": dataset.fingerprint, "tokens": its.tokens or "all",
    }  # fmt: skip
    settings = TrainingSettings(latents, options.k, options.vectors, options.seed)
    told = train_dictionary(network, traced, its, dataset.shards, dataset.about, out, settings, about, display)
    where = "held out" if told["held_out"] else "of those it has learned from"
    display.say(
        f"It explains {told['explained_variance']:.1%} of the variance by {told['latents_per_position']:.1f} latents a "
        f"position ({told['vectors_measured']:,} vectors, {where}); {told['dead_share']:.1%} of its latents are dead."
    )
    asked = opened.record.get("asked", {})
    weights = options.weights or asked.get("weights")
    again = command(
        "mine", dataset=options.dataset or asked.get("dataset") or LEFT_OPEN, model=opened.record["model"],
        weights=weights, layers=layer[0].name, dictionary=f"{layer[0].name}={out}",
        run=opened.path,
    )  # fmt: skip
    display.say(f"Mine it: {again}")
    return {"folder": out, **told}
