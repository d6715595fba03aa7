"""Every query of the README and the guides runs on a run of the demo, and every command of them is one that exists."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18
from torchvision.transforms import v2

import actmine
from actmine.jobs.make_words import as_flags
from actmine.options.records import COMMANDS as COMMANDS_OF_ACTMINE
from actmine.options.records import options_of
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.relations.compare import compare_runs
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.exemplar_facets import facet_run
from tests.making import picture

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    README,
    *(path.read_text() for path in sorted((ROOT / "docs").glob("guides/*.md"))),
    (ROOT / "docs" / "index.md").read_text(),
]
BLOCKS = [block for page in PAGES for block in re.findall(r"^```([\w ]+)\n(.*?)^```", page, flags=re.M | re.S)]
(NOTEBOOK,) = (text for kind, text in BLOCKS if kind == "python notebook")
QUERIES = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = list(
    dict.fromkeys(line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip())
)
SOME = {"block5.relu": [7, 8]}


def test_it_shows_five_queries_and_more():
    assert len(QUERIES) >= 5 and len(COMMANDS) >= 5


def test_every_query_runs_on_a_run_of_the_demo_and_prints_something(demo_run, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    for name in ("demo-demo", "demo-squeezenet1_1"):  # the same twice: what they have in common is all
        (tmp_path / "runs" / name).symlink_to(demo_run, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    compare_runs(open_run("runs/demo-demo"), open_run("runs/demo-squeezenet1_1"))
    subject = load_network("demo")
    traced = Traced(subject.module, subject.input_shape)
    at = traced.choose("block5.relu")
    facet_run(open_run("runs/demo-demo"), subject, traced, at, LocalEngine(torch.device("cpu")), units=SOME)
    names: dict[str, object] = {}
    printed = []
    for query in QUERIES:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(query, names)
        printed.append(out.getvalue())
    assert all(text.strip() for text in printed)
    assert "Empty DataFrame" not in "".join(printed)


def test_the_lines_for_a_notebook_run_with_a_module_and_a_dataset(tmp_path, monkeypatch, capsys):
    pytest.importorskip("uvicorn", reason="needs the extra atlas")
    monkeypatch.chdir(tmp_path)
    quick = partial(actmine.mine, visualize=False, sheets=False, quiet=True, topk=2)
    monkeypatch.setattr(actmine, "mine", quick)
    preprocess = v2.Compose([v2.Resize(64), v2.CenterCrop(64), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    names = {"net": resnet18(), "dataset": [picture(80, 70, seed) for seed in range(6)], "preprocess": preprocess}
    lines = NOTEBOOK.strip().splitlines()
    exec("\n".join(lines[:-2]), names)
    sheet, address = (eval(line, names) for line in lines[-2:])
    assert sheet.size[0] > 100 and capsys.readouterr().out.strip() == address
    address.stop()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one_that_make_knows(command):
    program, target, *words = shlex.split(command)
    assert program == "make"
    done = subprocess.run([program, "-n", target, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(word.split("=", 1) for word in words)
    more = shlex.split(said.pop("ARGS", ""))
    if target in COMMANDS_OF_ACTMINE:
        handed = re.search(r"ACTMINE_BY_MAKE='(.*?)'", done.stdout)
        assert handed and {*handed[1].split()} == {*said}, "what make hands on"
        flags = as_flags(target, options_of(target), said, said)
        assert len(flags) == len(said) and f"actmine {target} {' '.join(more)}".rstrip() in done.stdout.replace("'", "")


def test_every_picture_and_page_it_names_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).is_file(), target


def test_every_column_of_the_tables_that_it_names_exists():
    import actmine.schemas.exemplars
    import actmine.schemas.images
    import actmine.schemas.labels
    import actmine.schemas.matches
    import actmine.schemas.neighbors
    import actmine.schemas.units

    known = {
        name
        for table in (
            actmine.schemas.exemplars.EXEMPLARS,
            actmine.schemas.images.IMAGES,
            actmine.schemas.labels.LABELS,
            actmine.schemas.matches.MATCHES,
            actmine.schemas.neighbors.NEIGHBORS,
            actmine.schemas.units.UNITS,
        )
        for name in table.names
    }
    asked = README + (ROOT / "docs" / "guides" / "questions.md").read_text()
    named = set(re.findall(r"\"(\w+)\"", " ".join(re.findall(r"\[\[(.*?)\]\]", asked, flags=re.S))))
    assert named and named <= known
