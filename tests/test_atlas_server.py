"""The atlas's server: what is not there is not found, nothing but reading is allowed, troubles are sentences."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

import actmine.pipeline.atlas
from actmine.jobs.__main__ import application as commands
from actmine.pipeline.atlas.server import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.storage.files import table_file
from tests.atlas_browsing import LAYERS, Page, browsing, unit_path
from tests.atlas_tables import (
    PLAIN,
    write_run,
)  # fmt: skip
from tests.commands import start


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("atlas"), extra=True).parent


@pytest.fixture(scope="module")
def client(root: Path) -> TestClient:
    return browsing(root / "run")


MISSING = [
    "/picture/block.relu/99999999999999999999999/crop/1", "/whole/99999999999999999999999", "/search/x", "/layer/",
    "/nothing", "/layer/none", "/layer/block.relu/99", "/layer/block.relu/-1", "/layer/block.relu/x", "/image/77",
    "/image/x", "/picture/block.relu/2/crop/99", "/picture/block.relu/2/crop/1/top",
    "/picture/block.relu/2/preset/..%2f..%2fx/none", "/picture/none/2/visualization",
    "/picture/block.relu/3/visualization", "/picture/block.relu/2/secret/1", "/whole/77", "/static/none.css",
    "/static/..%2fserver.py", "/static/../server.py", "/static/%2e%2e/server.py", "/..%2f..%2fetc/passwd",
    "/../../etc/passwd", "/static//etc/passwd", "/layer/..%2F..%2F", "/docs", "/run.json",
    "/image/99999999999999999999999", f"/image/{'9' * 5000}", f"/layer/block.relu/{'9' * 5000}", f"/whole/{'9' * 5000}",
]  # fmt: skip


@pytest.mark.parametrize("path", MISSING, ids=[path[:60] for path in MISSING])
def test_what_is_not_there_answers_404_whatever_way_it_is_written(client, path):
    answer = client.get(path)
    assert answer.status_code == 404, answer.text[:200]
    assert "content-security-policy" in answer.headers
    assert b"root:" not in answer.content and b"import" not in answer.content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_allowed(client, method):
    for path in ("/", "/layer/block.relu/2", "/picture/block.relu/2/crop/1/top", "/static/atlas.css"):
        assert client.request(method, path).status_code == 405
    assert client.head("/").status_code == 200 and client.head("/").content == b""


def test_answers_keep_a_browser_from_doing_more_than_to_show_them(client):
    for path in ("/", "/nothing", "/static/atlas.js", "/picture/block.relu/2/crop/1"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src" in headers["content-security-policy"]
    assert "script-src" not in client.get("/").headers["content-security-policy"]


def test_pictures_are_kept_for_as_long_as_the_run_is_the_same(tmp_path):
    run = write_run(tmp_path)
    client = browsing(run)
    address = next(found["src"] for found in Page(client, unit_path(PLAIN, 0)).all("img", "src", "/visualization"))
    first = client.get(address)
    assert "immutable" in first.headers["cache-control"]
    assert client.get(address, headers={"If-None-Match": first.headers["etag"]}).status_code == 304
    assert client.get(address.split("?")[0]).headers["cache-control"] == "no-cache"
    record = json.loads((run / "run.json").read_text()) | {"model": "another"}
    (run / "run.json").write_text(json.dumps(record))
    assert "another on" in Page(client, "/").text
    assert "immutable" not in client.get(address).headers["cache-control"]


def test_a_run_that_goes_while_it_is_served_is_told_in_a_sentence(tmp_path):
    run = write_run(tmp_path)
    client = browsing(run)
    assert client.get("/").status_code == 200
    (run / "run.json").unlink()
    for path in ("/", "/nothing", f"{unit_path(PLAIN, 0)}", "/whole/1"):
        answer = client.get(path)
        assert "no finished run" in answer.text or path == "/nothing"
        assert answer.status_code == (404 if path == "/nothing" else 500)


@pytest.mark.slow
def test_a_run_on_s3_is_shown_like_one_in_a_folder(client, root, monkeypatch):
    moto = pytest.importorskip("moto.server", reason="needs moto's server")
    s3fs = pytest.importorskip("s3fs", reason="needs the extra s3")
    from actmine.pipeline.storage.bucket import _Files

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, word in (
            ("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing"), ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ):  # fmt: skip
            monkeypatch.setenv(name, word)
        _Files.clear_instance_cache()
        files = s3fs.S3FileSystem(use_listings_cache=False)
        files.mkdir("atlas")
        for path in (each for each in (root / "run").rglob("*") if each.is_file()):
            files.pipe_file(f"atlas/runs/one/{path.relative_to(root / 'run')}", path.read_bytes())
        elsewhere = TestClient(application("s3://atlas/runs/one"), base_url="http://127.0.0.1:8420")
        for path in (f"/layer/{LAYERS[PLAIN]}", unit_path(PLAIN, 2), "/image/0", "/search?q=tabby"):
            assert elsewhere.get(path).text == client.get(path).text
        crop = f"/picture/{LAYERS[PLAIN]}/2/crop/1"
        assert elsewhere.get(crop).content == client.get(crop).content
    finally:
        server.stop()
        _Files.clear_instance_cache()


def test_a_damaged_table_is_told_in_a_sentence(tmp_path):
    run = write_run(tmp_path)
    table_file(run, "exemplars", PLAIN).write_bytes(b"PAR1 not any more")
    answer = browsing(run).get(unit_path(PLAIN, 0))
    assert answer.status_code == 500 and "cannot be read" in answer.text


@pytest.mark.parametrize("run", ["", "nowhere"])
def test_the_command_says_what_is_wrong_in_a_sentence(run):
    result = CliRunner().invoke(commands(["atlas", "sheets"]), ["atlas", "--run", run])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_its_address_serves_it_and_ends_quietly(tmp_path, stop):
    command = start(["atlas", "--run", str(write_run(tmp_path)), "--port", "0"], tmp_path / "notes")
    assert command.wait_until(lambda: bool(re.search(r"http://127\.0\.0\.1:\d+\n", command.said)))
    address = re.search(r"http://\S+", command.said)[0]
    page = urllib.request.urlopen(f"{address}/layer/dead", timeout=60).read().decode()
    assert "<h1>" in page
    os.kill(command.process.pid, stop)
    assert command.end(30) == 0
    assert "Traceback" not in command.said and "error" not in command.said


def test_without_the_extra_the_command_names_it(monkeypatch):
    for module in [name for name in sys.modules if name.startswith("actmine.pipeline.atlas.")]:
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(actmine.pipeline.atlas, module.rsplit(".", 1)[-1], raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for command, more in (("atlas", []), ("atlas-export", ["--out", "y"])):
        app = commands([command, "sheets"])
        result = CliRunner().invoke(app, [command, "--run", "x", *more])
        assert result.exit_code == 1 and "pip install 'actmine[atlas]'" in " ".join(result.output.split())


def test_a_run_that_is_not_there_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        application(tmp_path)
