"""Pictures of one's own in the atlas: what the network makes of them against what was mined, and what is refused."""

from __future__ import annotations

import asyncio
import io
import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from actmine.jobs.__main__ import application as commands
from actmine.pipeline.atlas import look_routes
from actmine.pipeline.atlas.looked import Looked, Response, driven, driven_at, tails
from actmine.pipeline.atlas.looking import KEPT, WAITING, Looking
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.atlas.server import application
from actmine.pipeline.atlas.uploads import Refused, received
from actmine.pipeline.errors import UserError
from actmine.pipeline.inspect.eye import Eye
from actmine.pipeline.run import open_run
from tests.atlas_browsing import Page
from tests.atlas_tables import PLAIN, write_run
from tests.making import encoded, picture
from tests.small_run import IMAGES, LAYERS, of_image, small_run

HERE = "http://127.0.0.1:8420"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("look"))


@pytest.fixture(scope="module")
def eye(run: Path) -> Eye:
    return Eye(open_run(run))


@pytest.fixture(scope="module")
def dataset(eye: Eye) -> list[Looked]:
    """What the eye makes of every image of the dataset."""
    return [eye(of_image(number), f"{number:02d}.png") for number in range(IMAGES)]


@pytest.fixture
def client(run: Path, eye: Eye) -> TestClient:
    return looking_at(run, eye)


def looking_at(run: Path, eye) -> TestClient:
    app = application(run, looking=Looking(lambda opened: eye))
    return TestClient(app, base_url=HERE, follow_redirects=False)


def token_of(client: TestClient) -> str:
    return next(found["value"] for found in Page(client, "/look").all("input", "name", "token"))


def sent(client: TestClient, data: bytes | None, name: str = "mine.png", headers=None, **fields: str):
    files = {} if data is None else {"picture": (name, data)}
    said = {"token": token_of(client)} | fields
    return client.post("/look", data=said, files=files or {"nothing": ("", b"")}, headers=headers or {})


def answered(client: TestClient, address: str) -> str:
    """The page of a picture, when it is there."""
    deadline = time.monotonic() + 60
    while (answer := client.get(address)).status_code == 202:
        assert 'role="status"' in answer.text and time.monotonic() < deadline
        time.sleep(0.02)
    assert answer.headers["cache-control"] == "no-store"
    return answer.text if answer.status_code == 200 else f"{answer.status_code} {answer.text}"


def test_an_image_of_the_dataset_drives_units_as_it_did_when_it_was_mined_and_in_the_same_places(run, dataset):
    opened = open_run(run)
    compared = 0
    for layer in LAYERS:
        rows = opened.exemplars(layer)
        for row in rows.to_dict("records"):
            response = dataset[row["image_id"]].layers[layer]
            assert response.maxima[row["unit"]] == pytest.approx(row["activation"], rel=1e-4, abs=1e-5)
        for row in opened.maps(layer).to_dict("records")[::7]:
            response = dataset[row["image_id"]].layers[layer]
            kept = np.frombuffer(row["map"], np.uint8).reshape(row["height"], row["width"])
            values = row["low"] + kept * (row["high"] - row["low"]) / 255
            step = (row["high"] - row["low"]) / 255
            assert np.abs(response.maps[row["unit"]] - values).max() <= step / 2 + 1e-4
            assert np.allclose(response.place, [row[f"map_{side}"] for side in ("left", "top", "right", "bottom")])
            compared += 1
    assert compared > 20 and dataset[0].layers["classifier"].maps is None


def test_how_many_images_reach_as_much_is_bounded_by_what_a_count_over_all_of_them_says(run, eye, dataset):
    queries, told = Queries(open_run(run)), 0
    for seed in range(100, 104):
        looked = eye(encoded(picture(140, 130, seed), "PNG"), "x")
        for layer in LAYERS:
            values = looked.layers[layer].maxima.astype(np.float64)
            all_of_them = np.stack([each.layers[layer].maxima for each in dataset])
            low, high, images = tails(queries, layer, values)
            count, with_equals = ((all_of_them >= values * less).sum(0) for less in (1, 1 - 3e-4))
            fires = values > 0
            assert (images == IMAGES).all() and (low <= with_equals)[fires].all() and (count <= high)[fires].all()
            exact = fires & (with_equals < 6)  # the exemplars tell
            assert (low == high)[exact].all()
            told += exact.sum()
    assert told > 20


def test_the_units_shown_are_those_that_the_fewest_images_drive_as_hard(run, eye, dataset):
    queries = Queries(open_run(run))
    looked = eye(encoded(picture(140, 130, 200), "PNG"), "x")
    found = driven(queries, looked, "block5.relu", 10)
    values = looked.layers["block5.relu"].maxima
    others = np.stack([each.layers["block5.relu"].maxima for each in dataset])
    count = (others >= values).sum(0)
    shown = [each.unit.unit for each in found.driven]
    assert found.firing == (values > 0).sum() and len(shown) == 10
    left = [unit for unit in np.flatnonzero(values > 0) if unit not in shown]
    assert max(count[shown]) <= min(each.high for each in found.driven[-1:]) and all(
        tails(queries, "block5.relu", values)[1][unit] >= found.driven[-1].high for unit in left
    )
    assert [each.activation for each in found.driven] == pytest.approx(values[shown].tolist())
    above = next(each for each in found.driven if not each.high) if not min(count[shown]) else None
    assert above is None or above.said == f"above all {IMAGES} images"


