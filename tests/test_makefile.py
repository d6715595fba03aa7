"""The Makefile: what each target installs, and that it says so; nothing is run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


def installed(tmp_path: Path, *words: str) -> list[str]:
    """The extras that `make *words` would install into a fresh environment, in order."""
    told = subprocess.run(["make", "-n", f"VENV={tmp_path / 'venv'}", *words], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    extras = [line.rsplit("'.[", 1)[1].rstrip("]'") for line in lines if "--editable '.[" in line]
    assert len([line for line in lines if line.startswith('echo "Installing ')]) == len(extras), "it says so"
    return extras


@pytest.mark.parametrize(
    ("words", "more"),
    [
        ("mine", []),
        ("sheets RUN=runs/a", []),
        ("atlas RUN=runs/a", []),
        ("atlas RUN=s3://bucket/a", ["s3"]),
        ("mine DATASET=https://host/{0..3}.tar RUN=s3://bucket/a", ["s3", "http"]),
        ("mine ENGINE=ray MODEL=timm/convnext_tiny", ["ray", "timm"]),
        ("sheets RUN=a FORMAT=pdf", ["paper"]),
        ("publish RUN=a TO=published", []),
        ("publish RUN=a TO=s3://bucket/b", ["s3"]),
        ("publish RUN=a TO=hf://datasets/a/b", ["hf"]),
        ("shards SOURCE=photos OUT=s3://bucket/b", ["s3"]),
        ("visualize RUN=a PRESET=mean-image", ["facets"]),
        ("facets RUN=a", ["facets"]),
        ("map RUN=a", ["map"]),
        ("map RUN=a OUT=a.pdf", ["paper", "map"]),
        ("mine UNIT_MAP=1", ["map"]),
        ("inspect RUN=a IMAGE=b", []),
        ("setup", []),
        ("test", ["dev"]),
        ("test-slow", ["dev"]),
        ("lint", ["dev"]),
        ("bench", ["dev", "bench"]),
    ],
)
def test_only_what_is_asked_for_is_installed(tmp_path, words, more):
    assert installed(tmp_path, *words.split()) == ["atlas", *more]


def test_what_arguments_and_extras_name_is_installed_too(tmp_path):
    assert installed(tmp_path, "mine", "ARGS=--facets --topk 3") == ["atlas", "facets"]
    assert installed(tmp_path, "mine", "FACETS=1") == ["atlas", "facets"]
    assert installed(tmp_path, "compare", "RUN=a", "OTHER=b", "SEARCH=faiss") == ["atlas", "index"]
    assert installed(tmp_path, "compare", "RUN=a", "OTHER=b", "ARGS=--search faiss") == ["atlas", "index"]
    assert installed(tmp_path, "setup", "EXTRA=timm notebook") == ["atlas", "timm", "notebook"]


def test_what_is_there_is_not_installed_again(tmp_path):
    (tmp_path / "venv").mkdir()
    for stamp in (".ready", ".with-dev"):
        (tmp_path / "venv" / stamp).touch()
    told = subprocess.run(["make", "-n", f"VENV={tmp_path / 'venv'}", "test"], cwd=ROOT, capture_output=True, text=True)
    assert "pip" not in told.stdout and "-m pytest" in told.stdout
