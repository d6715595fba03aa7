"""A published run: what its tables and pages say, nothing of this machine, the same bytes however it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import actmine
from actmine.jobs.__main__ import application
from actmine.pipeline import words
from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.atlas.export import estimate, export
from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.atlas.images import topping
from actmine.pipeline.atlas.others import Others
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.errors import UserError
from actmine.pipeline.notes import Notes, Target
from actmine.pipeline.progress import Silent
from actmine.pipeline.publishing import prepared, told_elsewhere
from actmine.pipeline.publishing.manifest import FILE, Manifest
from actmine.pipeline.publishing.publish import Publication, publish
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import table_file
from actmine.pipeline.storage.parquet import image_column, read_rows, write_rows
from actmine.pipeline.words import FROM_EXEMPLARS
from actmine.schemas.pictures import PICTURES
from actmine.schemas.skipped import SKIPPED
from tests.atlas_browsing import browsing
from tests.atlas_tables import KEYS, NAMES, PLAIN, SCRIPT, SIZE, TOPK, WIDTH, write_run

SECRET = "geheim"
WITHOUT = Publication(Extent(2, False, False), license="cc-by-4.0")


def with_pictures(root: Path, seed: str = "0123") -> Path:
    """A run of the folder `root/photos`, which holds pictures, and names folders and addresses wherever it can."""
    run = write_run(root, extra=True, fingerprint=seed)
    kept = image_column([(root / "photos" / f"{number}.png").read_bytes() for number in range(len(KEYS))]).to_pylist()
    write_rows(run / "pictures.parquet", PICTURES, [
        {"width": SIZE[0], "height": SIZE[1], "image_id": number, "picture": cell} for number, cell in enumerate(kept)
    ])  # fmt: skip
    error = f"{root}/photos/6.png cannot be read"
    write_rows(run / "skipped.parquet", SKIPPED, [{"shard": 0, "position": 6, "key": "k", "error": error}])
    record = json.loads((run / "run.json").read_text()) | {
        "pictures": "original", "url": str(root / "photos"), "tables": {"layers.parquet": None}, "weights_hash": "cd34",
        "asked": {"weights": f"{root}/my weights/net.pth", "data": str(root), "dataset": f"https://me:{SECRET}@host/a.tar?b={SECRET}"},
        "versions": {"actmine": "0.1.0"}, "facets": {"said": f"by {root}/photos/factory.py, at once"},
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(record))
    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, what it is published as, and that without pictures."""
    root = tmp_path_factory.mktemp("publish")
    run = open_run(with_pictures(root))
    publish(run, str(root / "whole"), Publication())
    publish(run, str(root / "without"), WITHOUT)
    return root


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_published_run_opens_like_any_other_and_its_tables_are_the_runs_own(root):
    own, published = open_run(root / "run"), actmine.open_run(root / "whole")
    for name in NAMES:
        pd.testing.assert_frame_equal(own.exemplars(name), published.exemplars(name))
        pd.testing.assert_frame_equal(own.units(name), published.units(name))
    for number in range(len(KEYS)):
        assert published.picture(number).tobytes() == own.picture(number).tobytes()
    copied = {name: data for name, data in files(root / "run").items() if name.startswith(("units", "maps", "matches"))}
    assert copied and copied.items() <= files(root / "whole").items()
    duckdb = pytest.importorskip("duckdb")
    (rows,) = duckdb.sql(f"SELECT count(*) FROM '{root}/whole/exemplars/*.parquet'").fetchall()
    assert rows[0] == sum(len(own.exemplars(name)) for name in NAMES) == len(NAMES) * WIDTH * TOPK


def test_the_list_names_every_file_with_its_size_and_sha_256(root):
    there = files(root / "whole")
    listed = json.loads(there.pop(FILE))
    assert listed["complete"] and listed["files"] == {
        name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in there.items()
    }
    assert {"README.md", "run.json", "pictures.parquet", "atlas/index.html"} <= {*there}
    assert not [name for name in there if name.split("/")[0] in ("state", "sheets", "notes.jsonl")]


