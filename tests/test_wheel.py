"""What is installed from a wheel works in any folder, also in one with packages called as our rooms are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.making import encoded, picture, write_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that a wheel installs, built of what git knows of."""
    there = tmp_path_factory.mktemp("wheel")
    files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, text=True)  # fmt: skip
    if files.returncode:
        pytest.skip("needs a git checkout")
    for name in files.stdout.split("\0"):
        if name.startswith(("actmine/", "pyproject.toml", "README.md", "LICENSE")) and (ROOT / name).is_file():
            copy = there / "source" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", there, there / "source"], check=True
    )
    (wheel,) = there.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", there / "site", wheel], check=True)
    return there


@pytest.fixture
def crowded(tmp_path: Path) -> Path:
    """A folder of somebody's work, whose packages are called as our rooms are, and some photographs."""
    for name in ("pipeline", "jobs", "schemas", "options", "commands"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('this is not ours')\n")
    (tmp_path / "console.py").write_text("raise SystemExit('nor is this')\n")
    (tmp_path / "networks.py").write_text(
        "from torch import nn\n"
        "def small():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())\n"
    )
    write_folder(tmp_path / "photos", {f"a/{seed}.png": encoded(picture(40, 40, seed), "PNG") for seed in range(5)})
    return tmp_path


def run(*words: object, here: Path, installed: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*map(str, words)], cwd=here, text=True, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(installed / "site"), "PATH": f"{installed / 'site' / 'bin'}:{os.defpath}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


MINE = ["--model", "networks:small", "--resize", "32", "--crop", "32", "--topk", "2", "--no-visualize", "--no-sheets"]


def test_the_command_mines_in_a_folder_with_packages_of_our_rooms_names(crowded, installed):
    done = run(sys.executable, installed / "site" / "bin" / "actmine", "mine", "--dataset", "photos", *MINE, "--json",
               here=crowded, installed=installed)  # fmt: skip
    assert json.loads(done.stdout)["counts"]["seen"] == 5
    assert (crowded / "runs" / "photos-networks:small" / "units").is_dir() or list(crowded.glob("runs/*/units"))


def test_the_library_is_imported_there_and_from_the_wheel(crowded, installed):
    code = (
        "import sys, actmine; print(actmine.__file__); assert 'torch' not in sys.modules\n"
        "run = actmine.mine('networks:small', 'photos', resize='32', crop='32', topk=2, visualize=False,\n"
        "                   sheets=False, run='run', quiet=True)\n"
        "print(len(run), run.sheet('3', 1).size[0] > 100, sorted(actmine.layers('networks:small').layer))\n"
    )
    said = run(sys.executable, "-c", code, here=crowded, installed=installed).stdout.splitlines()
    assert said[0] == str(installed / "site" / "actmine" / "__init__.py")
    assert said[1].startswith("2 True [")
    assert {path.name for path in crowded.iterdir()} > {"run", "photos"}


def test_the_wheel_holds_what_is_read_beside_the_code_and_nothing_of_the_checkout(installed):
    (wheel,) = installed.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"actmine"}
    wanted = ("py.typed", "demo_network.safetensors", "imagenet_tree.csv", "atlas.css", "base.html", "WORDNET-LICENSE")
    assert all(any(name.endswith(f"/{each}") for name in names) for each in wanted)
