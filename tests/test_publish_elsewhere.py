"""A run published on S3 and on the hub: the bytes of the folder, sent once, gone on with after a stop, or refused."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.errors import UserError
from actmine.pipeline.publishing import to_hub
from actmine.pipeline.publishing.manifest import FILE
from actmine.pipeline.publishing.publish import Publication, Published, publish
from actmine.pipeline.run import open_run
from actmine.pipeline.storage.files import run_folder, user_cache
from tests.atlas_tables import PLAIN
from tests.hub import OWNER, TOKEN, Account, hub
from tests.serving import Store, s3_store
from tests.test_publish import files, with_pictures

SMALL = Publication(Extent(1, False), ("dead",), license="mit")
FEWER = Publication(Extent(1, False, False), ("dead",), license="mit")
PLACE = f"hf://datasets/{OWNER}/atlas"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, and what it is published as, with pictures and without."""
    root = tmp_path_factory.mktemp("elsewhere")
    run = open_run(with_pictures(root))
    publish(run, str(root / "small"), SMALL)
    publish(run, str(root / "fewer"), FEWER)
    return root


def published(root: Path, to: str, what: Publication = SMALL) -> Published:
    before = {*(user_cache() / "publish").glob("*/")}
    done = publish(open_run(root / "run"), to, what)[1]
    assert done and {*(user_cache() / "publish").glob("*/")} <= before, "what was made ready is gone"
    return done


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with s3_store(monkeypatch) as store:
        store.put("bucket", {"other/thesis.txt": b"years of work"})
        yield store


def objects(store: Store, prefix: str) -> dict[str, bytes]:
    """Every object below a prefix, asked in another way than ours."""
    pages = store.client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {key.removeprefix(prefix): store.client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}


def test_objects_have_the_bytes_of_the_folder_and_only_what_differs_is_put(root, store, monkeypatch):
    done = published(root, "s3://bucket/published/run")
    assert objects(store, "published/run/") == files(root / "small") and done.kept == done.removed == 0
    html = store.client.head_object(Bucket="bucket", Key="published/run/atlas/index.html")
    assert html["ContentType"] == "text/html"
    again = published(root, "s3://bucket/published/run")
    assert (again.written, again.kept) == (0, done.written)
    fewer = published(root, "s3://bucket/published/run", FEWER)
    assert objects(store, "published/run/") == files(root / "fewer") and fewer.removed > 3 and fewer.kept > 3
    from actmine.pipeline.storage import bucket

    monkeypatch.setenv("AWS_ENDPOINT_URL", store.client.meta.endpoint_url)
    bucket._Files.clear_instance_cache()
    assert open_run("s3://bucket/published/run").exemplars(PLAIN).equals(open_run(root / "fewer").exemplars(PLAIN))


def test_an_upload_that_fails_goes_on_where_it_stopped(root, store):
    wanted = files(root / "small")
    store.server.fault = lambda path, before: "403" if "atlas/layer" in path else ""
    with pytest.raises(UserError, match=r"S3 failed at s3://bucket/stopped/run/atlas/layer.*goes on where it stopped"):
        publish(open_run(root / "run"), "s3://bucket/stopped/run", SMALL)
    half = objects(store, "stopped/run/")
    listed = half.pop(FILE)
    assert half.items() <= wanted.items() and len(half) > 5 and not json.loads(listed)["complete"]
    store.server.fault = lambda path, before: ""
    assert published(root, "s3://bucket/stopped/run").kept == len(half) and objects(store, "stopped/run/") == wanted


def test_a_prefix_that_holds_something_else_is_refused_and_left_alone(root, store):
    with pytest.raises(UserError, match=r"s3://bucket/other holds other things"):
        publish(open_run(root / "run"), "s3://bucket/other", SMALL)
    with pytest.raises(UserError, match=r"no bucket none"):
        publish(open_run(root / "run"), "s3://none/x", SMALL)
    with pytest.raises(UserError, match=r"TO=s3://bucket names no place"):
        publish(open_run(root / "run"), "s3://bucket", SMALL)
    assert objects(store, "other") == {"/thesis.txt": b"years of work"}


