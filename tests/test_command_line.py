"""The command line before any work: at once, without what only the work needs, in words that can be typed here."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from inspect import signature
from pathlib import Path

import pytest

from actmine.jobs.__main__ import _told
from actmine.jobs.make_words import as_flags
from actmine.options.records import COMMANDS, options_of
from actmine.pipeline import spoken, words
from actmine.pipeline.ascent.presets import PRESETS
from actmine.pipeline.errors import UserError
from actmine.pipeline.exemplars import projection

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "numpy", "pyarrow", "pandas", "PIL"}
OF_THE_WORK = {"torch", "torchvision", "triton", "ray", "timm", "captum", "sklearn", "matplotlib"}


def said(*words: str, among: set[str] = HEAVY) -> subprocess.CompletedProcess[str]:
    """What the command line says; on the last line of its errors which packages `among` those named it imported."""
    code = (
        "import sys, atexit; from actmine.jobs.__main__ import main; "
        f"atexit.register(lambda: print(*sorted({among!r} & set(sys.modules)), file=sys.stderr)); "
        "sys.argv[1:] = sys.argv[2:]; main()"
    )
    return subprocess.run([sys.executable, "-c", code, "-", *words], capture_output=True, text=True, cwd=ROOT)


def imported(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("words", "answer"), [(["--help"], "atlas-export"), (["--version"], "actmine"), ([], "mine")])
def test_help_and_version_import_nothing_heavy(words, answer):
    done = said(*words)
    assert answer in done.stdout and imported(done) == ""


def test_a_mistyped_command_is_answered_at_once_with_what_was_meant():
    done = said("minee", "--dataset", "photos")
    assert done.returncode == 2 and "Did you mean 'mine'?" in done.stderr
    assert imported(done) == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(command):
    done = said(command, "--help")
    assert done.returncode == 0 and "--json" in done.stdout
    assert imported(done) == ""


@pytest.mark.parametrize("command", ["mine", "sheets", "compare", "demo-model"])
def test_a_mistyped_flag_is_answered_at_once(command):
    done = said(command, "--quite")
    assert done.returncode == 2 and "No such option: --quite" in done.stderr
    assert imported(done) == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["sheets", "--run", "x", "--format", "gif"], "'--format': 'gif' is not one of 'png', 'pdf', 'svg'."),
        (["mine", "--engine", "dask"], "'--engine': 'dask' is not one of 'local', 'ray'."),
    ],
)
def test_a_word_that_is_none_of_those_there_are_is_named_without_the_library_that_checks_it(words, told):
    done = said(*words)
    assert done.returncode == 2 and imported(done) == ""
    assert f"Invalid value for {told}" in " ".join(done.stderr.replace("│", " ").split())


def test_every_command_is_carried_out_by_a_function_of_its_record():
    for command in COMMANDS:
        name = command.replace("-", "_")
        body = getattr(import_module(f"actmine.commands.{name}"), name)
        assert [each.annotation for each in signature(body).parameters.values()][:2] == [
            options_of(command).__name__,
            "Display",
        ]


def test_what_is_told_of_a_command_is_what_its_options_say():
    for command in COMMANDS:
        assert _told(command).splitlines()[0] == (options_of(command).__doc__ or "").splitlines()[0], command


def test_a_finished_run_is_looked_at_without_torch(demo_run, tmp_path):
    run = shutil.copytree(demo_run, tmp_path / "run")
    drawn = said("sheets", "--run", str(run), "--layers", "stem.*", "--units", "0-1", among=OF_THE_WORK)
    assert drawn.returncode == 0 and (run / "sheets" / "stem.relu" / "1.png").is_file()
    assert imported(drawn) == ""
    pytest.importorskip("starlette", reason="needs the extra atlas")
    written = said("atlas-export", "--run", str(run), "--out", str(tmp_path / "site"), "--layers", "stem.*",
                   among=OF_THE_WORK)  # fmt: skip
    assert written.returncode == 0 and (tmp_path / "site" / "index.html").is_file()
    assert imported(written) == ""
    published = said("publish", "--run", str(run), "--to", str(tmp_path / "out"), "--layers", "stem.*", "--no-pictures",
                     among=OF_THE_WORK | {"huggingface_hub", "s3fs", "yaml"})  # fmt: skip
    assert published.returncode == 0 and (tmp_path / "out" / "README.md").is_file()
    assert imported(published) == ""


def test_the_atlas_and_questions_to_a_run_need_no_torch(demo_run):
    pytest.importorskip("starlette", reason="needs the extra atlas")
    code = f"""