@pytest.mark.parametrize("which", ["whole", "without"])
def test_no_folder_of_this_machine_and_no_password_is_in_any_file(root, which):
    for name, data in files(root / which).items():
        told = str(read_rows(root / which / name).to_pydict()) if name.endswith(".parquet") else data.decode("latin1")
        assert str(root) not in told and root.parent.name not in told and SECRET not in told, name
    record = json.loads((root / which / "run.json").read_text())
    assert (record["url"], record["asked"]["weights"]) == ("…/photos", "…/net.pth") and "tables" not in record
    assert record["asked"]["dataset"].startswith("https://") and record["matches"]["other-run"]["other_fingerprint"]
    assert pd.read_parquet(root / which / "skipped.parquet").error[0] == "…/6.png cannot be read"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("/home/me/data.tar", "…/data.tar"), ("~/x/y", "…/y"), ("C:\\data\\val", "…/val"), ("demo", "demo"),
        ("no file at /home/me/a.tar: gone", "no file at …/a.tar: gone"), ("and/or", "and/or"), ("a/relu", "a/relu"),
        ("https://host/a/b.tar", "https://host/a/b.tar"), ("s3://bucket/a/b", "s3://bucket/a/b"), ("1/2", "1/2"),
        ("hf://datasets/a/b", "hf://datasets/a/b"), ("…/known", "…/known"),
    ],
)  # fmt: skip
def test_a_path_is_its_last_part_and_nothing_else_changes(said, told):
    assert told_elsewhere.text(said) == told


def test_two_publications_of_a_run_have_the_same_bytes_and_a_second_one_writes_nothing(root, tmp_path):
    run = open_run(root / "run")
    publish(run, str(tmp_path / "again"), Publication())
    assert files(tmp_path / "again") == files(root / "whole")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").rglob("*") if path.is_file()}
    done = publish(run, str(tmp_path / "again"), Publication())[1]
    assert done and done.written == 0 and done.kept == len(times) - 1
    assert [p for p, at in times.items() if p.name != FILE and p.stat().st_mtime_ns != at] == []


@pytest.mark.parametrize("place", ["tables", "pages", "moving", "card"])
def test_a_publication_that_was_stopped_goes_on_to_the_same_bytes(root, tmp_path, monkeypatch, place):
    run, count = open_run(root / "run"), 0

    def stopping(real: Any, after: int) -> Any:
        def call(*args: Any, **words: Any) -> Any:
            nonlocal count
            count += 1
            if count > after:
                raise KeyboardInterrupt
            return real(*args, **words)

        return call

    with monkeypatch.context() as patch:
        if place == "tables":
            patch.setattr(prepared.shutil, "copyfile", stopping(shutil.copyfile, 4))
        elif place == "pages":
            patch.setattr("actmine.pipeline.atlas.pages.unit_page", stopping(lambda *_: "page", 5))
        elif place == "moving":
            patch.setattr(prepared.os, "replace", stopping(os.replace, 9))
        else:
            patch.setattr(prepared.cards, "text", stopping(str, 0))
        with pytest.raises(KeyboardInterrupt):
            publish(run, str(tmp_path / "to"), Publication())
    assert not Manifest.of((tmp_path / "to" / FILE).read_bytes(), "it").complete
    half = {name: data for name, data in files(tmp_path / "to").items() if name != FILE}
    assert half.items() <= files(root / "whole").items(), "what is there is whole"
    done = publish(run, str(tmp_path / "to"), Publication())[1]
    assert done and done.kept >= len(half) and files(tmp_path / "to") == files(root / "whole")


def test_what_is_published_no_more_is_removed_and_what_others_put_there_stays(root, tmp_path):
    shutil.copytree(root / "whole", tmp_path / "to")
    (tmp_path / "to" / "mine.txt").write_text("mine")
    done = publish(open_run(root / "run"), str(tmp_path / "to"), WITHOUT)[1]
    there = files(tmp_path / "to")
    assert there.pop("mine.txt") == b"mine" and there == files(root / "without") and done and done.removed > 6
    assert not (tmp_path / "to" / "views").exists() and not (tmp_path / "to" / "atlas" / "whole").exists()


def test_without_pictures_no_pixel_of_the_dataset_is_in_it(root):
    there = files(root / "without")
    assert not [
        name
        for name in there
        if name.startswith(("pictures", "crops", "views", "facets", "atlas/whole", "atlas/image"))
    ]
    crops = [cell for name in NAMES for cell in open_run(root / "without").exemplars(name).crop]
    assert len(crops) == len(NAMES) * WIDTH * TOPK and not any(crops)
    own = {
        data["bytes"]
        for name in NAMES
        for data in read_rows(table_file(root / "run", "exemplars", name))["crop"].to_pylist()
        if data
    }
    assert own and not own & {*there.values()}
    units = pd.concat(open_run(root / "without").units(name) for name in NAMES)
    assert units.visualization.notna().sum() > 3, "drawings stay"
    shown = [name for name in there if name.startswith("atlas/picture")]
    drawn = {cell["bytes"] for cell in pd.concat(open_run(root / "run").units(n) for n in NAMES).visualization if cell}
    drawn |= {
        cell["bytes"]
        for path in (root / "run" / "visualizations").iterdir()
        for cell in pd.read_parquet(path).visualization
        if cell
    }
    assert shown and {there[name] for name in shown if name.endswith(".png")} <= drawn
    page = next(data for name, data in there.items() if re.fullmatch(rf"atlas/layer/{PLAIN}/0\.html", name)).decode()
    assert (
        "no pictures of the dataset" in page
        and page.count("<tr><td>") == 2
        and "no longer" not in page
        and "<image" not in page
    )


