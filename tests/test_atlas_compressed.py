"""What the atlas sends is as small as it may be: files once, pictures as large as they are shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from actmine.pipeline.atlas.links import SIDES, stamp
from actmine.pipeline.atlas.pictures import fitted
from tests.atlas_browsing import Page, browsing, unit_path
from tests.atlas_tables import PLAIN, write_run
from tests.making import encoded, picture


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return browsing(write_run(tmp_path_factory.mktemp("compressed"), extra=True))


def raw(client: TestClient, path: str, accepts: str) -> tuple[bytes, dict[str, str]]:
    """The bytes of an answer as they are sent, and its headers."""
    with client.stream("GET", path, headers={"accept-encoding": accepts}) as answer:
        return b"".join(answer.iter_raw()), dict(answer.headers)


def test_an_answer_that_has_not_changed_is_not_sent_again_although_it_was_compressed(client):
    _, headers = raw(client, "/api/layers", "gzip")
    again = client.get("/api/layers", headers={"if-none-match": headers["etag"]})
    assert headers["etag"].startswith("W/") and again.status_code == 304


def test_files_of_the_atlas_are_kept_for_good_under_the_address_of_their_bytes(client):
    styles = next(found["href"] for found in Page(client, "/").all("link", "rel", "stylesheet"))
    assert styles == f"/static/atlas.css?v={stamp('atlas.css')}"
    assert "immutable" in client.get(styles).headers["cache-control"]
    for other in ("/static/atlas.css", "/static/atlas.css?v=0123456789"):
        assert client.get(other).headers["cache-control"] == "no-cache"


def test_a_picture_is_no_larger_than_it_is_shown_and_small_ones_stay_exact():
    large = encoded(picture(900, 600, 3), "JPEG", quality=95)
    for side in SIDES:
        found = Image.open(io.BytesIO(fitted(large, side)))
        assert max(found.size) == min(side, 900) and abs(found.size[0] / found.size[1] - 1.5) < 0.02
    reduced = np.asarray(picture(900, 600, 3).resize((256, 171), Image.Resampling.LANCZOS), np.float32)
    shown = np.asarray(Image.open(io.BytesIO(fitted(large, 256))), np.float32)
    assert np.abs(shown - reduced).mean() < 3
    for exact in (encoded(picture(40, 30, 1), "PNG"), encoded(picture(200, 100, 1)), b"<svg/>"):
        assert fitted(exact, 256) == exact


def test_pages_ask_for_pictures_in_their_size_and_an_address_without_one_is_exact(client):
    crops = Page(client, unit_path(PLAIN, 2)).all("img", "src", "/crop/")
    assert crops and all(found["src"].endswith("&side=256") for found in crops)
    for odd in ("1", "99999999", "-1", "x"):
        path = "/picture/block.relu/2/crop/1"
        assert client.get(f"{path}?side={odd}").content == client.get(path).content