def test_an_image_of_the_dataset_is_above_all_others_and_not_above_itself(run, dataset):
    queries = Queries(open_run(run))
    rows = open_run(run).exemplars("block5.relu")
    best = rows[rows["rank"] == 0].iloc[0]
    looked = dataset[best["image_id"]]
    low, high, _ = tails(queries, "block5.relu", looked.layers["block5.relu"].maxima)
    assert low[best["unit"]] == high[best["unit"]] == 1


def test_at_a_place_of_a_picture_all_units_of_the_network_are_listed(run, eye):
    queries = Queries(open_run(run))
    looked = eye(encoded(picture(140, 130, 201), "PNG"), "x")
    rows, count, known = driven_at(queries, looked, 70, 65, 1000)
    wanted = {}
    for layer in LAYERS[:2]:
        response = looked.layers[layer]
        left, top, right, bottom = response.place
        _, height, width = response.maps.shape
        at = int((65.5 - top) / (bottom - top) * height), int((70.5 - left) / (right - left) * width)
        for unit, value in enumerate(response.maps[:, at[0], at[1]]):
            if value > 0 and queries.unit(layer, unit).maximum > 0:
                wanted[layer, unit] = value / queries.unit(layer, unit).maximum
    assert {(layer, each.unit.unit): each.share for each, layer in rows} == pytest.approx(wanted)
    assert count == len(wanted) and known == sum(len(looked.layers[layer].maxima) for layer in LAYERS[:2])
    assert [each.share for each, _ in rows] == sorted((each.share for each, _ in rows), reverse=True)


def test_a_picture_that_is_sent_is_shown_with_its_units_its_heat_and_its_places(client):
    data = encoded(picture(140, 130, 202), "PNG")
    answer = sent(client, data, name='../<b>"a".png')
    assert answer.status_code == 303
    address = answer.headers["location"]
    assert re.fullmatch(r"/look/[\w-]{16}", address)
    text = answered(client, address)
    assert "&lt;b&gt;" in text and '<b>"' not in text and "../" not in text
    page = Page(client, address)
    lit = [found["src"] for found in page.all("img", "src", "/lit/")]
    heats = [found["data-heat"] for found in page.all("g", "class", "named")]
    assert lit and len(lit) == len(heats)
    for place in (lit[0], heats[0], f"{address}/picture"):
        got = client.get(place)
        assert got.status_code == 200 and got.headers["cache-control"] == "no-store"
        assert Image.open(io.BytesIO(got.content)).size
    there = client.get(f"{address}?at=70,65").text
    assert re.search(r"What fires at 70, 65 <small>\d+ of the \d+ units", there)
    assert client.get(f"{address}?layer=block1.relu").text.count('class="row"') == 1
    assert "&lt;b&gt;" in client.get("/look").text


def test_an_image_of_the_run_goes_through_the_network_by_its_number(client):
    page = Page(client, "/image/3")
    assert [found["value"] for found in page.all("input", "name", "image")] == ["3"]
    address = sent(client, None, image="3").headers["location"]
    assert "03" in re.search(r"<h1>.*?</h1>", answered(client, address))[0]
    assert sent(client, None, image="999").status_code == 404 and sent(client, None, image="-1").status_code == 404


def bomb(side: int) -> bytes:
    """A PNG that says to be of so many pixels a side, in some bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(10_000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (bomb(8_000), 413, "more than the 50 million"), (bomb(40_000), 415, "far too large"),
        (SVG, 415, "no picture"), (b"%!PS-Adobe-3.0 EPSF", 415, "no picture"),
        (b"GIF89a", 415, "no picture"), (b"", 400, "No picture came"), (b"<html>", 415, "no picture"),
    ],
    ids=["bomb", "huge", "svg", "eps", "header", "empty", "html"],
)  # fmt: skip
def test_what_is_no_picture_or_too_large_a_one_is_refused_in_a_sentence(client, data, status, words):
    answer = sent(client, data)
    assert answer.status_code == status and words in answer.text and "Traceback" not in answer.text
    assert "content-security-policy" in answer.headers


def test_a_picture_that_is_cut_off_is_told_on_its_page(client):
    answer = sent(client, encoded(picture(400, 300, 1), "PNG")[:2000])
    text = answered(client, answer.headers["location"])
    assert text.startswith("422 ") and "cannot be shown to the network" in text


def test_a_file_beyond_the_limit_is_refused_before_it_has_come(client, monkeypatch):
    monkeypatch.setattr(look_routes, "MOST_BYTES", 1000)
    answer = sent(client, bytes(200_000))
    assert answer.status_code == 413 and "at most" in answer.text

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            yield bytes(1000)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/look", content=endless(), headers=kind).status_code == 413


def test_forms_of_other_sites_and_without_the_token_are_refused(client):
    data = encoded(picture(60, 60, 1), "PNG")
    assert sent(client, data, token="wrong").status_code == 403
    assert sent(client, data, headers={"origin": "http://evil.example"}).status_code == 403
    assert sent(client, data, headers={"origin": HERE}).status_code == 303
    assert client.post("/look", data={"token": token_of(client)}).status_code == 400
    assert client.post("/look", content=b"x" * 100, headers={"content-type": "image/png"}).status_code == 400


def test_without_the_option_there_is_no_form_and_nothing_is_taken(run):
    client = TestClient(application(run), base_url=HERE)
    assert "--allow-upload" in client.get("/look").text and client.get("/look").status_code == 404
    assert client.post("/look").status_code == 405
    for path in ("/", "/image/3"):
        assert not [each for each in Page(client, path).addresses() if "/look" in each]


class Slow:
    """An eye that waits until it may look."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def __call__(self, data: bytes, name: str) -> Looked:
        self.may.wait(60)
        if data == b"bad":
            raise RuntimeError("out of memory")
        return Looked(name, (4, 4), b"\xff\xd8", {"x": Response(np.ones(1, np.float32))})


