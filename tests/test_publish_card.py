"""The card of a published run: what the hub's client, a parser of YAML and `datasets` read of it; that it is true."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest

from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.errors import UserError
from actmine.pipeline.publishing import card as cards
from actmine.pipeline.publishing import card_check, markup
from actmine.pipeline.publishing.contents import parts, rows_of, tables_of
from actmine.pipeline.publishing.publish import Publication, publish
from actmine.pipeline.run import open_run
from tests.atlas_tables import ATTACK, SCRIPT, WILD
from tests.test_publish import with_pictures

yaml = pytest.importorskip("yaml")
HOSTILE = [
    SCRIPT, ATTACK, WILD, "a: b", "- x\n---\nlicense: mit", "`` ` ```", "| a | b |", "[x](javascript:alert(1))",
    "&amp; *x*", "\u202egnp.exe", "null", "{{ x }}", "'\"\\", "😀 猫 כלב",
    "a\x00b\x1b[31m", "# h\n\n```\n<b>", "\ud800",
]  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("card")
    what = Publication(Extent(2, False), license="cc-by-4.0")
    publish(open_run(with_pictures(root)), str(root / "to"), what)
    return root


def card_of(root: Path, **words: object) -> tuple[dict[str, object], str]:
    """The fields and the text of a card of a run, whose record has other words."""
    run = open_run(root / "run")
    run.record.update(words)
    found = parts(run, True, False)
    return cards.metadata(run, found, cards.Card()), cards.text(run, found, cards.Card())


def head(text: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_hubs_own_client_reads_the_fields_that_were_written(root):
    hub = pytest.importorskip("huggingface_hub")
    card = hub.DatasetCard.load(root / "to" / "README.md")
    run = open_run(root / "run")
    wanted = cards.metadata(run, parts(run, True, False), cards.Card("cc-by-4.0"))
    assert card.data.to_dict() == wanted == head((root / "to" / "README.md").read_text())
    assert card.data.license == "cc-by-4.0" and card.data.size_categories == ["n<1K"]
    assert card_check.problems(wanted) == []


def test_datasets_loads_every_table_by_its_name(root, tmp_path):
    datasets = pytest.importorskip("datasets")
    found = parts(open_run(root / "to"), True, False)
    names = datasets.get_dataset_config_names(str(root / "to"))
    assert {*names} == {*tables_of(found)} and names[0] == "units"
    for name in names:
        rows = datasets.load_dataset(str(root / "to"), name, split="train", cache_dir=str(tmp_path))
        assert len(rows) == rows_of(found, name)
    default = datasets.load_dataset(str(root / "to"), split="train", cache_dir=str(tmp_path))
    assert default.column_names == list(pd.read_parquet(root / "to" / "units").columns)
    pictures = datasets.load_dataset(str(root / "to"), "pictures", split="train", cache_dir=str(tmp_path))
    assert pictures[0]["picture"].size == (120, 90)


def test_every_line_of_code_in_it_runs_in_a_copy_of_the_folder(root, monkeypatch, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.chdir(root / "to")
    text = (root / "to" / "README.md").read_text()
    printed = []
    for kind, code in re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.M | re.S):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            if kind == "sql":
                print(duckdb.sql(code.strip()).fetchall())
            elif kind == "python":
                exec(code, names := {})
                if "exemplars" in names:
                    print(len(names["exemplars"]))
        printed.append(out.getvalue())
    assert len(printed) == 5 and all(printed[:4]) and "Empty" not in "".join(printed)
    for name in re.findall(r"`((?:\w+/)?\*?[\w-]+\.parquet)`", text):
        assert list((root / "to").glob(name)), name
    columns = {column for path in (root / "to").rglob("*.parquet") for column in pd.read_parquet(path).columns}
    assert {"label_purity_q", "best_label_q", "visualization_ratio", "visualization_rank", "chance"} <= columns


@pytest.mark.parametrize("word", HOSTILE)
def test_what_a_run_is_called_stays_one_word_of_yaml_and_text_of_markdown(root, word):
    fields, text = card_of(root, model=word, dataset=word, weights=word, versions={word: word}, fingerprint=word)
    assert head(text) == fields and card_check.problems(fields) == []
    plain_fields, plain_text = card_of(root, model="m", dataset="m", weights="m", versions={"m": "m"}, fingerprint="m")
    assert {*fields} == {*plain_fields} and fields["license"] == "unknown"
    body, plain = (each.split("---\n", 2)[2] for each in (text, plain_text))
    assert [line for line in body.splitlines() if line.startswith("#")][1:] == [
        line for line in plain.splitlines() if line.startswith("#")
    ][1:], "no further headings"
    assert len(body.splitlines()) == len(plain.splitlines())
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e\ud800-\udfff]", text)


@pytest.mark.parametrize("word", HOSTILE)
def test_markdown_makes_nothing_of_it(word):
    markdown = pytest.importorskip("markdown")
    for said in (markup.code(word), markup.markdown(word)):
        html = markdown.markdown(f"before {said} after", extensions=["tables"])
        tags = {*re.findall(r"<(\w+)", html)}
        assert tags <= {"p", "code"} and html.count("<p>") == 1, html


def test_words_as_yaml_are_read_again_as_they_were():
    told = {"a": HOSTILE[-2], "b": ["x", {"c": "y\u2028\x85", "d": True}], "e": [{"f": [{"g": "😀"}]}], "h": 3}
    assert yaml.safe_load(markup.yaml(told)) == told


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("", {"license": "unknown"}),
        ("MIT ", {"license": "mit"}),
        ("my-terms", {"license": "other", "license_name": "my-terms"}),
    ],
)
def test_a_licence_is_the_hubs_or_another_by_name_or_unknown(root, word, fields):
    run = open_run(root / "run")
    found = cards.metadata(run, parts(run, True, False), cards.Card(word))
    assert {name: found[name] for name in found if "license" in name} == fields and card_check.problems(found) == []


@pytest.mark.parametrize("word", ["cc by", "x: y", "mit\nconfigs:", "-", "a" * 61])
def test_a_licence_that_is_no_word_is_refused_before_anything_is_written(root, tmp_path, word):
    with pytest.raises(UserError, match="LICENSE="):
        publish(open_run(root / "run"), str(tmp_path / "to"), Publication(license=word))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"license": "my own"}, {"license": None}, {"tags": "one"}, {"tags": []}, {"size_categories": ["huge"]},
        {"task_categories": ["everything"]}, {"pretty_name": "two\nlines"}, {"configs": []}, {"more": "x"},
        {"configs": [{"config_name": "a"}]}, {"configs": [{"config_name": "a b", "data_files": []}]},
        {"configs": [{"config_name": "a", "data_files": [{"split": "train", "path": "/etc/a.parquet"}]}]},
        {"configs": [{"config_name": "a", "data_files": [{"split": "train", "path": "a.parquet"}]}] * 2},
        {"license_name": "x"},
    ],
)  # fmt: skip
def test_a_field_that_the_hub_would_not_take_is_found(root, wrong):
    fields = card_of(root)[0]
    assert card_check.problems(fields) == [] != card_check.problems(fields | wrong)
    for name in ("license", "configs", "tags", "pretty_name"):
        assert card_check.problems({key: value for key, value in fields.items() if key != name})


def test_it_says_what_is_shown_left_out_and_under_which_terms(root):
    run = open_run(root / "run")
    found = parts(run, False, False)
    without = cards.text(run, found, cards.Card(pictures=False))
    assert (
        "No picture of the dataset" in without
        and "terms of the dataset" not in without
        and "None was stated" in without
    )
    whole = (root / "to" / "README.md").read_text()
    assert "terms of the dataset" in whole and "`cc-by-4.0`" in whole and "first 2 exemplars" in whole
    entry = re.search(r"```bibtex\n(.*?)```", whole, re.S)
    record = json.loads((root / "run" / "run.json").read_text())
    assert (
        entry
        and entry[1].startswith("@misc{")
        and record["fingerprint"] in entry[1]
        and record["weights_hash"] in entry[1]
    )
    run.record["unique"] = True
    assert "look nearly the same" in cards.text(run, found, cards.Card()) and "look nearly the same" not in whole
