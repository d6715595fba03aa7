"""Decoding in processes: the same batches as in threads, and nothing is left of them whatever happens to us."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from actmine.pipeline.datasets import decoding
from actmine.pipeline.datasets.batches import Batch, read_batches
from actmine.pipeline.datasets.decoding import decode_processes
from actmine.pipeline.datasets.folder_shards import FolderShard
from actmine.pipeline.datasets.shards import Shard, ShardError
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import Preprocessing
from tests.making import SMALL, encoded, image_tar, jpeg, picture, write_folder, write_tar
from tests.test_batches import make_shards, same
from tests.test_processes import gone

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memory without a name, of Linux")

MIXED = {
    "a/colour.jpg": jpeg(1), "a/grey.jpg": encoded(picture(mode="L"), quality=80), "a/empty.png": b"",
    "a/alpha.png": encoded(picture(30, 50, 2, "RGBA"), "PNG"), "a/broken.jpg": jpeg(3)[:400], "a/notes.txt": b"words",
    "b/deep.png": encoded(Image.fromarray(np.arange(0, 60_000, 20, dtype=np.uint16).reshape(50, 60)), "PNG"),
    "b/line.png": encoded(picture(30_000, 1), "PNG"), "b/no.jpg": b"no image",
    "b/small.webp": encoded(picture(9, 7), "WEBP"), "b/large.png": encoded(picture(300, 200, 4), "PNG"),
    "b/last.gif": encoded(picture(40, 40, 5), "GIF"),
}  # fmt: skip


def children() -> set[int]:
    """The processes that this one has begun and that have not ended."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.add(int(status.parent.name))
    return found


def shared_memory() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:decoding" in line]


@pytest.fixture(autouse=True)
def no_process_and_no_memory_is_left_behind() -> Iterator[None]:
    before = children()
    yield
    gc.collect()  # what was raised has seen the memory
    assert gone(children() - before) and not shared_memory()


def mixed_shards(root: Path) -> list[Shard]:
    """A tar and a folder of all kinds of files, a shard without any, and one of JPEGs."""
    folder = write_folder(root / "folder", MIXED)
    return [
        TarShard(0, str(write_tar(root / "mixed.tar", [*MIXED.items()]))),
        FolderShard(1, str(folder), files=tuple(sorted(MIXED)), classes=("a", "b")),
        TarShard(2, str(write_tar(root / "none.tar", []))),
        TarShard(3, str(image_tar(root / "many.tar", 23))),
    ]


@pytest.mark.parametrize(("processes", "size", "signed"), [(1, 4, True), (3, 5, False)])
def test_processes_make_the_same_batches_as_threads(processes: int, size: int, signed: bool, tmp_path: Path) -> None:
    shards = mixed_shards(tmp_path)
    grey = Preprocessing.usual(20, (16, 16), mean=(0.5,), std=(0.2,))
    for how in (SMALL, grey):
        found = list(read_batches(shards, how, size, 2, signed=signed, processes=processes))
        expected = list(read_batches(shards, how, size, 2, signed=signed))
        assert same(found, expected)
        assert sum(len(batch.rejected) for batch in found) > 4 and found[0].pixels.dtype == np.uint8
        assert all((member.signature is not None) == signed for batch in found for member in batch.members)


def test_images_larger_than_a_slot_go_by_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = mixed_shards(tmp_path)
    expected = list(read_batches(shards, SMALL, 4, 2))
    monkeypatch.setattr(decoding, "_ROOM", 2500)
    assert max(map(len, MIXED.values())) > 5000
    assert same(list(read_batches(shards, SMALL, 4, 2, processes=2)), expected)


def test_one_image_that_takes_long_holds_up_none_behind_it_for_good(tmp_path: Path) -> None:
    slow = encoded(picture(2500, 2500), "PNG")
    files = [(f"{n:03}.png", slow if n == 0 else jpeg(n % 3, 8, 8)) for n in range(300)]
    shards = [TarShard(0, str(write_tar(tmp_path / "a.tar", files)))]
    assert same(list(read_batches(shards, SMALL, 16, 1, processes=2)), list(read_batches(shards, SMALL, 16, 2)))


def inverted(image: Image.Image) -> np.ndarray:
    """Network input by code of one's own, which cannot bear images of 13 pixels."""
    if image.width == 13:
        raise MemoryError("thirteen")
    return 1 - np.asarray(image.resize((6, 5)), np.float32).transpose(2, 0, 1) / 255


def by(transform: object) -> Preprocessing:
    return replace(Preprocessing((), (5, 6)), followed=False, transform=transform)


