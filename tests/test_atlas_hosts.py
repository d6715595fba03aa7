"""Where the atlas listens: at the port that was named or not at all, and to no name that is not its own."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient
from typer.testing import CliRunner

from actmine.jobs.__main__ import application as commands
from actmine.pipeline.atlas import hosts
from actmine.pipeline.atlas.hosts import LOOPBACK, address, listening, name_of, names
from actmine.pipeline.atlas.server import application
from actmine.pipeline.errors import UserError
from tests.atlas_tables import write_run

MACHINE = "node17.cluster"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("hosts"))


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: MACHINE)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that somebody else listens at, and where the atlas begins to look for one."""
    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        monkeypatch.setattr(hosts, "PORT", other.getsockname()[1])
        yield other.getsockname()[1]


def asked(run: Path, *words: str) -> tuple[int, str, str]:
    """How the command ends, what it answers and what it says beside that."""
    done = CliRunner().invoke(commands(["atlas", "sheets"]), ["atlas", "--run", str(run), *words])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def answers(run: Path, host: str, allowed: tuple[str, ...], names_: tuple[str, ...]) -> list[int]:
    with listening(0, host) as there:
        alone = hosts.is_alone(there)
    app = application(run, names=names(host, allowed, alone), open=not alone)
    client = TestClient(app, base_url="http://127.0.0.1:8420")
    return [client.get("/static/atlas.css", headers={"Host": name}).status_code for name in names_]


def test_a_port_that_was_named_and_is_taken_ends_in_one_sentence(run, taken):
    code, answer, said = asked(run, "--port", str(taken))
    assert (code, answer) == (1, "")
    assert said == f"error: Port {taken} is taken. Say another PORT, or none for the next that is free."


def test_without_a_named_port_the_next_free_one_is_taken_and_said(run, taken, monkeypatch):
    monkeypatch.setattr("actmine.pipeline.atlas.server.PORT", taken)
    code, answer, said = asked(run)
    at = int(answer.rsplit(":", 1)[1])
    assert code == 0 and at > taken
    assert f"Port {taken} is taken, so it is {at}." in said


@pytest.mark.parametrize("flags", [(), ("--quiet",), ("--json",)])
def test_the_address_is_always_said(run, flags):
    code, answer, said = asked(run, "--port", "0", *flags)
    told = json.loads(answer)["address"] if "--json" in flags else answer.strip()
    assert code == 0 and told.startswith(f"http://{LOOPBACK}:")
    assert not said or not flags


def test_at_all_addresses_it_says_the_machines_name_and_warns_that_others_can_look(run):
    code, answer, said = asked(run, "--port", "0", "--host", "0.0.0.0")
    assert code == 0 and answer.startswith(f"http://{MACHINE}:")
    assert "Everyone who can reach port" in said
    assert "Everyone" not in asked(run, "--port", "0")[2]


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "a b", ".."])
def test_an_address_that_is_not_this_machines_is_refused_in_a_sentence(run, host):
    code, answer, said = asked(run, "--port", "0", "--host", host)
    assert (code, answer) == (1, "") and said.startswith(f"error: HOST={host} ")


def test_listening_on_ipv6_writes_its_address_in_brackets():
    try:
        there = listening(0, "::1")
    except UserError:
        pytest.skip("needs IPv6")
    with there:
        assert address("::1", there) == f"http://[::1]:{there.getsockname()[1]}"


def test_a_name_of_this_machine_that_leads_to_loopback_is_loopback(run, monkeypatch):
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *words, **more: real(LOOPBACK, *words, **more))
    code, answer, said = asked(run, "--port", "0", "--host", "debian")
    assert code == 0 and answer.startswith("http://debian:") and "Everyone" not in said
    assert answers(run, "debian", (), ("debian:8420", "localhost", MACHINE, "10.0.0.5")) == [200, 200, 400, 400]


OTHERS = (
    "evil.example",
    "127.0.0.1.evil",
    "localhost.evil",
    "evil.localhost",
    "",
    "a b",
    "<b>",
    "x" * 300,
    "[evil]:80",
)


def test_on_loopback_only_this_machines_own_names_are_answered(run):
    own = ("127.0.0.1:8420", "127.0.0.1", "LOCALHOST:8420", "localhost.", "[::1]:8420")
    others = (*OTHERS, MACHINE, "10.0.0.5", "10.0.0.5:8420", "[fe80::1]:8420")
    assert answers(run, LOOPBACK, (), own) == [200] * len(own)
    assert answers(run, LOOPBACK, (), others) == [400] * len(others)


def test_beyond_loopback_the_machines_name_and_numbers_are_answered_but_no_foreign_name(run):
    own = ("localhost:8420", MACHINE, f"{MACHINE.upper()}:8420", "node17:1", "10.0.0.5:8420", "[fe80::1]:8420")
    assert answers(run, "0.0.0.0", (), own) == [200] * len(own)
    assert answers(run, "0.0.0.0", (), OTHERS) == [400] * len(OTHERS)


def test_further_names_are_answered_where_they_were_allowed_one_by_one_or_with_commas(run):
    allowed = ("proxy.example, b.example:443", "C.example")
    own = ("proxy.example", "b.example:443", "b.example", "c.example:80", "localhost")
    assert answers(run, LOOPBACK, allowed, own) == [200] * len(own)
    assert answers(run, LOOPBACK, allowed, OTHERS) == [400] * len(OTHERS)


@pytest.mark.parametrize("name", ["*", "*.example", "http://proxy.example", "a b", "proxy.example/x", "[evil]"])
def test_what_is_no_name_of_a_host_cannot_be_allowed(run, name):
    code, answer, said = asked(run, "--port", "0", "--allow-host", name)
    assert (code, answer) == (1, "") and said.startswith(f"error: ALLOW_HOST={name} is not the name of a host.")


def test_who_is_refused_is_told_how_to_be_allowed_and_no_markup_comes_back(run):
    client = TestClient(application(run), base_url="http://127.0.0.1:8420")
    refused = client.get("/", headers={"Host": "node17.cluster:8420"})
    assert "--allow-host node17.cluster" in refused.text and refused.headers["content-type"].startswith("text/plain")
    assert "<" not in client.get("/", headers={"Host": "<script>"}).text


def test_a_header_names_a_host_with_or_without_its_port():
    said = {
        "a.b:1": "a.b",
        "A.B": "a.b",
        "a.b.": "a.b",
        "[::1]:9": "::1",
        "[::1]": "::1",
        "a:b": "",
        "a/b": "",
        ":1": "",
    }
    assert {each: name_of(each) for each in said} == said
