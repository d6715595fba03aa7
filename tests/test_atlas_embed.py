"""A unit as HTML for another page: it holds all that it shows, asks for nothing, and names cannot break out of it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actmine.pipeline.atlas.embed import CROP_SIDE, MOST_BYTES, SHOWN, snippet
from actmine.pipeline.run import open_run
from tests.atlas_tables import DEAD, NAMES, PLAIN, SCRIPT, TOPK, activation_of, write_run

TAGS = {"figure", "div", "img", "small", "b", "bdi", "p", "figcaption", "code"}
ATTRIBUTES = {"style", "src", "alt", "width", "height"}


class Parts(HTMLParser):
    """What a piece of HTML is made of, by a parser that is not ours."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == [], "every element ends"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("embed"), extra=True)


@pytest.mark.parametrize("layer", NAMES)
def test_it_is_plain_elements_that_ask_for_nothing(run, layer):
    for unit in (0, 3, 4, 9):
        text = snippet(open_run(run), layer, unit)
        parts = Parts(text)
        assert text.isascii() and len(text) <= MOST_BYTES and parts.tags[0][0] == "figure"
        assert {tag for tag, _ in parts.tags} <= TAGS
        assert {name for _, its in parts.tags for name in its} <= ATTRIBUTES
        assert all(its["src"].startswith("data:image/") and its["alt"] for tag, its in parts.tags if tag == "img")
        assert not [
            its for _, its in parts.tags if re.search(r"url|import|expression|:\s*//", its.get("style", ""), re.I)
        ]
        assert layer in parts.words and f"pictures {SCRIPT}" in parts.words


def test_its_pictures_are_the_units_in_their_order_with_what_each_drives_it_to(run):
    parts = Parts(snippet(open_run(run), PLAIN, 2))
    shown = [its for tag, its in parts.tags if tag == "img"]
    crops = [its for its in shown if not its["alt"].startswith("visualization")]
    assert [f"activation {activation_of(2, rank):.3g}" in its["alt"] for rank, its in enumerate(crops)] == [True] * TOPK
    for rank, its in enumerate(crops):
        image = Image.open(io.BytesIO(base64.b64decode(its["src"].partition(";base64,")[2]))).convert("RGB")
        stored = open_run(run).crop(open_run(run).exemplars(PLAIN, 2).iloc[rank])
        assert image.size == stored.size and max(image.size) <= CROP_SIDE
        assert np.abs(np.asarray(image, float) - np.asarray(stored.convert("RGB"), float)).mean() < 3
    assert "the 4 strongest of 6 images" in " ".join(parts.words.split()) and "0123" in parts.words


def test_a_unit_that_never_fires_says_so_and_one_that_is_not_there_is_none(run):
    assert "No image drives it above zero" in Parts(snippet(open_run(run), PLAIN, 4)).words
    assert not [tag for tag, _ in Parts(snippet(open_run(run), DEAD, 1)).tags if tag == "script"]
    with pytest.raises(KeyError):
        snippet(open_run(run), PLAIN, 99)


def test_it_stays_small_whatever_the_pictures_and_names_are(run, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    monkeypatch.setattr("actmine.pipeline.atlas.embed.stored_picture", lambda *_: data.getvalue())
    opened = open_run(run)
    opened.record.update(model="m" * 100_000, dataset="&" * 100_000, fingerprint="f" * 100_000)
    text = snippet(opened, PLAIN, 2)
    assert 50_000 < len(text) <= MOST_BYTES and 0 < text.count("<img") <= SHOWN + 1


def test_a_picture_that_is_damaged_or_gone_is_left_out(run, monkeypatch):
    for given in (None, b"", b"<svg/>", b"\x89PNG broken"):
        monkeypatch.setattr("actmine.pipeline.atlas.embed.stored_picture", lambda *_, given=given: given)
        assert "No pictures of its exemplars are at hand" in Parts(snippet(open_run(run), PLAIN, 2)).words