def test_the_tag_of_an_object_of_many_parts_is_known(store, tmp_path, monkeypatch):
    from actmine.pipeline.publishing import to_bucket
    from actmine.pipeline.storage import bucket

    monkeypatch.setattr(bucket, "PART_BYTES", 5 << 20)
    monkeypatch.setattr(to_bucket, "PART_BYTES", 5 << 20)
    for size in (0, 1000, (10 << 20) - 1, 10 << 20, 12 << 20):
        (tmp_path / "file").write_bytes(bytes(size))
        place = run_folder("s3://bucket/parts/file")
        place.upload(tmp_path / "file")  # type: ignore[attr-defined]
        (about,) = run_folder("s3://bucket/parts").objects().values()  # type: ignore[attr-defined]
        assert about == (size, to_bucket.etag(tmp_path / "file"))


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Account]:
    with hub(monkeypatch, str(tmp_path / "hub")) as account:
        yield account


def test_a_new_repository_is_private_and_holds_the_folder_and_the_hub_has_judged_its_card(root, account):
    done = published(root, PLACE)
    repository = account.repositories[f"{OWNER}/atlas"]
    assert repository.private and account.judged and account.judged[-1] == (root / "small" / "README.md").read_text()
    there = {name: data for name, data in repository.files.items() if name != ".gitattributes"}
    assert there == files(root / "small") and done.written == len(there) - 1
    assert {name for name in there if name.endswith(".parquet")} == repository.large
    (units,) = (data for name, data in there.items() if name.startswith("units/dead"))
    assert pq.read_table(io.BytesIO(units)).num_rows == 12
    commits = repository.commits
    again = published(root, PLACE)
    assert (again.written, again.kept, repository.commits) == (0, done.written, commits), "nothing is sent twice"


def test_what_is_published_no_more_goes_from_a_repository_and_public_ones_are_asked_for(root, account):
    published(root, PLACE, replace(SMALL, public=True))
    repository = account.repositories[f"{OWNER}/atlas"]
    assert not repository.private
    repository.files["mine.md"] = b"mine"
    assert published(root, PLACE, FEWER).removed > 3
    assert repository.files.pop("mine.md") == b"mine" and not repository.private
    assert {name: data for name, data in repository.files.items() if name != ".gitattributes"} == files(root / "fewer")


def test_commits_that_were_made_before_a_stop_are_not_made_again(root, account, monkeypatch):
    monkeypatch.setattr(to_hub, "FILES_A_COMMIT", 9)
    account.refuses, account.after = 403, 2
    with pytest.raises(UserError, match=r"The hub refuses hf://datasets/owner/atlas \(403.*may write to.* owner"):
        publish(open_run(root / "run"), PLACE, SMALL)
    repository = account.repositories[f"{OWNER}/atlas"]
    half = {name: data for name, data in repository.files.items() if name not in (FILE, ".gitattributes")}
    assert repository.commits == 3 and half.items() <= files(root / "small").items() and len(half) == 27
    assert "README.md" not in half and not json.loads(repository.files[FILE])["complete"]
    account.refuses = 0
    assert published(root, PLACE).kept == 27
    assert {name: data for name, data in repository.files.items() if name != ".gitattributes"} == files(root / "small")


def test_a_repository_of_somebody_else_or_with_other_things_is_refused(root, account):
    with pytest.raises(UserError, match=r"refuses hf://datasets/stranger/atlas \(403"):
        publish(open_run(root / "run"), "hf://datasets/stranger/atlas", SMALL)
    published(root, PLACE)
    repository = account.repositories[f"{OWNER}/atlas"]
    del repository.files[FILE]
    before, commits = dict(repository.files), repository.commits
    with pytest.raises(UserError, match="holds other things than a publication"):
        publish(open_run(root / "run"), PLACE, SMALL)
    assert repository.files == before and repository.commits == commits


def test_a_card_that_the_hub_does_not_take_stops_it_before_anything_is_made(root, account, monkeypatch):
    monkeypatch.setattr(account, "judge", lambda asked: (400, {}, b'{"errors": [{"message": "no such licence"}]}'))
    with pytest.raises(UserError, match=r"does not take the card.*no such licence"):
        publish(open_run(root / "run"), PLACE, SMALL)
    assert account.repositories == {}


def test_without_a_token_or_a_hub_it_ends_in_a_sentence(root, account, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.get_token", lambda: None)
        with pytest.raises(UserError, match="takes a token that may write"):
            publish(open_run(root / "run"), PLACE, SMALL)
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_revoked")
        with pytest.raises(UserError, match=r"refuses hf://datasets/owner/atlas \(401"):
            publish(open_run(root / "run"), PLACE, SMALL)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"does not answer for hf://datasets/owner/atlas.*goes on where it stopped"
    ) as told:
        publish(open_run(root / "run"), PLACE, SMALL)
    assert TOKEN not in str(told.value)
