"""The official archives through torchvision: extracted or downloaded once, whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision
from torchvision.datasets import imagenet

from actmine.pipeline.datasets.sources import find_dataset
from tests.making import jpeg, labels, refusal, write_tar

SYNSETS = ["n01440764", "n01443537", "n01484850"]


def write_devkit(path: Path, truth: list[int]) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    synsets = np.zeros(len(SYNSETS) + 1, [(name, object) for name in ("id", "wnid", "words", "gloss", "children")])
    for row, wnid in enumerate([*SYNSETS, "n00000000"]):
        synsets[row] = (row + 1, wnid, f"thing {row}, other name", "gloss", int(row == len(SYNSETS)))
    meta = io.BytesIO()
    scipy_io.savemat(meta, {"synsets": synsets})
    with tarfile.open(path, "w:gz") as tar:
        for name, data in (
            ("meta.mat", meta.getvalue()),
            ("ILSVRC2012_validation_ground_truth.txt", "".join(f"{n}\n" for n in truth).encode()),
        ):
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`data/imagenet-val` with the official archive and devkit, tiny."""
    root = tmp_path / "imagenet-val"
    names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 6)]
    write_tar(root / "ILSVRC2012_img_val.tar", [(name, jpeg(n)) for n, name in enumerate(names)])
    write_devkit(root / "ILSVRC2012_devkit_t12.tar.gz", [3, 1, 2, 1, 3])
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in root.iterdir()}
    monkeypatch.setitem(
        imagenet.ARCHIVE_META, "val", ("ILSVRC2012_img_val.tar", sums["ILSVRC2012_img_val.tar"])
    )  # fmt: skip
    monkeypatch.setitem(
        imagenet.ARCHIVE_META, "devkit", ("ILSVRC2012_devkit_t12.tar.gz", sums["ILSVRC2012_devkit_t12.tar.gz"])
    )
    return root


def test_the_official_imagenet_archive_is_extracted_once(official: Path, tmp_path: Path) -> None:
    for _ in range(2):
        dataset = find_dataset("imagenet-val", tmp_path)
        found = {key.rpartition("_")[2]: label for key, label in labels(dataset).items()}
        assert found == {"00000001": 2, "00000002": 0, "00000003": 1, "00000004": 0, "00000005": 2}
        assert not (official / "unfinished").exists()
        (official / "ILSVRC2012_img_val.tar").unlink(missing_ok=True)


def test_an_interrupted_extraction_never_looks_whole(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, moved = imagenet.shutil.move, []

    def interrupted(*args: str) -> str:
        moved.append(args)
        if len(moved) == 3:
            raise KeyboardInterrupt
        return str(move(*args))

    monkeypatch.setattr(imagenet.shutil, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_dataset("imagenet-val", tmp_path)
    assert sorted(labels(find_dataset("imagenet-val", tmp_path)).values(), key=str) == [0, 0, 1, 2, 2]


def test_an_official_archive_that_is_damaged_or_alone_says_so(official: Path, tmp_path: Path) -> None:
    (official / "ILSVRC2012_devkit_t12.tar.gz").rename(tmp_path / "devkit")
    assert "ILSVRC2012_devkit_t12.tar.gz" in refusal("imagenet-val", tmp_path)
    (tmp_path / "devkit").rename(official / "ILSVRC2012_devkit_t12.tar.gz")
    with (official / "ILSVRC2012_img_val.tar").open("ab") as archive:
        archive.write(b"x")
    text = refusal("imagenet-val", tmp_path)
    assert "ILSVRC2012_img_val.tar" in text
    assert "corrupted" in text
    assert not (official / "val").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served on loopback, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def pack_imagenette(path: Path) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for number, name in enumerate(["n03888257/1.JPEG", "n01440764/2.JPEG", "n01440764/3.JPEG"]):
            for split in ("train", "val"):
                info = tarfile.TarInfo(f"imagenette2/{split}/{name}")
                info.size = len(jpeg(number))
                tar.addfile(info, io.BytesIO(jpeg(number)))
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_imagenette_is_downloaded_once_and_speaks_in_words(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    md5 = pack_imagenette(folder / "imagenette2.tgz")
    archives = {"full": (f"{address}/imagenette2.tgz", md5)}
    monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", archives)
    for _ in range(2):
        dataset = find_dataset("imagenette", tmp_path / "data")
        assert (dataset.name, dataset.classes) == ("imagenette", ("tench", "parachute"))
        assert labels(dataset) == {"n01440764/2": 0, "n01440764/3": 0, "n03888257/1": 1}
        assert dataset.label_words([f"word {n}" for n in range(1000)]) == ("tench", "parachute")
        (folder / "imagenette2.tgz").unlink(missing_ok=True)


@pytest.mark.parametrize("damage", ["gone", "changed", "no server"])
def test_a_failed_download_says_what_to_do_and_can_be_tried_again(
    damage: str, server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    md5 = pack_imagenette(folder / "imagenette2.tgz")
    whole = (folder / "imagenette2.tgz").read_bytes()
    archives = {"full": (f"{address}/imagenette2.tgz", md5)}
    monkeypatch.setattr(torchvision.datasets.Imagenette, "_ARCHIVES", archives)
    if damage == "gone":
        (folder / "imagenette2.tgz").unlink()
    elif damage == "changed":
        (folder / "imagenette2.tgz").write_bytes(whole[:-50])
    else:
        archives["full"] = ("http://127.0.0.1:9/imagenette2.tgz", md5)
    text = refusal("imagenette", tmp_path)
    assert len(text.splitlines()) == 3
    assert re.search(r"extract it so that .*imagenette2/val/ exists", text)
    (folder / "imagenette2.tgz").write_bytes(whole)
    archives["full"] = (f"{address}/imagenette2.tgz", md5)
    assert len(labels(find_dataset("imagenette", tmp_path))) == 3