def test_what_a_preset_drew_from_exemplars_counts_as_their_pictures(tmp_path):
    run = with_pictures(tmp_path)
    path = table_file(run, "units", PLAIN)
    rows = read_rows(path)
    drawn = [row | {"visualization_preset": "vital" if row["visualization"] else None} for row in rows.to_pylist()]
    write_rows(path, rows.schema, drawn)
    shutil.copy(next((run / "visualizations").iterdir()), run / "visualizations" / f"{PLAIN}-mean-image.parquet")
    publish(open_run(run), str(tmp_path / "to"), WITHOUT)
    assert any(row["visualization"] for row in drawn)
    assert pd.read_parquet(table_file(tmp_path / "to", "units", PLAIN)).visualization.isna().all()
    assert not [path for path in (tmp_path / "to" / "visualizations").iterdir() if "mean-image" in path.name]


def test_every_preset_that_draws_from_exemplars_is_known():
    assert {*FROM_EXEMPLARS} == {name for name in words.PRESETS if find_preset(name).references}


def test_notes_go_out_only_on_request(root, tmp_path):
    run = shutil.copytree(root / "run", tmp_path / "run")
    Notes(run).say(Target(PLAIN, 2), "note taker", note="looks like a wheel")
    for notes in (False, True):
        to = tmp_path / f"to{notes}"
        publish(open_run(run), str(to), Publication(notes=notes))
        told = b"".join(files(to).values())
        assert (b"looks like a wheel" in told) == (b"note taker" in told) == (to / "notes.jsonl").is_file() == notes


def test_only_pages_of_the_chosen_layers_are_there_and_all_tables(root, tmp_path):
    publish(open_run(root / "run"), str(tmp_path / "to"), Publication(layers=("block.*",)))
    assert {path.name for path in (tmp_path / "to" / "atlas" / "layer").iterdir()} == {PLAIN, f"{PLAIN}.html"}
    assert len(actmine.open_run(tmp_path / "to").exemplars(NAMES[0])) == WIDTH * TOPK
    assert f"of `{PLAIN}`" in (tmp_path / "to" / "README.md").read_text()


class Heard(Silent):
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.said = ""

    def say(self, sentence: str) -> None:
        self.said += f"{sentence}\n"


def test_what_would_go_out_is_said_and_is_what_goes_out_and_a_plan_writes_nothing(root, tmp_path):
    heard = Heard()
    plan, done = publish(open_run(root / "run"), str(tmp_path / "to"), Publication(), heard, plan_only=True)
    assert done is None and list(tmp_path.iterdir()) == []
    there = files(root / "whole")
    assert plan.files - plan.atlas_files == len([name for name in there if not name.startswith("atlas/")])
    assert plan.pictures == len(KEYS) + len(NAMES) * WIDTH * TOPK, "and crops of a run of a version before"
    tables = sum(len(data) for name, data in there.items() if name.endswith(".parquet"))
    assert abs(plan.nbytes - plan.atlas_nbytes - tables) < 20_000
    assert "licence" in heard.said and "--no-pictures" in heard.said and f"{plan.pictures:,} pictures" in heard.said
    without = Heard()
    publish(open_run(root / "run"), str(tmp_path / "to"), WITHOUT, without, plan_only=True)
    assert "No picture of the dataset" in without.said and "No licence" not in without.said


def test_a_place_without_room_is_told_before_anything_is_written(root, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"has room for 1 kB"):
        publish(open_run(root / "run"), str(tmp_path / "to"), Publication())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("", "TO is empty"), ("{root}/run", "within each other"), ("{root}/run/out", "within each other"),
        ("{root}", "within each other"), ("{root}/photos", "other things"), ("https://host/x", "no place"),
        ("{root}/photos/0.png", "is a file"), ("hf://models/a/b", "no dataset of the hub"),
        ("hf://datasets/../b", "no dataset of the hub"),
    ],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(root, to, says):
    before = files(root / "photos")
    with pytest.raises(UserError, match=says):
        publish(open_run(root / "run"), to.format(root=root), Publication())
    assert files(root / "photos") == before