import sys
from actmine.pipeline.run import open_run
from actmine.pipeline.atlas.server import application
run = open_run({str(demo_run)!r})
best = run.exemplars("block5.relu", 7).iloc[0]
assert run.crop(best).size and run.picture(best.image_id).size and run.original(best.image_id).size
assert len(run.units("block5.relu")) and len(run.neighbors("block5.relu", 7)) and len(run.labels("block5.relu", 7))
print(*sorted({OF_THE_WORK!r} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_words_of_options_are_what_the_library_has():
    assert tuple(PRESETS) == words.PRESETS and tuple(projection.METHODS) == words.METHODS


@pytest.fixture
def called(monkeypatch):
    """Has the program called in one of three ways."""

    def by(how: str) -> None:
        monkeypatch.delenv(spoken.BY_MAKE, raising=False)
        monkeypatch.setattr(sys, "argv", ["/opt/bin/actmine" if how == "actmine" else "jobs/__main__.py"])
        if how == "make":
            monkeypatch.setenv(spoken.BY_MAKE, "1")

    return by


FOCUS_SHEETS = "sheets --run 'my run' --layers 'block5.*' --field focus --grids"
PIP = "-m pip install 'actmine[paper]'"


@pytest.mark.parametrize(
    ("how", "sheets", "extra"),
    [
        ("make", "make sheets RUN='my run' LAYERS='block5.*' FIELD=focus GRIDS=1", "make setup EXTRA=paper"),
        ("actmine", f"actmine {FOCUS_SHEETS}", PIP),
        ("python", f"-m actmine {FOCUS_SHEETS}", PIP),
    ],
)
def test_commands_are_said_the_way_the_program_was_called(called, how, sheets, extra):
    called(how)
    told = spoken.command("sheets", run="my run", layers="block5.*", units="", field="focus", grids=True)
    assert told.endswith(sheets) and spoken.install("paper").endswith(extra)
    assert (told == sheets) is (how != "python")


def test_the_interpreter_is_named_so_that_a_shell_finds_it(monkeypatch, tmp_path):
    assert subprocess.check_output(f"{spoken.interpreter()} -c 'import sys; print(sys.executable)'", shell=True,
                                   text=True).strip() == sys.executable  # fmt: skip
    monkeypatch.setattr(sys, "executable", str(tmp_path / "a venv" / "bin" / "python"))
    assert spoken.interpreter() == f"'{tmp_path / 'a venv' / 'bin' / 'python'}'"
    monkeypatch.chdir(tmp_path)
    assert spoken.interpreter() == "'a venv/bin/python'"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert spoken.interpreter() == "python3"


def made(*words: str) -> subprocess.CompletedProcess[str]:
    """What make runs in place of a command when it is given `words`: a Python that says what it was called with."""
    return subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), "-o", ".venv/.ready", *words], capture_output=True, text=True
    )


