"""Bad input from end to end: it ends as a row of `skipped` or as one sentence, never as a traceback."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import encoded, image_tar, jpeg, member, picture, png, write_folder, write_tar

ROOT = Path(__file__).parents[1]


def run_mine(dataset: object, run: Path, **settings: object) -> None:
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    layer = traced.unit_bearing()[0].name
    options = {"keep": StatisticsOptions(64), "workers": 1, "max_skipped": 1.0} | settings
    source = find_dataset(str(dataset))
    mine(source, network, traced, traced.choose(layer), run, torch.device("cpu"), MineSettings(**options))  # type: ignore[arg-type]


def tables(run: Path) -> tuple[dict[str, str], set[str]]:
    """Error by key of `skipped`, and the keys that any exemplar names; checks the account of every shard."""
    shards, skipped, images = (pd.read_parquet(run / f"{name}.parquet") for name in ("shards", "skipped", "images"))
    assert (shards["seen"] + shards["skipped"] == shards["members"]).all()
    assert shards["skipped"].sum() == len(skipped)
    assert shards["seen"].sum() == len(images)  # top-k is larger than the dataset
    assert pd.read_parquet(run / "exemplars")["image_id"].isin(images["image_id"]).all()
    return dict(zip(skipped["key"], skipped["error"], strict=True)), set(images["key"])


def bad_pictures() -> dict[str, bytes]:
    """Pictures that cannot be mined, by file name."""
    return {
        "cut.jpg": jpeg()[:-200],
        "cut_png.png": encoded(picture(), "PNG")[:-200],
        "empty.jpg": b"",
        "text.jpg": b"these are no pixels",
        "narrow.png": encoded(Image.new("RGB", (1, 20000)), "PNG"),
        "bomb.png": png(struct.pack(">IIBBBBB", 60_000, 30_000, 1, 0, 0, 0, 0), b"\0"),
        "float.tif": encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"),
    }


def odd_pictures() -> dict[str, bytes]:
    """Pictures that are unusual and can be mined all the same."""
    frames = [picture(seed=seed) for seed in range(3)]
    return {
        "png_inside.jpg": encoded(picture(), "PNG"),
        "cmyk.jpg": encoded(picture(mode="CMYK")),
        "grey16.png": encoded(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"),
        "bits.png": encoded(picture().convert("1"), "PNG"),
        "grey_alpha.png": encoded(picture(mode="LA"), "PNG"),
        "palette.png": encoded(picture().convert("P"), "PNG", transparency=3),
        "moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "moving_png.png": encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]),
        "dot.png": encoded(picture(1, 1), "PNG"),
        "UPPER.JPEG": jpeg(3),
        "größe 📷 <b>.jpg": jpeg(4),
    }


def stem(name: str) -> str:
    return name.rpartition(".")[0]


def test_every_kind_of_bad_file_in_a_folder_is_seen_or_a_row(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", bad_pictures() | odd_pictures())
    write_folder(root, {"README.txt": b"x", ".DS_Store": b"x", "labelled/1.jpg": jpeg(5), "labelled/1.cls": b"\xff"})
    write_folder(root, {"twin.jpg": jpeg(6), "twin.png": jpeg(7)})
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    run_mine(root, tmp_path / "run")
    skipped, seen = tables(tmp_path / "run")
    rejected = {stem(name) for name in bad_pictures()} | {"README", "gone", "labelled/1"}
    assert set(skipped) == rejected
    assert seen == {stem(name) for name in odd_pictures()} | {"twin.jpg", "twin.png"}
    assert all(skipped.values())


def test_every_kind_of_bad_member_of_a_tar_is_seen_or_a_row(tmp_path: Path) -> None:
    pictures = bad_pictures() | odd_pictures()
    write_tar(
        tmp_path / "in" / "0.tar",
        [
            *pictures.items(), ("README.txt", b"x"), (".hidden", b"x"), member("folder", kind=tarfile.DIRTYPE),
            member("link.jpg", kind=tarfile.SYMTYPE, link="dot.png"), ("../../up.jpg", jpeg(8)), ("/root.jpg", jpeg(9)),
            (os.fsdecode(b"caf\xe9.jpg"), jpeg(10)),
            ("word.jpg", jpeg(11)), ("word.json", b'{"label_name": "\\ud83d"}'),
            ("bad_label.jpg", jpeg()), ("bad_label.json", b"{"), ("dot.png", jpeg(2)),
        ],
    )  # fmt: skip
    write_tar(tmp_path / "in" / "1.tar", [])
    image_tar(tmp_path / "in" / "2.tar", 3)
    run_mine(tmp_path / "in", tmp_path / "run")
    skipped, seen = tables(tmp_path / "run")
    assert pd.read_parquet(tmp_path / "run" / "shards.parquet")["members"].tolist()[1:] == [0, 3]
    assert {"README", ".hidden", "link", "bad_label", "dot"} <= set(skipped)
    assert {"../../up", "/root", "caf\\udce9", "word", "dot", "0000", "cmyk"} <= seen
    assert {stem(name) for name in bad_pictures()} <= set(skipped)
    assert not set(skipped) - {"dot"} & seen


def test_reasons_are_the_same_in_every_run(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", bad_pictures() | {"good.jpg": jpeg()})
    for run in ("one", "two"):
        run_mine(root, tmp_path / run, workers=len(run) - 2)
    for table in ("skipped", "shards", "images"):
        assert (tmp_path / f"one/{table}.parquet").read_bytes() == (tmp_path / f"two/{table}.parquet").read_bytes()


def test_too_many_skips_fail_the_run_and_name_the_first(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "in", {f"{n:02d}.jpg": jpeg(n) for n in range(9)} | {"05.jpg": b"x"})
    with pytest.raises(UserError, match=r"1 of 9 samples were skipped.*05: cannot identify"):
        run_mine(root, tmp_path / "run", max_skipped=0.1)
    run_mine(root, tmp_path / "run", max_skipped=0.2)


def test_a_dataset_of_nothing_but_bad_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No image of in could be read"):
        run_mine(write_folder(tmp_path / "in", {"1.jpg": b"x", "2.jpg": b""}), tmp_path / "run")
    write_tar(tmp_path / "tars" / "0.tar", [])
    with pytest.raises(UserError, match="No image of tars could be read"):
        run_mine(tmp_path / "tars", tmp_path / "run2")


# the command line


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("good"), {f"{n}.jpg": jpeg(n) for n in range(4)})


def arguments(good: Path, run: Path, **options: str) -> list[str]:
    """`mine` of a few pictures with a small random network, and what a test changes about it."""
    words = {"dataset": str(good), "model": "demo", "weights": "random", "run": str(run), "device": "cpu"} | options
    return ["mine", "--quiet", "--no-visualize", "--no-sheets", *(f"--{name}={word}" for name, word in words.items())]


def complaint(good: Path, run: Path, **options: str) -> str:
    """What `mine` says when it fails with exit code 1 and no traceback."""
    result = CliRunner().invoke(application(["mine"]), arguments(good, run, **options))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    return str(result.stderr)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dataset": "imagenet-vall"}, "Did you mean imagenet-val"),
        ({"dataset": "nowhere/{0..3}.tar"}, "4 of 4 shards are missing"),
        ({"dataset": "pipe:ls"}, "only folders and tars"),
        ({"dataset": "imagenet-val", "data": "nowhere"}, "ILSVRC2012_img_val.tar"),
        ({"model": "resnet52"}, "Did you mean resnet"),
        ({"model": "demo2"}, "Did you mean demo"),
        ({"model": "../x"}, "There is no network"),
        ({"layers": "stem.relo"}, "There is no layer 'stem.relo'"),
        ({"layers": "xyz.*"}, "No unit-bearing layer matches 'xyz.*'"),
        ({"weights": "gone.safetensors"}, "There is no weights file"),
        ({"device": "cuda:77"}, "DEVICE=cuda:77 cannot be used"),
        ({"device": "toaster"}, "DEVICE=toaster cannot be used"),
    ],
    ids=str,
)
def test_unknown_words_get_one_sentence(options: dict[str, str], sentence: str, good: Path, tmp_path: Path) -> None:
    assert sentence in complaint(good, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        bytes(8) + b"{}",
    ],
)
def test_weights_that_are_none_get_one_sentence(data: bytes, good: Path, tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(data)
        assert f"{name} cannot be read as weights" in complaint(good, tmp_path / "run", weights=str(tmp_path / name))


def test_a_run_that_cannot_be_written_gets_one_sentence(good: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for run in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/actmine"), Path("/dev/null/x")):
        assert "cannot be written" in complaint(good, run), run
    assert (tmp_path / "file").read_bytes() == b"x"


def test_a_name_that_is_too_long_gets_one_sentence(good: Path, tmp_path: Path) -> None:
    assert "cannot be written" in complaint(good, tmp_path / ("x" * 300))
    assert "There is no weights file" in complaint(good, tmp_path / "run", weights="x" * 300)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_identity_of_a_run_gets_one_sentence(data: bytes, good: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "run", {"state/identity.json": data})
    assert "identity.json" in complaint(good, tmp_path / "run")


def test_a_disk_that_is_full_gets_one_sentence(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("actmine.pipeline.storage.files.os.fsync", full)
    assert "No space left on device" in complaint(good, tmp_path / "run")


def test_a_run_of_another_dataset_is_refused(good: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(application(["mine"]), arguments(good, tmp_path / "run"))
    assert result.exit_code == 0, result.output
    other = write_folder(tmp_path / "other", {"1.jpg": jpeg()})
    assert "was begun with other settings" in complaint(other, tmp_path / "run")


def shell(words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "actmine", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_truncated_tar_ends_the_command_with_one_sentence_and_keeps_no_short_count(tmp_path: Path) -> None:
    path = image_tar(tmp_path / "in" / "0.tar", 6)
    path.write_bytes(path.read_bytes()[:9000])
    result = shell(arguments(path, tmp_path / "run"))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: Shard {path} is damaged after byte ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert not (tmp_path / "run" / "shards.parquet").exists()


def test_an_unknown_layer_ends_the_command_with_near_matches(good: Path, tmp_path: Path) -> None:
    result = shell(arguments(good, tmp_path / "run", model="squeezenet1_1", layers="features.3.sqeeze"))
    assert result.returncode == 1
    assert "Did you mean features.3.squeeze" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_json_is_all_that_a_script_reads(good, tmp_path):
    result = CliRunner().invoke(application(["mine"]), [*arguments(good, tmp_path / "run"), "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and result.stderr == ""
    assert told["run"] == str(tmp_path / "run") and told["counts"]["seen"] == 4
    assert told == {"run": told["run"], **json.loads((tmp_path / "run" / "run.json").read_text())}