@pytest.mark.parametrize(
    "damage", ["{", '{"what": "else"}', None, "../run/run.json", "/etc/passwd", "a/../../b", "a\\b", FILE]
)
def test_a_list_of_files_that_is_damaged_or_a_trap_is_refused(root, tmp_path, damage):
    (tmp_path / "to").mkdir()
    whole = json.loads((root / "whole" / FILE).read_text())
    text = (
        damage
        if damage and damage.startswith("{")
        else json.dumps(whole | {"files": {damage: [1, "x"]} if damage else [1]})
    )
    (tmp_path / "to" / FILE).write_text(text)
    with pytest.raises(UserError, match="damaged or none of ours"):
        publish(open_run(root / "run"), str(tmp_path / "to"), Publication())
    assert files(tmp_path / "to") == {FILE: text.encode()}


def test_a_link_in_the_folder_leads_nothing_out_of_it(root, tmp_path):
    shutil.copytree(root / "whole", tmp_path / "to")
    (tmp_path / "outside").mkdir()
    shutil.rmtree(tmp_path / "to" / "units")
    (tmp_path / "to" / "units").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="leads out of it"):
        publish(open_run(root / "run"), str(tmp_path / "to"), Publication())
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_that_is_not_of_the_publication_before_is_not_written_over(root, tmp_path):
    shutil.copytree(root / "without", tmp_path / "to")
    (tmp_path / "to" / "pictures.parquet").write_text("mine")
    with pytest.raises(UserError, match=r"pictures\.parquet is no file of the publication before"):
        publish(open_run(root / "run"), str(tmp_path / "to"), Publication())
    assert (tmp_path / "to" / "pictures.parquet").read_text() == "mine"


def test_the_command_and_the_function_publish_and_say_what_is_where(root, tmp_path):
    words = ["publish", "--run", str(root / "run"), "--to", str(tmp_path / "to"), "--no-pictures", "--exemplars", "2"]
    done = CliRunner().invoke(application(["publish"]), [*words, "--license", "cc-by-4.0", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (
        told["place"] == str(tmp_path / "to")
        and told["plan"]["pictures"] == 0
        and told["files"] == len(files(tmp_path / "to"))
    )
    assert files(tmp_path / "to") == files(root / "without")
    assert actmine.publish(
        root / "run", str(tmp_path / "py"), pictures=False, exemplars=2, license="cc-by-4.0", quiet=True
    ) == str(tmp_path / "py")
    assert files(tmp_path / "py") == files(root / "without")


def test_what_a_hostile_run_says_of_itself_is_text_on_every_page(root):
    for name, data in files(root / "without").items():
        if name.endswith(".html"):
            assert SCRIPT.encode() not in data, name


@pytest.fixture(scope="module")
def demo(demo_run: Path) -> tuple[Queries, Any]:
    queries = Queries(open_run(demo_run))
    return queries, topping(queries.run.path, queries.reading, list(queries.layers), queries.end)


def test_the_pages_of_the_demo_take_at_most_20_mb_as_far_as_can_be_told_beforehand(demo):
    assert 10e6 < estimate(*demo, Publication().extent)[1] <= 20e6 < estimate(*demo)[1]


def test_an_estimate_is_within_a_third_of_what_is_written(demo_run, tmp_path):
    run = open_run(demo_run)
    queries = Queries(run, ["block3.add"])
    who = topping(run.path, queries.reading, ["block3.add"], queries.end)
    count, nbytes = estimate(queries, who, Extent(9, False), Others(queries))
    done = export(run, str(tmp_path / "site"), ["block3.add"], None, Extent(9, False))
    assert 2 / 3 < count / done.files < 4 / 3 and 2 / 3 < nbytes / done.nbytes < 4 / 3  # equal pictures are one file


@pytest.mark.slow
def test_the_pages_of_the_demo_take_at_most_20_mb(demo_run, tmp_path):
    assert export(open_run(demo_run), str(tmp_path / "site"), [], None, Publication().extent).nbytes <= 20_000_000


def test_a_run_that_was_published_without_pictures_is_served_and_published_again_without(root, tmp_path):
    page = browsing(root / "without").get(f"/layer/{PLAIN}/2").text
    assert "no pictures of the dataset" in page and page.count("<tr><td>") == TOPK and "no longer" not in page
    heard = Heard()
    plan, done = publish(open_run(root / "without"), str(tmp_path / "to"), Publication(), heard)
    assert done and plan.pictures == 0 and "No picture of the dataset is in it" in heard.said
    again, before = files(tmp_path / "to"), files(root / "without")
    assert {name for name in again if name.endswith(".parquet")} == {
        name for name in before if name.endswith(".parquet")
    }
    assert again["run.json"] == before["run.json"]
