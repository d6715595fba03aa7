"""Exported pages: every address leads to a file that is there, the pictures are the tables', nothing else is harmed."""

from __future__ import annotations

import base64
import io
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application as commands
from actmine.pipeline.atlas.export import MARKER, export
from actmine.pipeline.atlas.exported_files import part_of
from actmine.pipeline.atlas.links import Picture, segments
from actmine.pipeline.atlas.pictures import Wholes, stored_picture
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Silent
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import image_column, read_rows, write_rows
from actmine.schemas.exemplars import EXEMPLARS
from actmine.schemas.maps import MAPS
from actmine.schemas.pictures import PICTURES
from tests.atlas_tables import DEAD, HEBREW, KEYS, NAMES, PLAIN, SCRIPT, SIZE, TOPK, WIDTH, WILD, number_of, write_run
from tests.making import picture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_run(tmp_path_factory.mktemp("atlas"), extra=True).parent
    export(open_run(root / "run", trust=True), str(root / "site"), [])
    return root


_ADDRESSED = ("href", "src", "data-whole", "data-heat", "data-orders", "action")


def targets(page: Path) -> set[Path]:
    """The files that a page refers to; its data addresses must be pictures."""
    found = set()
    for address in Addresses(page).found:
        if address.startswith("data:"):
            Image.open(io.BytesIO(base64.b64decode(address.partition(";base64,")[2]))).verify()
            continue
        parts = urlsplit(address)
        assert not parts.scheme and not parts.netloc and not parts.path.startswith("/")
        found.add((page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve())
    return found


class Addresses(HTMLParser):
    """All that a page refers to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.cuts = 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "svg" and any(name == "aria-label" and (value or "").startswith("crop of") for name, value in attrs):
            self.cuts += 1
        self.found |= {value or "" for name, value in attrs if name in _ADDRESSED}


def test_every_address_of_every_page_is_a_file_below_the_folder(root):
    site = root / "site"
    pages = list(site.rglob("*.html"))
    for page in pages:
        assert all(target.is_relative_to(site.resolve()) and target.is_file() for target in targets(page)), page
    units = [page for page in pages if page.stem.isdigit() and page.parent.parent.name == "layer"]
    assert len(units) == len(NAMES) * WIDTH
    assert len(list((site / "image").iterdir())) == len(KEYS)


def test_exported_pictures_are_the_tables_own_bytes(root):
    row = read_rows(table_file(root / "run", "exemplars", PLAIN)).to_pylist()[2 * TOPK + 1]
    assert row["crop"]["bytes"] in [file.read_bytes() for file in (root / "site" / "picture").iterdir()]
    assert Image.open(io.BytesIO(next((root / "site" / "whole").iterdir()).read_bytes())).size


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of a run whose crops are parts of its images, with maps of the first exemplars."""
    root = tmp_path_factory.mktemp("regions")
    run = write_run(root)
    kept = image_column([(root / "photos" / f"{number}.png").read_bytes() for number in range(len(KEYS))]).to_pylist()
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"pictures": "original"}))
    size = dict(zip(("width", "height"), SIZE, strict=True))
    write_rows(run / "pictures.parquet", PICTURES, [
        size | {"image_id": number, "picture": cell} for number, cell in enumerate(kept)
    ])  # fmt: skip
    for name in NAMES:
        path = table_file(run, "exemplars", name)
        rows = read_rows(path)
        write_rows(path, EXEMPLARS, [row | {"crop": None} for row in rows.to_pylist()])
        heat = dict.fromkeys(MAPS.names) | {"layer": name, "rank": 0, "band": "top", "height": 3, "width": 4,
                "cell_height": 1, "cell_width": 1, "low": 0.0, "high": 9.0, "map": bytes(range(0, 240, 20)),
                "map_left": 0.0, "map_top": 0.0, "map_right": float(SIZE[0]), "map_bottom": float(SIZE[1])}  # fmt: skip
        maps = [heat | {"unit": unit, "image_id": number_of(unit, 0)} for unit in range(WIDTH)]
        write_rows(table_file(run, "maps", name), MAPS, maps)
    export(open_run(run, trust=True), str(root / "site"), [])
    return root


def test_an_export_has_a_file_a_page_and_a_file_an_image_and_no_other(regions):
    site = regions / "site"
    files = {path.resolve() for path in site.rglob("*") if path.is_file()}
    shown = set().union(*map(targets, site.rglob("*.html")))
    assert files == shown | {(site / MARKER).resolve()}
    pages, drawings, orders = 3 + len(NAMES) * (1 + WIDTH) + len(KEYS), WIDTH - 1, len(NAMES)
    assert len(files) == pages + len(KEYS) + drawings + orders + len(
        ("css", "js", "keys.js", "key-table.js", "svg", "search.js", MARKER)
    )
    cuts = [Addresses(page).cuts for page in (site / "layer" / segments(NAMES)[PLAIN]).glob("*.html")]
    assert min(cuts) >= TOPK
    wholes = sum(path.stat().st_size for path in (site / "whole").iterdir())
    crops = sum(len(_png(picture(*SIZE, seed=number))) for number in range(len(KEYS)))
    assert wholes <= 1.2 * crops


