"""Exported pages: every address leads to a file that is there, the pictures are the tables', nothing else is harmed."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.__main__ import application as commands
from pipeline.atlas.export import MARKER, export
from pipeline.atlas.links import segments
from pipeline.errors import UserError
from pipeline.run import open_run
from pipeline.storage.files import table_file
from pipeline.storage.parquet import read_rows
from tests.atlas_tables import DEAD, HEBREW, KEYS, NAMES, PLAIN, SCRIPT, TOPK, WIDTH, WILD, write_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_run(tmp_path_factory.mktemp("atlas"), extra=True).parent
    export(open_run(root / "run", trust=True), str(root / "site"), [])
    return root


class Addresses(HTMLParser):
    """All that a page refers to."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {value or "" for name, value in attrs if name in ("href", "src", "data-whole", "action")}


def test_every_address_of_every_page_is_a_file_below_the_folder(root):
    site = root / "site"
    pages = list(site.rglob("*.html"))
    for page in pages:
        for address in Addresses(page).found:
            parts = urlsplit(address)
            assert not parts.scheme and not parts.netloc and not parts.path.startswith("/")
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            assert target.is_relative_to(site.resolve()) and target.is_file(), (page, address)
    units = [page for page in pages if page.stem.isdigit() and page.parent.parent.name == "layer"]
    assert len(units) == len(NAMES) * WIDTH
    assert len(list((site / "image").iterdir())) == len(KEYS)


def test_exported_pictures_are_the_tables_own_bytes(root):
    row = read_rows(table_file(root / "run", "exemplars", PLAIN)).to_pylist()[2 * TOPK + 1]
    file = root / "site" / "picture" / segments(NAMES)[PLAIN] / "2" / "crop" / "1.png"
    assert file.read_bytes() == row["crop"]["bytes"]
    assert Image.open(io.BytesIO(next((root / "site" / "whole").iterdir()).read_bytes())).size


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
