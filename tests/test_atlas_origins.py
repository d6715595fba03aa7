"""Who may read the atlas from a page of another origin: nobody, or those that were named; notes nobody ever."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from actmine.jobs.__main__ import application as commands
from actmine.pipeline.atlas.answers import ANSWERS
from actmine.pipeline.atlas.desk import Desk
from actmine.pipeline.atlas.origins import origins
from actmine.pipeline.atlas.server import application
from actmine.pipeline.errors import UserError
from tests.atlas_browsing import listened, unit_path
from tests.atlas_tables import PLAIN, write_run
from tests.serving import running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
GUIDE = Path(__file__).parents[1] / "docs" / "guides" / "atlas.md"
LAB, EVIL = "https://lab.example", "https://evil.example"
ROWS, PICTURE, WHOLE = f"/api{unit_path(PLAIN, 2)}", "/picture/block.relu/2/crop/1", "/whole/1"
KEPT = ("/", unit_path(PLAIN, 2), "/noted", "/search?q=tabby", "/static/atlas.js", "/take/block.relu/2/cite.bib")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("origins"), extra=True)


def atlas(run: Path, *allowed: str) -> TestClient:
    app = application(run, shared=origins(allowed), desk=Desk("ada"))
    return TestClient(app, base_url="http://127.0.0.1", follow_redirects=False)


def told(client: TestClient, path: str, origin: str | None, method: str = "GET", **more: str) -> dict[str, str]:
    """What is said of who may read an answer."""
    answer = client.request(method, path, headers={**({"origin": origin} if origin else {}), **more})
    kept = {name: value for name, value in answer.headers.items() if name.startswith("access-control")}
    return kept | {"status": str(answer.status_code), "vary": answer.headers.get("vary", "")}


def test_without_being_asked_for_nothing_is_shared(run):
    client = atlas(run)
    for path in (ROWS, PICTURE, WHOLE, *KEPT, "/api/notes"):
        assert told(client, path, LAB).keys() == {"status", "vary"} and "Origin" not in told(client, path, LAB)["vary"]
        asked = told(client, path, LAB, "OPTIONS", **{"access-control-request-method": "GET"})
        assert asked.keys() == {"status", "vary"} and asked["status"] == "405"


def test_only_the_origin_that_was_named_may_read_rows_and_pictures(run):
    client = atlas(run, LAB)
    for path in (ROWS, PICTURE, WHOLE, "/api/openapi.json", "/api/nothing", "/whole/77"):
        for method in ("GET", "HEAD"):
            mine = told(client, path, LAB, method)
            assert mine["access-control-allow-origin"] == LAB and "access-control-allow-credentials" not in mine
            assert mine["access-control-expose-headers"] == "ETag, Retry-After"
            for other in (EVIL, "null", "http://lab.example", f"{LAB}:8443", f"{LAB}.evil.example", LAB.upper(), None):
                assert "access-control-allow-origin" not in told(client, path, other, method)
            assert all("Origin" in told(client, path, each, method)["vary"] for each in (LAB, EVIL, None))


@pytest.mark.parametrize("allowed", [LAB, "*"])
def test_pages_and_notes_are_never_shared(allowed, run):
    client = atlas(run, allowed)
    alone = [each.path for each in ANSWERS if not each.shared]
    assert alone == ["/api/notes"]
    for path in (*KEPT, *alone, "/api/notes/", "/api/notes?q=x"):
        assert told(client, path, LAB).keys() == {"status", "vary"}, path
        asked = told(client, path, LAB, "OPTIONS", **{"access-control-request-method": "GET"})
        assert asked["status"] in ("405", "307") and asked.keys() == {"status", "vary"}, path
    posted = told(client, "/notes", LAB, "POST")
    assert posted.keys() == {"status", "vary"} and posted["status"] == "403"
    assert told(client, "/notes", LAB, "OPTIONS", **{"access-control-request-method": "POST"})["status"] == "405"


def test_all_may_read_where_that_was_said_and_without_credentials(run):
    client = atlas(run, "*")
    for origin in (LAB, EVIL, "null", None):
        said = told(client, ROWS, origin)
        assert said["access-control-allow-origin"] == "*" and "Origin" not in said["vary"]
        assert "access-control-allow-credentials" not in said


def test_a_browser_that_asks_beforehand_is_answered(run):
    client = atlas(run, LAB)
    asks = {"access-control-request-method": "GET", "access-control-request-headers": "if-none-match"}
    said = told(client, ROWS, LAB, "OPTIONS", **asks)
    assert said["status"] == "204" and said["access-control-allow-origin"] == LAB and "Origin" in said["vary"]
    assert (
        "If-None-Match" in said["access-control-allow-headers"] and said["access-control-allow-methods"] == "GET, HEAD"
    )
    assert "access-control-allow-private-network" not in said
    near = told(client, ROWS, LAB, "OPTIONS", **asks, **{"access-control-request-private-network": "true"})
    assert near["access-control-allow-private-network"] == "true"
    for origin, method in ((EVIL, "GET"), (LAB, "POST"), (LAB, "DELETE")):
        refused = told(client, ROWS, origin, "OPTIONS", **{"access-control-request-method": method})
        assert refused["status"] == "405" and "access-control-allow-methods" not in refused


def test_who_calls_it_by_a_foreign_name_reads_nothing_even_from_an_origin_that_may(run):
    answer = atlas(run, LAB).get(ROWS, headers={"origin": LAB, "host": "lab.example"})
    assert answer.status_code == 400 and "access-control-allow-origin" not in answer.headers


def test_origins_are_said_as_people_say_them_and_kept_as_browsers_do():
    said = ["HTTPS://Lab.example/, http://localhost:8888", "https://b.example:443", "http://[::1]:80", " * "]
    assert origins(said) == {LAB, "http://localhost:8888", "https://b.example", "http://[::1]", "*"}
    assert origins(()) == origins([""]) == frozenset()


@pytest.mark.parametrize("word", [
    "lab.example", "ftp://lab.example", "https://lab.example/path", "https://*.example", "null", "https://", "file://",
    "https://a@lab.example", "https://lab.example?x", "https://lab.example:x", "https://a b", "https://[::1",
])  # fmt: skip
def test_what_is_no_origin_is_refused_in_a_sentence(word, run):
    with pytest.raises(UserError, match="is no origin"):
        origins([word])
    done = CliRunner().invoke(commands(["atlas", "sheets"]), ["atlas", "--run", str(run), "--allow-origin", word])
    said = " ".join(done.stderr.split())  # what may be a password is left out of it
    assert done.exit_code == 1 and said.startswith("error: ALLOW_ORIGIN=") and "is no origin" in said


def test_the_command_warns_of_all(run, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    words = ["atlas", "--run", str(run), "--port", "0", "--allow-origin"]
    all_, one = (CliRunner().invoke(commands(["atlas", "sheets"]), [*words, each]) for each in ("*", LAB))
    assert all_.exit_code == one.exit_code == 0
    assert "of whatever site" in all_.stderr and "of whatever site" not in one.stderr


READS = """async ([address, rows, picture, notes]) => {
  const read = async (path, more) => {
    try { const answer = await fetch(address + path, more); return [answer.status, (await answer.text()).length > 0]; }
    catch (error) { return String(error); }
  };
  const shown = crossOrigin => new Promise(done => {
    const image = new Image();
    if (crossOrigin) image.crossOrigin = "anonymous";
    image.onload = () => done(image.naturalWidth > 0); image.onerror = () => done(false);
    image.src = address + picture;
  });
  return {
    rows: await read(rows), tagged: await read(rows, {headers: {"If-None-Match": '"none"'}}), page: await read("/"),
    notes: await read(notes), posts: await read("/notes", {method: "POST", body: "x"}),
    plain: await shown(false), shared: await shown(true),
  };
}"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A page of another origin on this machine."""

    def answer(handler: BaseHTTPRequestHandler) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "text/html"}, b"<!doctype html><title>elsewhere</title>"

    with running(answer) as server:
        yield server.url


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs the browser Chromium: apt-get install chromium")
def test_a_real_page_elsewhere_reads_rows_and_pictures_only_if_its_origin_was_named(run, elsewhere):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    no = "TypeError: Failed to fetch"
    closed: dict[str, Any] = dict.fromkeys(("rows", "tagged", "page", "notes", "posts"), no)
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM)
        for allowed, reads in (((), False), (("http://127.0.0.1:1",), False), ((elsewhere,), True), (("*",), True)):
            with listened(application(run, shared=origins(allowed))) as port:
                page = browser.new_page()
                page.goto(elsewhere)
                found = page.evaluate(READS, [f"http://127.0.0.1:{port}", ROWS, PICTURE, "/api/notes"])
                page.close()
            opened = {"rows": [200, True], "tagged": [200, True]} if reads else {}
            assert found == closed | opened | {"plain": False, "shared": reads}, (allowed, json.dumps(found))
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs the browser Chromium: apt-get install chromium")
def test_the_guides_lines_for_a_page_elsewhere_read_rows_and_show_a_picture(run, elsewhere):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    (lines,) = re.findall(r"^```js\n(.*?)^```", GUIDE.read_text(), flags=re.M | re.S)
    with listened(application(run, shared=origins([elsewhere]))) as port, playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM)
        page = browser.new_page()
        page.goto(elsewhere)
        lines = lines.replace("http://127.0.0.1:8420", f"http://127.0.0.1:{port}").replace("block5.relu", PLAIN)
        lines += "await picture.decode(); return [picture.naturalWidth, units.length];"
        shown = page.evaluate(f"async () => {{ {lines} }}")
        browser.close()
    assert shown == [31, 5]
