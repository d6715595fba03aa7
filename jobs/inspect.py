"""`inspect`: what every layer of a network makes of one picture, or of two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Display
from jobs.options import MODEL_HELP, WEIGHTS_HELP, Json, Layers, Quiet, Trust
from pipeline.choose import choose_layers
from pipeline.errors import UserError
from pipeline.inspect.attention import class_attention
from pipeline.inspect.maps import Shown, find_class, show
from pipeline.inspect.page import Sheet, layer_sheets, save, write_page
from pipeline.inspect.pictures import attention_sheet
from pipeline.mined_network import mined_network
from pipeline.naming import in_words
from pipeline.network.devices import compute_exactly
from pipeline.network.layers import Traced
from pipeline.network.models import Network, check_name, load_network
from pipeline.run import open_run
from pipeline.storage.files import readable_name


def inspect(
    image: Annotated[Path, typer.Option(help="The picture.")],
    other: Annotated[str, typer.Option(help="Another one, to compare: the same units of both, side by side.")] = "",
    run: Annotated[
        str, typer.Option(help="A finished run: its network, its units' own pictures and strongest images.")
    ] = "",
    model: Annotated[str, typer.Option(help=f"Without a run. {MODEL_HELP}")] = "",
    weights: Annotated[str, typer.Option(help=WEIGHTS_HELP)] = "",
    layers: Layers = "",
    most: Annotated[int, typer.Option(min=1, help="Units shown of each layer.")] = 24,
    attention: Annotated[bool, typer.Option(help="Grad-CAM: where in the picture a class is decided.")] = True,
    class_: Annotated[
        str, typer.Option("--class", help="Whose: a name or a number. Default: the class that the network predicts.")
    ] = "",
    out: Annotated[str, typer.Option(help="Folder to write to. Default: inspections/IMAGE-MODEL.")] = "",
    trust: Trust = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Shows a picture to a network, and what every layer makes of it: the units that stand out, lit where they fire.

    With a run, units are chosen by how far they are above their mean over its dataset, and stand beside their own
    visualization and strongest images. One PNG for each layer, and a page with all of them: OUT/index.html.

    Examples:
    inspect --image dog.jpg --model resnet50 --layers 'layer4.*'

    inspect --image dog.jpg --other wolf.jpg --run runs/imagenet-val-resnet50 --layers 'layer4.*'

    inspect --image dog.jpg --model resnet50 --class 'golden retriever'
    """
    display = Display(quiet or as_json)
    compute_exactly()
    opened = open_run(run, trust) if run else None
    if opened is not None and model:
        raise UserError(f"Say RUN or MODEL: the network of {opened.path} is {opened.record['model']}.")
    if opened is None and not model:
        raise UserError("MODEL is empty: say which network (MODEL=resnet50), or RUN=… for that of a run.")
    if opened is None:
        check_name(model)
    network = mined_network(opened, weights) if opened else load_network(model, weights)
    traced = network.traced()
    patterns = layers
    if opened is not None:
        patterns = ",".join(choose_layers(opened, [word.strip() for word in layers.split(",") if word.strip()]))
    chosen = traced.choose(patterns, opened is not None and bool(opened.record.get("dependent")))
    shown = [show(path, network, traced, chosen) for path in (image, *([Path(other)] if other else []))]
    folder = Path(
        out or f"inspections/{readable_name('-'.join(each.name for each in shown))}-{readable_name(network.name)}"
    )
    about = [f"Seen by {network.name} ({network.weights})."]
    sheets: list[Sheet] = []
    if attention:
        sheets += _attention(folder, shown, network, traced, class_, about, display)
    with display.stage("Drawing layers", len(chosen), "layers") as advance:
        for sheet in layer_sheets(folder, shown, chosen, most, opened):
            sheets.append(sheet)
            advance(1)
    page = write_page(folder, shown, sheets, about)
    display.say(f"{len(sheets)} pictures and the page {page}.")
    if as_json:
        display.answer(
            page=page, pictures=[sheet.path for sheet in sheets], layers=[layer.name for layer in chosen], about=about
        )


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
