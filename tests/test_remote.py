"""Files over HTTP and S3: every byte right whatever fails on the way, or one sentence that says what to do."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import numpy as np
import pytest

from actmine.pipeline.datasets import range_requests, remote
from actmine.pipeline.datasets.http_requests import _retry_after
from actmine.pipeline.datasets.range_requests import Absent, Changed, Refused, RemoteError, file_name, public
from actmine.pipeline.datasets.remote import (
    RemoteFile,
    list_below,
    look_beside,
    look_up,
    open_stream,
    read_range,
    remote_file,
)
from tests.serving import FAULTS, Server, impatient, s3_store, web_server

for package in ("aiohttp", "tenacity"):
    pytest.importorskip(package, reason="needs the extra http")

DATA = np.random.default_rng(0).bytes(23_456)


@dataclass
class Place:
    """Where the test's files are: `a.bin` and `empty.bin`."""

    url: str
    server: Server


@pytest.fixture(scope="module")
def patch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("web")
    (folder / "a.bin").write_bytes(DATA)
    (folder / "empty.bin").write_bytes(b"")
    with web_server(folder) as server:
        yield Place(server.url, server)


@pytest.fixture(scope="module")
def store(patch_module: pytest.MonkeyPatch) -> Iterator[Place]:
    impatient(patch_module)  # a client of s3 keeps the timeouts it was made with
    with s3_store(patch_module) as found:
        yield Place(found.put("remote", {"a.bin": DATA, "empty.bin": b""}), found.server)