def test_pictures_wait_for_each_other_up_to_a_number_and_beyond_it_the_answer_is_busy(run):
    slow = Slow()
    client = looking_at(run, slow)
    data = encoded(picture(60, 60, 1), "PNG")
    first = sent(client, data)
    deadline = time.monotonic() + 30
    while "looks at it" not in client.get(first.headers["location"]).text:
        assert time.monotonic() < deadline
    others = [sent(client, data) for _ in range(WAITING)]
    assert [each.status_code for each in others] == [303] * WAITING
    busy = sent(client, data)
    assert busy.status_code == 503 and busy.headers["retry-after"] == "5"
    assert "come first" in client.get(others[-1].headers["location"]).text
    slow.may.set()


def test_only_the_last_pictures_are_kept_and_a_network_that_fails_says_so_and_goes_on():
    eye = Slow()
    eye.may.set()
    looks = Looking(lambda opened: eye)
    run = SimpleNamespace()

    def done(data: bytes) -> str:
        token = looks.offer(run, "v", "x", data)
        while (job := looks.get(token, "v")) is not None and job.state not in ("done", "failed"):
            time.sleep(0.001)
        return token

    bad = done(b"bad")
    assert "RuntimeError: out of memory" in looks.get(bad, "v").error
    tokens = [done(b"good") for _ in range(KEPT + 3)]
    time.sleep(0.05)
    assert [looks.get(each, "v") is not None for each in tokens] == [False] * 3 + [True] * KEPT
    assert looks.get(tokens[-1], "another state of the run") is None
    assert all(job.data == b"" for job in looks.recent("v"))


def test_a_network_that_cannot_be_loaded_is_told_with_the_fix(run):
    def refused(opened):
        raise UserError("Its code is not imported. If you trust whoever made it, say --trust.")

    client = TestClient(application(run, looking=Looking(refused)), base_url=HERE, follow_redirects=False)
    answer = sent(client, encoded(picture(60, 60, 1), "PNG"))
    text = answered(client, answer.headers["location"])
    assert text.startswith("422 ") and "say --trust" in text


def test_a_slow_sender_is_given_up():
    class Waiting:
        headers = {"content-length": "100"}  # noqa: RUF012

        async def stream(self):
            yield b"some"
            await asyncio.sleep(60)

    with pytest.raises(Refused, match="did not come within") as refused:
        asyncio.run(received(Waiting(), 1000, 0.05))
    assert refused.value.status == 408


def test_nothing_of_a_picture_is_written_to_disk(client, tmp_path, monkeypatch, run):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = set(run.rglob("*"))
    data = encoded(picture(1500, 1100, 9), "BMP")
    assert len(data) > 1 << 20  # what some parsers of forms put into a file
    answered(client, sent(client, data).headers["location"])
    assert not list(tmp_path.rglob("*")) and set(run.rglob("*")) == before


def test_torch_comes_with_the_first_picture_and_not_before(tmp_path):
    run = write_run(tmp_path)
    code = f"""
import sys
from starlette.testclient import TestClient
from actmine.commands.atlas import _eye
from actmine.pipeline.atlas.looking import Looking
from actmine.pipeline.atlas.server import application
client = TestClient(application({str(run)!r}, looking=Looking(_eye)), base_url="http://127.0.0.1:8420")
assert client.get("/look").status_code == client.get("/").status_code == 200
assert client.get("/layer/{PLAIN}/2").status_code == 200
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stderr


def test_where_others_can_reach_the_atlas_uploads_have_to_be_said_twice(tmp_path):
    run = write_run(tmp_path)
    words = ["atlas", "--run", str(run), "--host", "0.0.0.0", "--port", "0", "--allow-upload"]
    done = CliRunner().invoke(commands(["atlas", "sheets"]), words)
    assert done.exit_code == 1 and "--upload-by-others" in " ".join(done.output.split())