def _png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_a_part_of_an_image_is_the_box_of_its_exemplar(regions):
    run = open_run(regions / "run", trust=True)
    queries = Queries(run)
    image, size, box = part_of(queries, Wholes(queries), Picture(PLAIN, 2, "crop", ("1",))) or (None, None, None)
    assert (image, size, box) == (number_of(2, 1), SIZE, (12, 20, 43, 51))
    exported = Image.open(next((regions / "site" / "whole").glob(f"{image}.*")))
    served = Image.open(io.BytesIO(stored_picture(queries, Picture(PLAIN, 2, "crop", ("1",))) or b""))
    wanted = np.asarray(served, float)

    def off(by: int) -> float:
        """How far the part of the exported image is from the crop, `by` pixels beside its box."""
        return float(np.abs(np.asarray(exported.crop(tuple(side + by for side in box)), float) - wanted).mean())

    assert off(0) < 4 and 2 * off(0) < min(off(-3), off(3))


def test_what_is_planned_is_said_and_is_about_what_is_written(regions, tmp_path):
    run, said = open_run(regions / "run", trust=True), Heard()
    written = export(run, str(tmp_path / "site"), [], said)
    files = [path for path in (tmp_path / "site").rglob("*") if path.is_file()]
    assert (written.files, written.nbytes) == (len(files), sum(path.stat().st_size for path in files))
    (sentence,) = said.sentences
    assert f"about {written.files:,} files" in sentence


def test_a_disk_without_room_is_told_in_a_sentence_and_nothing_is_touched(regions, tmp_path, monkeypatch):
    export(open_run(regions / "run"), str(tmp_path / "site"), ["dead"])
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"has room for .* need about"):
        export(open_run(regions / "run"), str(tmp_path / "site"), [])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_export_after_one_that_was_stopped_leaves_the_same_files(regions, tmp_path, monkeypatch):
    site = tmp_path / "site"
    with monkeypatch.context() as stopped:
        stopped.setattr("actmine.pipeline.atlas.pages.image_page", _stop)
        with pytest.raises(KeyboardInterrupt):
            export(open_run(regions / "run", trust=True), str(site), [PLAIN])
    export(open_run(regions / "run", trust=True), str(site), ["dead"])
    export(open_run(regions / "run", trust=True), str(site), [])
    written = {path.relative_to(site) for path in site.rglob("*")}
    assert written == {path.relative_to(regions / "site") for path in (regions / "site").rglob("*")}


def _stop(*_: object) -> str:
    raise KeyboardInterrupt


class Heard(Silent):
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def say(self, sentence: str) -> None:
        self.sentences.append(sentence)


def test_names_become_files_that_stay_where_they_belong(root):
    files = [path.relative_to(root / "site") for path in (root / "site").rglob("*")]
    assert not any(set(path.name) & set("<>:\"'|?*\\%") or ".." in path.parts for path in files)
    assert {path.name for path in root.iterdir()} == {"photos", "run", "site"}


def test_only_the_chosen_layers_are_written_and_nothing_leads_to_others(root, tmp_path):
    first = export(open_run(root / "run"), str(tmp_path / "site"), ["block.*"]).page
    text = first.read_text(encoding="utf-8")
    assert "1 of the run's 3 layers" in " ".join(text.split())
    files = [path.name for path in (tmp_path / "site" / "layer").iterdir()]
    assert sorted(files) == sorted([segments(NAMES)[PLAIN], f"{segments(NAMES)[PLAIN]}.html"])
    assert not any(SCRIPT in page.read_text(encoding="utf-8") for page in (tmp_path / "site").rglob("*.html"))
    assert DEAD not in {path.name for path in (tmp_path / "site").rglob("*")}


def test_an_export_replaces_one_before_and_leaves_no_page_of_it(root, tmp_path):
    site = tmp_path / "site"
    export(open_run(root / "run"), str(site), [])
    export(open_run(root / "run"), str(site), ["dead"])
    assert {path.name for path in (site / "layer").iterdir()} == {"dead", "dead.html"}


def test_a_folder_with_other_things_in_it_is_left_alone(root, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="other things"):
        export(open_run(root / "run"), str(tmp_path), [])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("out", "says"), [("", "OUT is empty"), ("s3://bucket/site", "not a folder"), ("https://host/site", "not a folder")]
)
def test_what_is_no_folder_is_refused(root, out, says):
    with pytest.raises(UserError, match=says):
        export(open_run(root / "run"), out, [])


def test_a_name_that_selects_no_layer_is_refused_before_anything_is_written(root, tmp_path):
    with pytest.raises(UserError, match="has no layer"):
        export(open_run(root / "run"), str(tmp_path / "site"), ["none"])
    assert not (tmp_path / "site").exists()


def test_a_dataset_that_has_gone_is_told_on_exported_pages(tmp_path):
    run = write_run(tmp_path)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    export(open_run(run), str(tmp_path / "site"), ["block.*"])
    assert "no longer" in (tmp_path / "site" / "layer" / "block.relu" / "0.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "whole" / "0.svg").is_file()


def test_the_search_finds_its_words_in_a_file_of_its_own(root):
    text = (root / "site" / "static" / "search.js").read_text(encoding="ascii")
    assert HEBREW.encode("unicode_escape").decode().split("\\x")[0][:12] in text
    assert all(segments(NAMES)[name] in text for name in NAMES)


def test_the_command_writes_and_says_what_to_open(root, tmp_path):
    app = commands(["atlas-export", "sheets"])
    words = ["atlas-export", "--run", str(root / "run"), "--out", str(tmp_path / "site"), "--layers", "block.*"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "index.html" in done.output.replace("\n", "")
    assert (tmp_path / "site" / MARKER).is_file()
    assert WILD not in (tmp_path / "site" / MARKER).read_text()
