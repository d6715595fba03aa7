"""The network that a run was mined with, loaded again by what `run.json` says; refused if it is another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from torch import nn

from actmine.pipeline.errors import UserError
from actmine.pipeline.network import factories
from actmine.pipeline.network.computation import alike, probe
from actmine.pipeline.network.dictionary_layers import GIVEN, Asked, attach, is_code, recorded
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.live_models import LIVE, network_of
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.network.weights import RANDOM
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from actmine.pipeline.run import Run
from actmine.pipeline.spoken import LEFT_OPEN, call
from actmine.pipeline.storage.files import is_local
from actmine.pipeline.trust import FIX


def mined_network(
    run: Run, weights: str = "", module: nn.Module | None = None, transform: Callable[..., Any] | None = None
) -> Network:
    """The network of `run`; `weights` says where its weights are now (empty: where they were).

    A `module` with its `transform` is taken as that network; one that was mined from a module needs it.

    Raises `UserError` where they are not there, where the network, what it computes, its weights or its preprocessing
    are not those that were mined, for code named by a run that is not `trusted`, and for code that lies inside the run.
    """
    written = run.record
    asked = written.get("asked", {})
    overrides = PreprocessingOptions(
        **{field.name: asked[field.name] for field in fields(PreprocessingOptions) if field.name in asked}
    )
    if module is not None:
        network = network_of(module, transform, overrides, written["model"])
    elif written["weights"] == LIVE:
        raise UserError(
            f"{run.path} was mined from a module in Python, {written['model']}, which no name loads again. Give it "
            f"there: {call('visualize', run=run.path, model=LEFT_OPEN, transform=LEFT_OPEN)}, say."
        )
    else:
        network = _loaded(run, weights or _weights(written), overrides)
    if network.weights_hash != written["weights_hash"]:
        raise UserError(
            f"{run.path} was mined with other weights than {network.weights} ({_short(written['weights_hash'])}, not "
            f"{_short(network.weights_hash)}): pictures of these would say nothing of its units. "
            f"WEIGHTS=… names the file that it was mined with ({written['weights']}), or mine a new RUN with these."
        )
    before = written.get("probe")
    now = probe(network.module, network.input_shape) if before else None
    if before and now and not alike(before, now):
        raise UserError(
            f"{written['model']} computes something else than when {run.path} was mined, of the same weights: its code "
            "has changed. Restore it, or mine a new RUN with this one."
        )
    if not _alike(network.preprocessing.described(), written["preprocessing"]):
        raise UserError(
            f"{written['model']} no longer makes its input of images as it did when {run.path} was mined, so that its "
            "units see something else. Restore its transform, or mine a new RUN."
        )
    return network


def mined_trace(run: Run, network: Network, given: Iterable[Asked] = ()) -> Traced:
    """The inside of the network of `run`, with the dictionaries that it was mined with; some may be `given` anew.

    Raises `UserError` where one is not there, or is another, and for code named by a run that is not `trusted`.
    """
    traced = network.traced()
    for each in recorded(run.record, given):
        name = f"{each.layer}:{each.name}"
        if each.what == GIVEN:
            raise UserError(
                f"{run.path} was mined with a dictionary in Python, {name}, which no file loads again. Give it there: "
                f"{call('visualize', run=run.path, dictionary=LEFT_OPEN)}, say."
            )
        if isinstance(each.what, str) and is_code(each.what):
            _refuse_code_of_others(run, each.what)
        attach(traced, [each])
        if traced.dictionaries[name].digest() != run.record["dictionaries"][name]["digest"]:
            raise UserError(
                f"{run.path} was mined with another dictionary {name} than {each.what} is now: pictures of this one "
                "would say nothing of its units. Restore it."
            )
    return traced


def _loaded(run: Run, weights: str, overrides: PreprocessingOptions) -> Network:
    """The network by its name."""
    written = run.record
    _refuse_code_of_others(run, written["model"])
    try:
        return load_network(written["model"], weights, overrides)
    except UserError as error:
        raise UserError(
            f"The network of {run.path} cannot be loaded again. {error} "
            f"It was {written['model']} with the weights {weights or written['weights']}: WEIGHTS=… says where they "
            "are."
        ) from error


def _refuse_code_of_others(run: Run, model: str) -> None:
    """Nothing is imported here that the user has not chosen: a run says of itself whose code makes its network."""
    if not factories.is_factory(model):
        return
    if not run.trusted:
        raise UserError(
            f"The network of {run.path} is made by code, {model}: that is not imported, as it is not a run that you "
            f"mined here. {FIX}"
        )
    if is_local(run.path):
        factories.refuse_inside(model, run.path)


def _weights(written: dict[str, Any]) -> str:
    """WEIGHTS as they were asked for; runs of versions before have only what came of it."""
    if "weights" in written.get("asked", {}):
        return str(written["asked"]["weights"])
    known = {RANDOM: "random", "trained on the demo": ""}
    return known.get(written["weights"], written["weights"])


def _alike(now: dict[str, Any], then: dict[str, Any]) -> bool:
    """Whether two preprocessings are the same; runs of versions before describe theirs in fewer words."""
    now = {name: value for name, value in now.items() if name in then or name != "order"}
    return now == then if "steps" in then else all(now[name] == then[name] for name in now.keys() & then.keys())


def _short(digest: str) -> str:
    return digest[:12]