def test_every_word_behind_make_is_an_option_of_the_command(tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'import os, sys; from actmine.jobs.make_words import as_flags, words_of; "
        "from actmine.options.records import options_of; command, *more = sys.argv[3:]; "
        'print(command, as_flags(command, options_of(command), words_of(os.environ, "ACTMINE_BY_MAKE"), os.environ), '
        'more)\' "$@"\n'
    )
    python.chmod(0o755)
    (tmp_path / ".ready").touch()
    said = made("sheets", f"VENV={tmp_path}", "-o", f"{tmp_path}/.ready", "RUN=my run", "LAYERS=block5.*", "GRIDS=1",
                "OVERVIEWS=0", "FIELD=focus", "METHOD=", "ARGS=--columns 7")  # fmt: skip
    flags = ["--field=focus", "--grids", "--layers=block5.*", "--no-overviews", "--run=my run"]
    assert said.stdout == f"sheets {flags} {['--columns', '7']}\n", said.stderr


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ({"VISUALIZE": "auto", "TOPK": "5"}, ["--topk=5"]),
        ({"VISUALIZE": "0", "UNIQUE": "1"}, ["--unique", "--no-visualize"]),
        ({"JSON": "1", "QUIET": "0", "KEEP_MAXIMA": "float16"}, ["--json", "--keep-maxima=float16"]),
        ({"HELP": "1"}, ["--help"]),
    ],
)
def test_switches_are_said_by_1_and_0(words, flags):
    assert sorted(as_flags("mine", options_of("mine"), words, words)) == sorted(flags)


def test_a_word_that_no_command_knows_is_named_with_what_was_meant():
    with pytest.raises(UserError, match=r"make mine knows no TOPKK\. Did you mean TOPK, TOKENS\?.* DATASET, MODEL"):
        as_flags("mine", options_of("mine"), ["TOPKK"], {"TOPKK": "5"})
    with pytest.raises(UserError, match="UNIQUE=maybe: say UNIQUE=1 or UNIQUE=0"):
        as_flags("mine", options_of("mine"), ["UNIQUE"], {"UNIQUE": "maybe"})


def test_every_advised_command_exists_with_these_options():
    """Whatever `spoken.command` is asked to say in the source is a command, and its words are options of it."""
    asked = []
    for path in (ROOT / "actmine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "command":
                asked.append((ast.literal_eval(node.args[0]), {word.arg for word in node.keywords}))
    assert len(asked) > 10
    for name, flags in asked:
        assert flags <= {option.name for option in fields(options_of(name))}, name


def test_no_sentence_names_a_command_by_hand():
    by_hand = re.compile(
        r"make (atlas|sheets|visualize|mine|layers|shards|compare|setup)\b|make [a-z]+ RUN=|pip install"
    )
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for path in (ROOT / "actmine").rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        docs = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, documented)}
        told = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found = [text for text in told if text not in docs and by_hand.search(text)]
        assert not found or path.name == "spoken.py", (path, found)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("python", "Say --resize and --crop 28, --no-sheets, or --crop none; --max-skipped."),
        ("make", "Say RESIZE and CROP=28, SHEETS=0, or CROP=none; MAX_SKIPPED."),
    ],
)
def test_options_in_sentences_are_said_likewise(called, how, told):
    called(how)
    sentence = "Say --resize and --crop 28, --no-sheets, or --crop none; --max-skipped."
    assert spoken.said(sentence) == told
    with spoken.from_python():
        assert spoken.said(sentence) == "Say resize and crop=28, sheets=False, or crop='none'; max_skipped."
        assert spoken.command("sheets", run="a/b", most=3, grids=True, layers="") == (
            "actmine.sheets(run='a/b', most=3, grids=True)"
        )


@pytest.mark.parametrize(
    ("line", "goes_on"), [("actmine vi", ["visualize", "views"]), ("actmine sheets --gr", ["--grids"])]
)
def test_a_shell_is_told_how_a_line_can_go_on(line, goes_on):
    words = {"_ACTMINE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    code = "import sys; sys.argv[:] = ['/opt/bin/actmine']; from actmine.jobs.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **words})
    assert done.stdout.split() == goes_on


def test_no_sentence_says_the_name_of_a_class_of_ours():
    ours = re.compile(r"\b(BatchIndex|LoadedModel|PreprocessingOptions|StatisticsOptions)\b.* ")
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    for path in (ROOT / "actmine").rglob("*.py"):
        nodes = [*ast.walk(ast.parse(path.read_text()))]
        docs = {ast.get_docstring(node, clean=False) for node in nodes if isinstance(node, documented)}
        told = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert not [text for text in told if text not in docs and ours.search(text)], path