def test_transforms_of_ones_own_run_there_too_and_what_they_raise_comes_out_in_its_place(tmp_path: Path) -> None:
    good = TarShard(0, str(image_tar(tmp_path / "good.tar", 9)))
    bad = TarShard(1, str(write_tar(tmp_path / "bad.tar", [("a.jpg", jpeg()), ("b.jpg", jpeg(1, 13, 20))])))
    found: list[Batch] = []
    with pytest.raises(MemoryError, match="thirteen"):
        found.extend(read_batches([good, bad], by(inverted), 2, 1, processes=1))
    assert same(found, list(read_batches([good], by(inverted), 2, 1)))
    assert found[0].pixels.dtype == np.float32


def test_where_no_other_process_knows_a_transform_threads_decode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def known(image: Image.Image) -> np.ndarray:
        return inverted(image)

    here = ModuleType("only_here")
    known.__module__, known.__qualname__, here.known = "only_here", "known", known
    monkeypatch.setitem(sys.modules, "only_here", here)
    shards = [TarShard(0, str(image_tar(tmp_path / "a.tar", 9)))]
    expected = list(read_batches(shards, by(inverted), 4, 2))
    before = children()
    for transform in (lambda image: inverted(image), known):
        reading = read_batches(shards, by(transform), 4, 2, processes=2)
        found = [next(reading)]
        assert not children() - before
        assert same([*found, *reading], expected)


def test_what_was_whole_before_a_damaged_shard_comes_out_before_its_error(tmp_path: Path) -> None:
    shards = make_shards(tmp_path, [(5, 1), (6, 0)])
    path = Path(shards[1].url)
    path.write_bytes(path.read_bytes()[:1500])
    found: list[Batch] = []
    with pytest.raises(ShardError, match=r"1\.tar"):
        found.extend(read_batches(shards, SMALL, 2, 1, processes=2))
    assert sum(batch.samples for batch in found if batch.shard is shards[0]) == 6
    assert not any(batch.last for batch in found if batch.shard is shards[1])


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_a_reader_that_leaves_early_ends_the_processes_at_once(taken: int, tmp_path: Path) -> None:
    slow = encoded(Image.new("RGB", (3000, 3000)), "PNG", compress_level=1)
    shards = [TarShard(0, str(write_tar(tmp_path / "a.tar", [(f"{n}.png", slow) for n in range(20)])))]
    before = children()
    reading = read_batches(shards, SMALL, 4, 1, processes=2)
    for _ in range(taken):
        next(reading)
    workers = children() - before
    assert len(workers) == (2 if taken else 0)
    start = time.monotonic()
    reading.close()  # type: ignore[attr-defined]
    assert gone(workers, 0) and time.monotonic() - start < 0.5


def test_a_process_that_is_killed_is_a_sentence(tmp_path: Path) -> None:
    before = children()
    reading = read_batches(
        [TarShard(n, str(image_tar(tmp_path / f"{n}.tar", 60))) for n in range(9)], SMALL, 8, 1, processes=2
    )
    next(reading)
    os.kill(max(children() - before), signal.SIGKILL)
    with pytest.raises(UserError, match=r"exit status -9.*goes on where it stopped"):
        list(reading)


def test_processes_end_when_we_are_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from actmine.pipeline.datasets.batches import read_batches\n"
        "from actmine.pipeline.datasets.tar_shards import TarShard\n"
        "from actmine.pipeline.preprocessing.images import Preprocessing\n"
        "reading = read_batches([TarShard(0, sys.argv[1])], Preprocessing.usual(20, (16, 16)), 2, 1, processes=2)\n"
        "next(reading); assert 'torch' not in sys.modules\n"
        "print(Path('/proc/self/task', str(__import__('os').getpid()), 'children').read_text(), flush=True)\n"
        "time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(image_tar(tmp_path / "a.tar", 40))]
    begun = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert begun.stdout is not None
    workers = {int(word) for word in begun.stdout.readline().split()}
    assert len(workers) == 2 and not gone(workers, 0)
    begun.kill()
    begun.wait()
    assert gone(workers)


def test_a_process_that_decodes_loads_neither_torch_nor_what_reads_tables() -> None:
    code = (
        "import sys, actmine.pipeline.datasets.decode_worker\n"
        "print({'torch', 'torchvision', 'pyarrow'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_only_a_gpu_with_some_cores_has_processes_decode_for_it() -> None:
    assert [decode_processes("cuda", cores) for cores in (1, 3, 4, 16)] == [0, 0, 3, 15]
    assert decode_processes("cpu", 16) == decode_processes("mps", 8) == 0
