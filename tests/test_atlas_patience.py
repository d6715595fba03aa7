"""The atlas's server waits for nobody for ever, and bears no more connections than it can."""

from __future__ import annotations

import asyncio
import socket
import threading
import urllib.request
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse

from actmine.pipeline.atlas import bounds, patience
from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.hosts import LOOPBACK
from actmine.pipeline.atlas.server import application
from tests.atlas_browsing import listened, until
from tests.atlas_tables import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("patience"))


def taken(connection: socket.socket, data: bytes) -> bool:
    """Whether the server still takes something."""
    try:
        connection.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def ended(connection: socket.socket) -> bool:
    """Whether the server has ended a connection, within a few seconds."""
    connection.settimeout(5)
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def test_who_never_ends_to_ask_is_left_and_who_asks_is_answered_however_long_that_takes(monkeypatch):
    monkeypatch.setattr(patience, "ASKING", 0.4)

    async def answers(scope, receive, send):  # type: ignore[no-untyped-def]
        await asyncio.sleep(1 if scope["path"] == "/long" else 0)
        await PlainTextResponse("ok")(scope, receive, send)

    with listened(answers) as port:
        silent, dribbling, again, waiting = (socket.create_connection((LOOPBACK, port)) for _ in range(4))
        waiting.sendall(HEAD.replace(b"/", b"/long", 1) + b"\r\n")
        again.sendall(HEAD + b"\r\n")
        assert b"200 OK" in again.recv(1000)
        again.sendall(HEAD)  # and no end, on a connection that was used
        until(lambda: not taken(dribbling, b"G"))
        assert ended(silent) and ended(again)
        assert b"200 OK" in waiting.recv(1000)
        for each in (silent, dribbling, again, waiting):
            each.close()


def test_a_form_that_does_not_come_to_its_end_is_not_waited_for(run, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.atlas.run_app.ASKING", 0.2)
    head = HEAD.replace(b"GET /", b"POST /notes") + b"Content-Length: 50\r\n\r\ntoken="
    with listened(application(run, desk=Desk("ada"))) as port, socket.create_connection((LOOPBACK, port)) as slow:
        slow.sendall(head)
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")


def test_who_does_not_take_an_answer_is_left(monkeypatch):
    monkeypatch.setattr(patience, "TAKING", 0.4)
    left = threading.Event()

    async def answers(scope, receive, send):  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
        left.set()

    with listened(answers) as port, socket.create_connection((LOOPBACK, port)) as slow:
        slow.sendall(HEAD + b"\r\n")
        assert left.wait(10)  # all the rest is thrown away


@pytest.mark.parametrize(("end", "status"), [(b"\r\n\r\n", b"431"), (b"", b"400")], ids=["whole", "no end"])
def test_a_head_that_is_too_long_is_refused(end, status, run):
    with listened(application(run)) as port, socket.create_connection((LOOPBACK, port)) as long:
        long.sendall(HEAD + b"X: " + b"x" * (bounds.MOST_HEAD + 10_000) + end)
        assert long.recv(1000).split(b" ")[1] == status


def test_too_many_connections_are_refused_and_then_answered(run, monkeypatch):
    monkeypatch.setattr(patience, "MOST_CONNECTIONS", 3)
    with listened(application(run)) as port:
        idle = [socket.create_connection((LOOPBACK, port)) for _ in range(3)]
        with socket.create_connection((LOOPBACK, port)) as more:
            more.sendall(HEAD + b"\r\n")
            assert more.recv(1000).startswith(b"HTTP/1.1 503")
        for each in idle:
            each.close()

        def answered() -> bool:
            with socket.create_connection((LOOPBACK, port)) as new:
                new.sendall(HEAD + b"\r\n")
                return new.recv(1000).startswith(b"HTTP/1.1 200")

        until(answered)


def test_no_answer_waits_for_the_network_to_acknowledge_its_first_part(run, monkeypatch):
    found = []
    made = patience.Patient.connection_made

    def seen(connection: patience.Patient, transport: asyncio.Transport) -> None:
        found.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(connection, transport)

    monkeypatch.setattr(patience.Patient, "connection_made", seen)
    with listened(application(run)) as port, socket.create_connection((LOOPBACK, port)) as one:
        one.sendall(HEAD + b"\r\n")
        assert one.recv(1000).startswith(b"HTTP/1.1 200")
    assert found and all(found)


@pytest.mark.parametrize(
    ("said", "client"), [("", LOOPBACK), ("192.0.2.9", "192.0.2.9"), ("10.1.1.1, 192.0.2.9", "192.0.2.9")]
)
def test_behind_a_proxy_of_this_machine_a_client_is_whom_the_proxy_names(said, client):
    async def answers(scope, receive, send):  # type: ignore[no-untyped-def]
        await PlainTextResponse(scope["client"][0])(scope, receive, send)

    with listened(answers) as port:
        asked = urllib.request.Request(f"http://{LOOPBACK}:{port}", headers={"X-Forwarded-For": said})
        with urllib.request.urlopen(asked) as answer:
            assert answer.read() == client.encode()
