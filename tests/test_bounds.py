"""Small files that would cost gigabytes, folders without end, answers without end: each is refused in a sentence."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from actmine.pipeline.atlas.export import export
from actmine.pipeline.datasets.remote import RemoteError, RemoteFile, read_range, read_whole
from actmine.pipeline.datasets.shards import Rejected, Sample, ShardError, read_samples
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.errors import UserError
from actmine.pipeline.preprocessing.images import decode
from actmine.pipeline.run import open_run
from tests.atlas_tables import write_run
from tests.making import encoded, jpeg, labels, member, refusal, write_folder, write_tar
from tests.test_bad_input import run_mine

MEGABYTE = 1 << 20


def peak(work: Callable[[], object]) -> int:
    """The most memory (bytes) that Python and numpy have at once while they work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bits_cost_no_more_than_eight(kind):
    wide = np.arange(3000 * 2000, dtype=np.uint16).reshape(3000, 2000)
    data = encoded(Image.fromarray(wide), kind.upper())
    found: list[Image.Image] = []
    assert peak(lambda: found.append(decode(data))) < 6 * wide.size + 64 * MEGABYTE
    assert np.array_equal(np.asarray(found[0])[..., 1], (wide >> 8).astype(np.uint8))


def test_a_huge_sixteen_bit_picture_is_read_in_strips():
    """348 kB that took 5 GB."""
    side = 5000
    raw = zlib.compress(b"\0" * (2 * side + 1) * side, 9)
    header = struct.pack(">IIBBBBB", side, side, 16, 0, 0, 0, 0)
    chunks = b"".join(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
                      for name, data in ((b"IHDR", header), (b"IDAT", raw), (b"IEND", b"")))  # fmt: skip
    assert peak(lambda: decode(b"\x89PNG\r\n\x1a\n" + chunks)) < 3 * side * side


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_an_extended_header_is_no_place_for_gigabytes(tmp_path, kind):
    path = write_tar(tmp_path / "0.tar", [("a.jpg", jpeg())])
    info = tarfile.TarInfo("long")
    info.size, info.type = 3 << 30, kind
    data = path.read_bytes()
    path.write_bytes(info.tobuf() + data)
    os.truncate(path, 3 << 30)
    with pytest.raises(ShardError, match=r"extended header of 3,221,225,472 bytes"):
        list(read_samples(TarShard(0, str(path))))


def test_the_map_of_a_sparse_file_is_not_read(tmp_path):
    """Its length stands in front of it, and may be any number."""
    info = tarfile.TarInfo("GNUSparseFile.0/b.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b.jpg",
                        "GNU.sparse.realsize": "9"}  # fmt: skip
    info.size = 64 * MEGABYTE
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as writer:
        writer.addfile(info, io.BytesIO(b"99999999\n" + bytes(info.size)))
        plain, data = member("c.jpg", jpeg())
        writer.addfile(plain, io.BytesIO(data))
    (tmp_path / "0.tar").write_bytes(tar.getvalue())
    found: list[Sample | Rejected] = []
    assert peak(lambda: found.extend(read_samples(TarShard(0, str(tmp_path / "0.tar"))))) < 16 * MEGABYTE
    assert [type(each) for each in found] == [Rejected, Sample] and "sparse" in found[0].error  # type: ignore[union-attr]


