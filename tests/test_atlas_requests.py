"""What the atlas's server answers whoever asks: guarded at every address, compressed, no more than it can bear."""

from __future__ import annotations

import gzip
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from actmine.pipeline.atlas import bounds
from actmine.pipeline.atlas.bounds import Bounded, Heavy, Rate, client_of
from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.guarded import around
from actmine.pipeline.atlas.hosts import OWN
from actmine.pipeline.atlas.run_app import Queues
from actmine.pipeline.atlas.server import application
from actmine.pipeline.atlas.take_away import FILES
from tests.atlas_browsing import browsing, unit_path, until
from tests.atlas_tables import PLAIN, write_run

FILLED = {
    "{by}": "units", "{kind}": "bin", "{level:number}": "1", "{place:number}": "0",
    "{layer}": "block.relu", "{unit:number}": "2", "{unit}": "2", "{image:number}": "0", "{image}": "0",
    "{name}": "cite.bib", "{what:path}": "crop/1",
}  # fmt: skip
SAFE = {
    "content-security-policy": "", "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("requests"), extra=True)


@pytest.fixture(scope="module")
def atlas(run: Path) -> TestClient:
    return browsing(run)


def filled(path: str) -> str:
    for part, word in FILLED.items():
        path = path.replace(part, "atlas.css" if part == "{name}" and "static" in path else word)
    assert "{" not in path
    return path


def test_every_answer_at_every_address_is_guarded_whatever_its_status(run):
    app = application(run)
    atlas = TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)
    statuses = set()
    for route in app.routes:
        assert isinstance(route, Route)
        path = filled(route.path)
        there = atlas.get(path)
        tag = {"if-none-match": there.headers.get("etag", "")}
        for answer in (
            there, atlas.head(path), atlas.post(path), atlas.delete(path), atlas.get(path, headers=tag),
            atlas.get(path, headers={"host": "evil.example"}), atlas.get(f"{path}/no/such"), atlas.get(f"{path}/"),
            atlas.get(f"{path}?{'x' * 9000}"), atlas.get(path, headers={"content-length": "9" * 12}),
        ):  # fmt: skip
            statuses.add(answer.status_code)
            for name, value in SAFE.items():
                assert value in answer.headers.get(name, "none"), (path, answer.status_code, name)
            assert "default-src" in answer.headers["content-security-policy"]
            assert not {"access-control-allow-origin", "server", "set-cookie"} & answer.headers.keys()
            if path.startswith("/api") and answer.status_code >= 400:
                assert answer.json().keys() == {"error"}, path
    assert statuses >= {200, 304, 307, 400, 403, 404, 405, 413, 414}


@pytest.mark.parametrize("path", ["/api/run", "/"])
def test_what_nobody_foresaw_is_an_answer_that_is_guarded_too_and_an_error_in_the_terminal(path, run, monkeypatch):
    def broken(*words: object) -> None:
        raise ZeroDivisionError("a bug")

    for name in ("answer_rows.run", "pages.run_page"):
        monkeypatch.setattr(f"actmine.pipeline.atlas.{name}", broken)
    app = Starlette(routes=[Route(path, broken)], middleware=around(OWN, False, ()))
    with pytest.raises(ZeroDivisionError):
        TestClient(app, base_url="http://127.0.0.1").get(path)
    answer = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False).get(path)
    assert answer.status_code == 500 and "a bug" not in answer.text and "terminal" in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_pages_and_rows_are_compressed_and_pictures_are_not(atlas):
    for path, compressed in {
        "/": True, unit_path(PLAIN, 2): True, f"/api{unit_path(PLAIN, 2)}": True, "/api/openapi.json": True,
        "/static/atlas.js": True, "/static/atlas.css": True, "/picture/block.relu/2/crop/1": False, "/whole/1": False,
        "/take/block.relu/2/exemplars.csv": False, "/api/search": False,
    }.items():  # fmt: skip
        with atlas.stream("GET", path, headers={"accept-encoding": "gzip"}) as answer:
            sent, said = b"".join(answer.iter_raw()), answer.headers
        plain = atlas.get(path, headers={"accept-encoding": "identity"})
        assert (said.get("content-encoding") == "gzip") == compressed, path
        assert (gzip.decompress(sent) if compressed else sent) == plain.content
        assert len(sent) == int(said["content-length"]) and "content-encoding" not in plain.headers
        if compressed:
            assert said["vary"] == plain.headers["vary"] == "Accept-Encoding"
            assert said["etag"].startswith("W/") and said["etag"] == plain.headers["etag"]


def test_a_body_or_an_address_that_is_too_long_is_refused(atlas, run):
    assert atlas.get(f"/search?q={'x' * 8000}").status_code == 200
    assert atlas.get(f"/search?q={'x' * 8200}").status_code == atlas.get(f"/{'x' * 8200}").status_code == 414
    assert atlas.request("GET", "/", content=b"x" * 70_000).status_code == 413
    assert atlas.get("/", headers={"content-length": "-1"}).status_code == 413
    desk = Desk("ada")
    noting = TestClient(application(run, desk=desk), base_url="http://127.0.0.1")
    parts = (b"x" * 10_000 for _ in range(10))  # in pieces, whose sum nobody says beforehand
    assert noting.post("/notes", content=parts).status_code == 413


