"""Layers without positions are bars, heads have names of classes, the page the atlas's style, JSON the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.atlas.rendering import HERE
from actmine.pipeline.inspect.bars import bar_list
from actmine.pipeline.inspect.maps import Shown, class_names, show, standing_out
from actmine.pipeline.inspect.page import told
from actmine.pipeline.inspect.pictures import layer_sheet
from actmine.pipeline.naming import in_words
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.sheets.drawing import BAR, Drawing, Rectangle, Text
from tests.making import picture

SEEN = (10, 200, 30)


@pytest.fixture(scope="module")
def demo() -> Network:
    return load_network("demo")


@pytest.fixture(scope="module")
def shown(demo: Network, tmp_path_factory: pytest.TempPathFactory) -> list[Shown]:
    folder = tmp_path_factory.mktemp("shown")
    traced = Traced(demo.module, demo.input_shape)
    layers = traced.choose("block4.relu,classifier")
    for seed in (3, 8):
        picture(90, 70, seed).save(folder / f"{seed} %.png")
    return [show(folder / f"{seed} %.png", demo, traced, layers) for seed in (3, 8)]


def seen(maps: np.ndarray, scores: np.ndarray | None = None) -> Shown:
    """A picture of one colour, of which a layer `a` makes `maps` `[U, H, W]`."""
    image = Image.new("RGB", (64, 64), SEEN)
    return Shown("x.png", image.size, image, torch.zeros(1, 3, 64, 64), {"a": maps.astype(np.float32)}, scores)


def texts(blocks: list[Drawing]) -> list[str]:
    return [mark.text for block in blocks for mark in block.marks if isinstance(mark, Text)]


def test_a_linear_layer_a_pooled_one_and_a_class_token_have_no_positions(demo):
    pooled = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 5, 1), nn.Flatten())
    traced = Traced(pooled.eval(), (3, 8, 8))
    by_name = {layer.name: (layer.height or 1) * (layer.width or 1) for layer in traced.known()}
    assert by_name["1"] == 36 and by_name["3"] == 1
    for shape, some in (((4,), False), ((5, 1, 1), False), ((6, 1, 4), True), ((6, 4, 1), True)):
        maps = np.ones((*shape, 1, 1)[:3])
        assert seen(maps).has_positions("a") is some
        drawn = np.asarray(layer_sheet("a", [seen(maps)], standing_out([seen(maps)], "a", 24), {}, ""))
        assert bool((drawn == SEEN).all(-1).any()) is some  # lit pictures, or none


def test_bars_are_as_long_as_the_activations_and_have_the_names_of_the_head(demo, shown):
    names = class_names(shown[0], "classifier", demo.categories)
    assert names == [in_words(name) for name in demo.categories]
    (first, _), units = shown, standing_out(shown[:1], "classifier", 24)
    (block,) = bar_list(units, [first.name], names)
    bars = [mark for mark in block.marks if isinstance(mark, Rectangle) and mark.fill == BAR]
    wanted = np.sort(first.scores[first.scores > 0])[::-1][:24]
    lengths = np.array([bar.right - bar.left for bar in bars])
    assert np.allclose(lengths / lengths[0], wanted / wanted[0], atol=1e-3)
    said = texts([block])
    assert said[0] == in_words(demo.categories[int(first.scores.argmax())]) and said[1] == str(units[0].unit)
    two = bar_list(standing_out(shown, "classifier", 24), [each.name for each in shown], [])
    assert [each.name for each in shown] == texts(two)[:2] and any(text.startswith("unit ") for text in texts(two))


def test_only_what_gives_the_scores_has_the_names_of_classes():
    values, names = np.array([0.3, 2.0, -1.0]), ["cat", "dog", "hen"]
    flat = values[:, None, None]
    tensor = torch.tensor(values)
    for scores in (tensor, tensor.softmax(0), tensor.sigmoid()):
        assert class_names(seen(flat, scores.numpy()), "a", names) == names
    uneven = np.repeat(flat, 4, 2) + np.array([-1, 1, -2, 2])
    assert class_names(seen(uneven, values), "a", names) == names  # averaged behind it
    assert class_names(seen(flat, -values), "a", names) == []
    assert class_names(seen(flat, values), "a", names[:2]) == []
    assert class_names(seen(flat, values), "a", None) == []
    assert class_names(seen(flat), "a", names) == []


def test_a_script_is_told_each_units_activation_and_its_place_in_the_map(shown):
    units = standing_out(shown, "block4.relu", 5)
    said = told(shown, "block4.relu", units)
    assert [each["unit"] for each in said["units"]] == [each.unit for each in units]
    for each in said["units"]:
        for its, of in zip(each["pictures"], shown, strict=True):
            values = of.maps["block4.relu"][each["unit"]]
            assert its["activation"] == values.max() == values[its["y"], its["x"]] and its["picture"] == of.name
    flat = told(shown, "classifier", standing_out(shown, "classifier", 1))
    assert [(its["y"], its["x"]) for its in flat["units"][0]["pictures"]] == [(None, None)] * 2


def test_the_page_has_the_style_sheet_of_the_atlas_and_the_answer_every_layer(tmp_path):
    picture(90, 70, 3).save(tmp_path / "a.png")
    words = ["inspect", "--image", str(tmp_path / "a.png"), "--model", "demo", "--layers", "stem.relu,classifier"]
    words += ["--out", str(tmp_path / "out"), "--most", "3", "--no-attention", "--json"]
    answer = json.loads(CliRunner().invoke(application(["inspect"]), words).stdout)
    page = Path(answer["page"])
    assert (page.parent / "atlas.css").read_bytes() == (HERE / "static" / "atlas.css").read_bytes()
    text = page.read_text()
    assert '<link rel="stylesheet" href="atlas.css">' in text and "<style" not in text and "style=" not in text
    assert [each["layer"] for each in answer["layers"]] == ["stem.relu", "classifier"]
    assert [len(each["units"]) for each in answer["layers"]] == [3, 3] and answer["layers"][1]["units"][0]["label"]
    assert all(unquote(Path(name).name) in unquote(text) for name in answer["pictures"])
