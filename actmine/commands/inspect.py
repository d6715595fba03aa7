"""`inspect`: what every layer of a network makes of one picture, or of two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actmine.commands.live import NOTHING_LIVE, Live
from actmine.console import Display
from actmine.options.inspect import Inspect
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError
from actmine.pipeline.inspect.attention import class_attention
from actmine.pipeline.inspect.maps import Shown, find_class, show
from actmine.pipeline.inspect.page import Sheet, layer_sheets, save, write_page
from actmine.pipeline.inspect.pictures import attention_sheet
from actmine.pipeline.mined_network import mined_network, mined_trace
from actmine.pipeline.naming import in_words
from actmine.pipeline.network.devices import compute_exactly
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network
from actmine.pipeline.preprocessing.sight import padding_warning, sight
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import readable_name


def inspect(options: Inspect, display: Display, live: Live = NOTHING_LIVE) -> dict[str, Any]:
    """Carries out `inspect`; its answer is what `--json` says."""
    compute_exactly()
    opened = open_run(options.run, options.trust) if options.run else None
    named = options.model or live.module is not None
    if opened is not None and options.model:
        raise UserError(f"Say RUN or MODEL: the network of {opened.path} is {opened.record['model']}.")
    if opened is None and not named:
        raise UserError("MODEL is empty: say which network (MODEL=resnet50), or RUN=… for that of a run.")
    network = (
        live.network(options.model, options.weights)
        if opened is None
        else mined_network(opened, options.weights, live.module, live.transform)
    )
    traced = network.traced() if opened is None else mined_trace(opened, network, live.latents())
    patterns = options.layers
    if opened is not None:
        patterns = ",".join(choose_layers(opened, [word.strip() for word in options.layers.split(",") if word.strip()]))
    chosen = traced.choose(patterns, opened is not None and bool(opened.record.get("dependent")))
    shown = [
        show(path, network, traced, chosen)
        for path in (options.image, *([Path(options.other)] if options.other else []))
    ]
    about = [f"Seen by {network.name} ({network.weights}). {sight(network.preprocessing)}"]
    if warning := padding_warning(network.preprocessing, [each.size for each in shown]):
        about.append(warning)
    for sentence in about:
        display.say(sentence)
    named = f"{readable_name('-'.join(each.name for each in shown))}-{readable_name(network.name)}"
    folder = Path(options.out or f"inspections/{named}")
    sheets: list[Sheet] = []
    if options.attention:
        sheets += _attention(folder, shown, network, traced, options.class_, about, display)
    with display.stage("Drawing layers", len(chosen), "layers") as advance:
        for sheet in layer_sheets(folder, shown, chosen, options.most, opened, network.categories):
            sheets.append(sheet)
            advance(1)
    page = write_page(folder, shown, sheets, about)
    display.say(f"{len(sheets)} pictures and the page {page}.")
    layers = [sheet.told for sheet in sheets if sheet.told]
    return {"page": page, "pictures": [sheet.path for sheet in sheets], "layers": layers, "about": about}


def _attention(
    folder: Path, shown: list[Shown], network: Network, traced: Traced, word: str, about: list[str], display: Display
) -> list[Sheet]:
    """The sheet of class attention, or a sentence on why there is none."""
    found, titles, layer = [], [], ""
    for each in shown:
        if each.scores is None:
            if word:
                raise UserError(
                    f"{network.name} ({network.weights}) gives no scores of classes but {each.output}: "
                    "leave --class out."
                )
            why = "the weights lack parts of the network" if network.missing else f"the network gives {each.output}"
            display.say(f"No class attention: {why}, not scores of classes.")
            return []
        target = find_class(word, each.scores, network.categories)
        names = network.categories
        name = in_words(names[target] if names and target < len(names) else None, target)
        values, layer = class_attention(traced, each.input, target)
        found.append(values)
        titles.append(name)
        about.append(f"{each.name}: {name}, a score of {each.scores[target]:.2f}.")
    path = save(folder / "attention.png", attention_sheet(shown, found, titles, layer))
    return [Sheet(path, "What decides for the class", f"Class attention for {', '.join(titles)}")]