@pytest.fixture(params=["web", "store"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    found: Place = request.getfixturevalue(request.param)
    impatient(monkeypatch)
    found.server.asked.clear()
    yield found
    found.server.fault = lambda path, before: ""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


def read(url: str) -> bytes:
    with open_stream(remote_file(url)) as stream:
        return stream.read()


def refusal(url: str) -> str:
    with pytest.raises(RemoteError) as caught:
        read(url)
    return str(caught.value)


def test_a_stream_is_the_file_in_blocks_of_any_length(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_requests, "READ_SECONDS", 30.0)  # each block is asked for once, however busy the machine
    for length in (700, 5000, len(DATA), 1 << 20):
        monkeypatch.setattr(remote, "BLOCK_BYTES", length)
        place.server.asked.clear()
        assert read(f"{place.url}/a.bin") == DATA
        assert len(place.server.asked) == 1 + -(-len(DATA) // length)
    assert read(f"{place.url}/empty.bin") == b""


def test_a_range_is_those_bytes(place: Place) -> None:
    (file,) = look_up([f"{place.url}/a.bin"])
    assert file is not None and file.size == len(DATA)
    for begin, end in ((0, 1), (17, 4711), (len(DATA) - 5, len(DATA)), (5, 5)):
        assert read_range(file, begin, end) == DATA[begin:end]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_passes_costs_nothing_but_time(fault: str, place: Place) -> None:
    place.server.fault = lambda path, before: fault if before % 3 == 1 else ""
    assert read(f"{place.url}/a.bin") == DATA
    assert len(place.server.asked) >= 8  # one for the size, five blocks, and again what failed


@pytest.mark.parametrize("fault", ["500", "cut"])
def test_a_failure_that_stays_is_one_sentence(fault: str, place: Place) -> None:
    place.server.fault = lambda path, before: fault if before else ""
    text = refusal(f"{place.url}/a.bin")
    assert text.startswith(f"{place.url}/a.bin cannot be read: the ")
    assert "4 times" in text and "\n" not in text


def test_what_is_missing_or_forbidden_is_asked_for_once(place: Place) -> None:
    assert look_up([f"{place.url}/gone.bin"]) == [None]
    assert len(place.server.asked) == 1
    with pytest.raises(Absent, match="there is no such"):
        read(f"{place.url}/gone.bin")
    place.server.asked.clear()
    place.server.fault = lambda path, before: "403"
    with pytest.raises(Refused, match="403"):
        look_up([f"{place.url}/a.bin"])
    assert len(place.server.asked) == 1
    assert look_beside([remote_file(f"{place.url}/a.bin")]) == [None]


def test_a_server_that_ignores_ranges_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    good = place.server.answer

    def whole(handler):  # type: ignore[no-untyped-def]
        del handler.headers["Range"]
        return good(handler)

    monkeypatch.setattr(place.server, "answer", whole)
    text = refusal(f"{place.url}/a.bin")
    assert f"{place.url}/a.bin cannot be read in pieces" in text and "ignores the Range header" in text


def test_a_file_that_changes_is_never_read_as_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = look_up([f"{place.url}/a.bin"])
    assert file is not None and file.version
    for other in (RemoteFile(file.url, file.address, file.size + 1), RemoteFile(file.url, file.address, -1, "other")):
        with pytest.raises(Changed, match=r"has changed while it was in use: its (size|ETag) was"):
            read_range(other, 0, 10)
    with pytest.raises(Changed, match="now 23456"):
        read_range(RemoteFile(file.url, file.address, 1 << 20), 500_000, 500_010)


def test_many_files_are_looked_up_at_once_in_order(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_requests, "READ_SECONDS", 30.0)  # a busy machine answers the last of them late
    seen: list[int] = []
    words = [f"{place.url}/{'a' if number % 3 else 'gone'}.bin" for number in range(200)]
    found = look_up(words, seen.append)
    assert [file is not None for file in found] == [number % 3 > 0 for number in range(200)]
    assert seen == [1] * 200


def test_a_stream_that_is_closed_early_asks_no_more(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BLOCK_BYTES", 100)
    with open_stream(remote_file(f"{place.url}/a.bin")) as stream:
        assert stream.read(10) == DATA[:10]
    assert len(place.server.asked) < 50


def test_ctrl_c_ends_a_read_that_hangs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (file,) = look_up([f"{place.url}/a.bin"])
    assert file is not None
    monkeypatch.setattr(remote, "ATTEMPTS", 1000)
    asked = threading.Event()

    def stall(path: str, before: int) -> str:
        asked.set()
        return "stall"

    place.server.fault = stall

    def interrupt() -> None:
        asked.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt), open_stream(file) as stream:
            stream.read()
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


# where there is nobody


def test_a_host_that_never_answered_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/a.tar"
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 1e6)
    monkeypatch.setattr(remote, "LONGEST_WAIT_SECONDS", 1e6)
    text = refusal(url)
    assert text.startswith(f"{url} cannot be read: 127.0.0.1 cannot be reached") and "whether its server runs" in text
    assert "there is no host nowhere.invalid" in refusal("http://nowhere.invalid/a.tar")


def test_a_host_that_has_answered_before_is_waited_for(web: Place, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    with web_server(tmp_path) as server:
        url = f"{server.url}/a.bin"
        (file,) = look_up([url])
    assert file is not None
    with pytest.raises(RemoteError, match="4 times"):
        read_range(file, 0, 10)


def test_no_certificate_no_bytes(web: Place) -> None:
    text = refusal(web.url.replace("http:", "https:") + "/a.bin")
    assert "cannot be read" in text and "\n" not in text


def test_missing_packages_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", refuse)
    assert "pip install 'actmine[s3]'" in refusal("s3://bucket/a.tar")
    assert "pip install 'actmine[http]'" in refusal("https://host/a.tar")


# s3


def test_a_bucket_that_is_not_there_is_named(store: Place) -> None:
    assert "there is no bucket 'no-such-bucket'" in refusal("s3://no-such-bucket/a.bin")
    with pytest.raises(RemoteError, match="there is no bucket"):
        list_below("s3://no-such-bucket/")


def test_missing_credentials_are_one_sentence(store: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from s3fs import S3FileSystem

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    S3FileSystem.clear_instance_cache()
    assert "without credentials" in (text := refusal("s3://remote/a.bin"))
    assert "FSSPEC_S3_ANON=true" in text
    monkeypatch.setitem(fsspec.config.conf, "s3", {"anon": True})
    assert read("s3://remote/a.bin") == DATA
    S3FileSystem.clear_instance_cache()


def test_an_s3_store_that_is_not_there_is_one_sentence(store: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    S3FileSystem.clear_instance_cache()
    assert "the store cannot be reached. Check AWS_ENDPOINT_URL" in refusal("s3://remote/a.bin")
    S3FileSystem.clear_instance_cache()


def test_a_listing_is_complete_and_retried(store: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store.server.fault = lambda path, before: "503" if before == 0 else ""
    store.server.asked.clear()
    found = list_below("s3://remote/")
    store.server.fault = lambda path, before: ""
    assert [(file.url, file.size) for file in found] == [
        ("s3://remote/a.bin", len(DATA)), ("s3://remote/empty.bin", 0),
    ]  # fmt: skip
    assert read_range(found[0], 3, 9) == DATA[3:9]


# secrets


def test_passwords_and_signatures_are_used_and_never_shown(web: Place) -> None:
    host = web.url.removeprefix("http://")
    word = f"http://someone:geheim@{host}/a.bin?X-Amz-Signature=abc%2Fdef&x=1"
    (file,) = look_up([word])
    assert file is not None
    assert file.url == f"{web.url}/a.bin"
    assert web.server.headers[-1]["Authorization"].startswith("Basic ")
    assert not any(secret in repr(file) for secret in ("geheim", "someone", "abc"))
    web.server.fault = lambda path, before: "403"
    try:
        text = refusal(word)
    finally:
        web.server.fault = lambda path, before: ""
    assert not any(secret in text for secret in ("geheim", "someone", "abc"))
    # in this process the shown URL finds its way
    assert remote_file(file.url).address == file.address


def test_a_signature_reaches_the_server_as_it_was_written(web: Place) -> None:
    seen = []
    good = web.server.answer
    web.server.answer = lambda handler: (seen.append(handler.path), good(handler))[1]
    read(f"{web.url}/a.bin?sig=a%2Fb%3D&y=c+d")
    web.server.answer = good
    assert set(seen) == {"/a.bin?sig=a%2Fb%3D&y=c+d"}


def test_what_may_be_shown() -> None:
    assert public("https://u:p@h.org:8/x/a%20b.tar?q=1#f") == "https://h.org:8/x/a%20b.tar"
    assert public("s3://bucket/a?b#c.tar") == "s3://bucket/a?b#c.tar"
    assert file_name("https://h/x/a%20b.tar?q=/c.tar") == "a b.tar"
    assert file_name("s3://bucket/x/a%20b.tar") == "a%20b.tar"


def test_retry_after_is_a_number_or_a_date() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=100)
    assert _retry_after({"Retry-After": "7"}) == 7
    assert 90 < _retry_after({"Retry-After": soon.strftime("%a, %d %b %Y %H:%M:%S GMT")}) <= 100
    assert _retry_after({"Retry-After": "soon"}) == _retry_after({}) == 0


def test_a_server_that_compresses_is_named(web: Place) -> None:
    web.server.fault = lambda path, before: "gzip"
    try:
        assert "its server compresses it" in refusal(f"{web.url}/a.bin")
    finally:
        web.server.fault = lambda path, before: ""