def test_a_client_asks_as_often_as_it_may_and_waits_for_more():
    now = [0.0]
    rate = Rate(burst=5, per_second=2, clock=lambda: now[0])
    answered = {"one": 0, "other": 0}
    for step in range(200):  # four a second, for 50 seconds
        now[0] = step / 4
        answered["one"] += rate.wait("one") == 0
    assert answered["one"] == pytest.approx(5 + 2 * 49.75, abs=1)
    wait = rate.wait("one")
    assert 0 < wait <= 0.5 and rate.wait("other") == 0
    now[0] += wait
    assert rate.wait("one") == 0


def test_clients_that_are_forgotten_take_no_memory(monkeypatch):
    monkeypatch.setattr(bounds, "MOST_CLIENTS", 10)
    rate = Rate(burst=1, per_second=1, clock=lambda: 0.0)
    assert [rate.wait(str(number)) for number in range(100)] == [0.0] * 100
    assert len(rate._left) == 10 and rate.wait("99") == 1.0 and rate.wait("0") == 0


@pytest.mark.parametrize(("host", "client"), [
    ("127.0.0.1", ""), ("::1", ""), ("::ffff:127.0.0.1", ""), ("10.0.0.5", "10.0.0.5"), ("::ffff:10.0.0.5", "10.0.0.5"),
    ("2001:db8::1", "2001:db8::/64"), ("2001:db8::9:1", "2001:db8::/64"), ("testclient", ""), (None, ""),
])  # fmt: skip
def test_a_client_is_its_address_and_this_machine_is_none(host, client):
    assert client_of({"client": host and (host, 1234)}) == client


def test_others_are_told_when_to_come_back_and_this_machine_is_not_bounded():
    app = Bounded(PlainTextResponse("ok"), Rate(burst=3, per_second=0.5, clock=lambda: 0.0))
    other, own = (TestClient(app, client=(host, 1)) for host in ("192.0.2.7", "127.0.0.1"))
    assert [own.get("/").status_code for _ in range(10)] == [200] * 10
    answers = [other.get("/api/run") for _ in range(5)]
    assert [each.status_code for each in answers] == [200] * 3 + [429] * 2
    assert answers[-1].headers["retry-after"] == "2" and "Too many" in answers[-1].json()["error"]
    assert TestClient(app, client=("192.0.2.8", 1)).get("/").status_code == 200


def test_a_page_of_the_most_units_and_all_its_pictures_stay_within_the_bound():
    from actmine.pipeline.atlas.layer_pages import ON_ONE_PAGE

    assert bounds.BURST > 2 * ON_ONE_PAGE


def test_heavy_work_is_done_a_few_times_at_once_and_no_more_may_wait():
    busy, most, lock, gate = [0], [0], threading.Lock(), threading.Event()

    def work(request: Request) -> Response:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        assert gate.wait(20)
        with lock:
            busy[0] -= 1
        return Response("done")

    answer = Heavy(at_once=2, waiting=3)(work)
    request = Request({"type": "http", "headers": []})
    with ThreadPoolExecutor(5) as pool:
        running = [pool.submit(answer, request) for _ in range(5)]
        until(lambda: busy[0] == 2)
        time.sleep(0.05)
        for _ in range(3):
            with pytest.raises(HTTPException) as refused:
                answer(request)
            assert refused.value.status_code == 503 and refused.value.headers == {"Retry-After": "2"}
        gate.set()
        assert [each.result().body for each in running] == [b"done"] * 5
    assert most[0] == 2
    assert answer(request).body == b"done"


def test_an_error_in_heavy_work_gives_its_turn_back():
    def broken(request: Request) -> Response:
        raise ZeroDivisionError

    answer = Heavy(at_once=1, waiting=0)(broken)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            answer(Request({"type": "http", "headers": []}))


@pytest.mark.parametrize("path", ["/search?q=tabby", "/api/search?q=tabby", "/take/block.relu/2/sheet.png"])
def test_searches_and_sheets_are_heavy_and_nothing_else_waits_for_them(path, run, monkeypatch):
    full = Queues(Heavy(at_once=1, waiting=-1), Heavy(at_once=1, waiting=-1))
    monkeypatch.setattr("actmine.pipeline.atlas.server.Queues", lambda: full)
    answer = browsing(run).get(path)
    assert answer.status_code == 503 and answer.headers["retry-after"] == "2" and "at once" in answer.text
    for other in ("/", "/api/run", f"/api{unit_path(PLAIN, 2)}", "/picture/block.relu/2/crop/1"):
        assert browsing(run).get(other).status_code == 200


def test_a_search_does_not_wait_for_sheets(run, monkeypatch):
    gate, begun = threading.Event(), threading.Semaphore(0)

    def sheet(*words: object) -> bytes:
        begun.release()
        assert gate.wait(20)
        return b"sheet"

    monkeypatch.setitem(FILES, "sheet.png", ("image/png", sheet))
    atlas = browsing(run)
    with ThreadPoolExecutor(3) as pool:
        sheets = [pool.submit(atlas.get, "/take/block.relu/2/sheet.png") for _ in range(3)]
        assert begun.acquire(timeout=20) and begun.acquire(timeout=20)
        assert atlas.get("/api/search?q=tabby").status_code == atlas.get("/search?q=tabby").status_code == 200
        assert not begun.acquire(timeout=0.1)  # the third waits
        gate.set()
        assert [each.result().content for each in sheets] == [b"sheet"] * 3
