"""Servers on loopback for the tests: files over HTTP and an S3 store, both of which fail on demand."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from actmine.pipeline.datasets import range_requests, remote

Answer = tuple[int, dict[str, str], bytes]
FAULTS = ("500", "503", "429", "reset", "cut", "stall")
"""Failures that pass: two in the status, two in the body, and silence."""


class Server(ThreadingHTTPServer):
    """Answers like a good web server, except where `fault` names a failure for a request.

    `fault` is called with the path and how often it was asked for before, while `range` is what is asked of it;
    `asked` lists the paths of all requests.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[BaseHTTPRequestHandler], Answer]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.fault: Callable[[str, int], str] = lambda path, before: ""
        self.asked: list[str] = []
        self.range = ""
        self.headers: list[dict[str, str]] = []
        self.closing = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.server.closing.is_set():
            self.close_connection = True
            return
        path = unquote(urlsplit(self.path).path)
        with self.server.lock:
            self.server.range = self.headers.get("Range", "")
            fault = self.server.fault(path, self.server.asked.count(path))
            self.server.asked.append(path)
            self.server.headers.append(dict(self.headers))
        if fault == "stall":
            self.server.closing.wait(30)
            self.close_connection = True
            return
        if fault.isdigit():
            status, headers, body = int(fault), {"Retry-After": "0"} if fault == "503" else {}, b"<Error/>"
        else:
            status, headers, body = self.server.answer(self)
        if fault == "gzip":
            body, headers = gzip.compress(body), headers | {"Content-Encoding": "gzip"}
        self.send_response(status)
        for name, word in headers.items():
            self.send_header(name, word)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "reset"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.wfile.write(body)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def in_pieces(data: bytes, handler: BaseHTTPRequestHandler) -> Answer:
    """A file or the part of it that was asked for, as RFC 9110 has it."""
    headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Accept-Ranges": "bytes"}
    span = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
    if not span:
        return 200, headers, data
    begin, end = int(span[1]), min(int(span[2]) + 1, len(data))
    if begin >= len(data):
        return 416, headers | {"Content-Range": f"bytes */{len(data)}"}, b""
    return 206, headers | {"Content-Range": f"bytes {begin}-{end - 1}/{len(data)}"}, data[begin:end]


@contextmanager
def running(answer: Callable[[BaseHTTPRequestHandler], Answer]) -> Iterator[Server]:
    """A server that stops by itself."""
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def web_server(folder: Path) -> Iterator[Server]:
    """Serves the files below a folder."""

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        file = folder / unquote(urlsplit(handler.path).path).lstrip("/")
        return in_pieces(file.read_bytes(), handler) if file.is_file() else (404, {}, b"")

    with running(answer) as server:
        yield server


@contextmanager
def proxy(host: str, port: int) -> Iterator[Server]:
    """Passes every request on to another server, unless it is told to fail."""

    def answer(handler: BaseHTTPRequestHandler) -> Answer:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(host, port, timeout=30)
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        response = connection.getresponse()
        drop = ("content-length", "transfer-encoding", "connection")
        headers = {name: word for name, word in response.getheaders() if name.lower() not in drop}
        data = response.read()
        connection.close()
        return response.status, headers, data

    with running(answer) as server:
        yield server


class Store:
    """An S3 store behind a `proxy`; `put` fills it without failures."""

    def __init__(self, server: Server, endpoint: str) -> None:
        import boto3

        self.server = server
        self.client = boto3.client("s3", endpoint_url=endpoint)

    def put(self, bucket: str, files: dict[str, bytes]) -> str:
        """Makes the bucket with objects by key; returns its URL."""
        self.client.create_bucket(Bucket=bucket)
        for key, data in files.items():
            self.client.put_object(Bucket=bucket, Key=key, Body=data, ACL="public-read")
        return f"s3://{bucket}"


@contextmanager
def s3_store(patch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty S3 store on loopback, which the environment points to."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    moto = pytest.importorskip("moto.server", reason="needs moto[server]")
    from s3fs import S3FileSystem

    from actmine.pipeline.storage.bucket import _Files

    def forgotten() -> None:
        """No file system is used again that other tests made, with other keys."""
        S3FileSystem.clear_instance_cache()
        _Files.clear_instance_cache()

    real = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    real.start()
    try:
        host, port = real.get_host_and_port()
        for name, word in (
            ("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing"), ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ):  # fmt: skip
            patch.setenv(name, word)
        with proxy(host, port) as server:
            patch.setenv("AWS_ENDPOINT_URL", server.url)
            forgotten()
            yield Store(server, f"http://{host}:{port}")
    finally:
        real.stop()
        forgotten()


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Short waits and small blocks; nothing remembered of other tests; no proxy between us and loopback."""
    for name, value in (
        ("ATTEMPTS", 4), ("FIRST_WAIT_SECONDS", 0.001), ("LONGEST_WAIT_SECONDS", 0.01), ("BLOCK_BYTES", 5000),
        ("_answered", set()), ("_addresses", {}),
    ):  # fmt: skip
        patch.setattr(remote, name, value)
    patch.setattr(range_requests, "READ_SECONDS", 0.5)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
    patch.setenv("no_proxy", "127.0.0.1,localhost")