class _Endless(BaseHTTPRequestHandler):
    """Answers a request for some bytes with a stream of them that does not end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        begin = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{begin + 9}/{self.server.claimed}")  # type: ignore[attr-defined]
        self.send_header("Connection", "close")
        self.end_headers()
        sent = 0
        try:
            while sent < 256 * MEGABYTE:
                sent += self.wfile.write(bytes(MEGABYTE))
        except OSError:
            pass
        self.server.sent = sent  # type: ignore[attr-defined]

    def log_message(self, *words: object) -> None:
        """Nothing."""


@pytest.fixture
def endless():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Endless)
    server.claimed, server.sent = 100, 0  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_an_answer_without_end_is_left_off(endless):
    url = f"http://127.0.0.1:{endless.server_address[1]}/a.tar"
    with pytest.raises(RemoteError, match="sent more bytes than were asked for"):
        read_range(RemoteFile(url, url), 0, 10)
    assert endless.sent < 64 * MEGABYTE


def test_no_index_is_so_long(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "0.tar", [("a.jpg", jpeg())])
    with (tmp_path / "0.index.parquet").open("wb") as hole:
        hole.truncate(64 * MEGABYTE)
    monkeypatch.setattr("actmine.pipeline.datasets.shard_index.MOST_BYTES", MEGABYTE)
    with pytest.raises(ShardError, match=r"cannot be read as one \(it has more than"):
        list(read_samples(TarShard(0, str(path), index=str(tmp_path / "0.index.parquet"))))
    monkeypatch.setattr(
        "actmine.pipeline.datasets.remote.open_stream", lambda file: io.BufferedReader(io.BytesIO(bytes(11)))
    )
    with pytest.raises(RemoteError, match="more than 10 bytes"):
        read_whole(RemoteFile("http://x/a", "http://x/a"), 10)


def test_folders_lie_so_deep_and_no_deeper(tmp_path):
    deep = tmp_path / "in"
    for _ in range(300):
        deep = deep / "x"
    deep.mkdir(parents=True)
    assert "lies more than 100 folders deep" in refusal(tmp_path / "in")


def test_links_that_fan_out_end_at_once(tmp_path):
    """Forty folders, each with two links to the next: a million million ways down."""
    for number in range(40):
        (tmp_path / "in" / f"{number}").mkdir(parents=True)
    for number in range(39):
        for way in "ab":
            (tmp_path / "in" / f"{number}" / way).symlink_to(tmp_path / "in" / f"{number + 1}")
    write_folder(tmp_path / "in" / "39", {"a.jpg": jpeg()})
    assert "are one folder, whose images would be counted twice" in refusal(tmp_path / "in")


def test_a_folder_is_counted_once_and_may_be_a_link(tmp_path):
    pool = write_folder(tmp_path / "pool", {"a/1.jpg": jpeg(1), "b/2.jpg": jpeg(2)})
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / name).symlink_to(pool / name)
    assert labels(find_dataset(str(tmp_path / "in"))) == {"a/1": 0, "b/2": 1}
    (tmp_path / "in" / "c").symlink_to(pool / "a")
    told = refusal(tmp_path / "in")
    assert "c and" in told and "a are one folder" in told


def test_a_run_within_its_dataset_is_no_part_of_it(tmp_path):
    root = write_folder(tmp_path / "in", {f"{n}.jpg": jpeg(n) for n in range(3)})
    before = find_dataset(str(root)).fingerprint
    run_mine(root, root / "runs" / "one")
    (root / "runs" / "one" / "sheets").mkdir()
    (root / "runs" / "one" / "sheets" / "overview.png").write_bytes(jpeg())
    after = find_dataset(str(root))
    assert after.fingerprint == before and after.samples == 3
    run_mine(root, root / "runs" / "one")
    assert "is the folder of a run" in refusal(root / "runs" / "one")
    with pytest.raises(UserError, match="is the folder of the images"):
        run_mine(root, root)


def test_an_export_writes_through_no_link(tmp_path):
    run = open_run(write_run(tmp_path))
    site = export(run, str(tmp_path / "site"), ["block.*"]).page.parent
    for name in ("actmine-atlas.json", "index.html", "layer", "picture", "static"):
        precious = tmp_path / f"precious-{name}"
        if (site / name).is_dir():
            shutil.rmtree(site / name)
            write_folder(precious, {"kept": b"kept"})
        else:
            (site / name).unlink()
            precious.write_bytes(b"kept")
        (site / name).symlink_to(precious)
    export(run, str(site), ["block.*"])
    for precious in tmp_path.glob("precious-*"):
        there = site / precious.name.removeprefix("precious-")
        assert there.exists() and not there.is_symlink()
        kept = precious if precious.is_file() else precious / "kept"
        assert kept.read_bytes() == b"kept" and (precious.is_file() or len(list(precious.iterdir())) == 1)
