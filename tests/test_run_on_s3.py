"""A run in a bucket: the same tables as in a folder, resumed after a kill, read by anyone, refused in one sentence."""

from __future__ import annotations

import builtins
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from actmine.pipeline.ascent.presets import find_preset
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.engines.local import LocalEngine
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.relations.compare import compare_runs
from actmine.pipeline.relations.neighbors import find_neighbors
from actmine.pipeline.run import Run, open_run, picture
from actmine.pipeline.sheets.write import write_overviews, write_sheets
from actmine.pipeline.stages.focus import focus_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.stages.visualize import visualize_run
from actmine.pipeline.storage.files import local_copy, remove_files, run_folder, write_bytes, written_aside
from tests.commands import start
from tests.making import image_tar

pytest.importorskip("s3fs", reason="needs the extra s3")
moto_server = pytest.importorskip("moto.server", reason="needs moto's server")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 of our own on loopback, with one bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        forget_connections()
        import s3fs

        s3fs.S3FileSystem().mkdir("bucket")
        yield f"http://{host}:{port}"
        server.stop()
    forget_connections()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("shards")
    for number in range(3):
        image_tar(root / f"{number}.tar", 6 + number)
    return find_dataset(str(root))


def forget_connections() -> None:
    """s3fs keeps its connections by settings; an environment that has changed is none of them."""
    from actmine.pipeline.storage.bucket import _Files

    _Files.clear_instance_cache()


def whole_run(dataset: Dataset, run: Path) -> Run:
    """Mines, visualizes and draws sheets."""
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.*,classifier")
    mine(dataset, network, traced, layers, run, CPU, MineSettings(StatisticsOptions(topk=4), workers=1))
    find_neighbors(run)
    focus_run(run, dataset.by_number, network, traced, layers, LocalEngine(CPU, 1), most=2)
    visualize_run(run, network, traced, layers[:1], find_preset("default"), CPU)
    opened = open_run(run)
    names = [layer.name for layer in layers]
    write_overviews(opened, names)
    write_sheets(opened, names, most=2)
    return opened


@pytest.fixture(scope="module")
def both(endpoint: str, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The same run in a folder and in the bucket."""
    return whole_run(dataset, tmp_path_factory.mktemp("local") / "run"), whole_run(
        dataset, run_folder("s3://bucket/a/run")
    )


def objects(prefix: str) -> dict[str, bytes]:
    """Every object below a prefix of the bucket, by what follows it; asked in another way than ours."""
    import boto3

    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", ())]
    return {key.removeprefix(prefix): client.get_object(Bucket="bucket", Key=key)["Body"].read() for key in keys}


def test_a_run_in_a_bucket_has_the_bytes_of_a_run_in_a_folder(both):
    local, remote = both
    wanted = {str(path.relative_to(local.path)): path for path in local.path.rglob("*") if path.is_file()}
    found = objects("a/run/")
    assert set(found) == set(wanted) - {"state/lock"}
    assert sum(name.endswith(".parquet") for name in found) == 17 and "sheets/classifier/overview.png" in found
    assert [name for name in found if name != "run.json" and found[name] != wanted[name].read_bytes()] == []
    assert remote.record["fingerprint"] == local.record["fingerprint"]
    assert [name for name in found if name.startswith("state/")] == ["state/identity.json"]


def test_a_run_in_a_bucket_reads_like_any_other(both):
    local, remote = both
    for table in ("layers", "images", "shards"):
        pd.testing.assert_frame_equal(getattr(remote, table), getattr(local, table))
    for unit in (None, 3):
        pd.testing.assert_frame_equal(remote.units("stem.relu", unit), local.units("stem.relu", unit))
        pd.testing.assert_frame_equal(remote.neighbors("stem.relu", unit), local.neighbors("stem.relu", unit))
        pd.testing.assert_frame_equal(remote.exemplars("classifier", unit), local.exemplars("classifier", unit))
    first = remote.units("stem.relu", 0).iloc[0]
    assert picture(first.visualization).size == picture(local.units("stem.relu", 0).iloc[0].visualization).size
    assert remote.original(0).size == local.original(0).size
    rows = local.exemplars("stem.relu", 3).to_dict("records")
    for there, here in zip(remote.crops(rows), local.crops(rows), strict=True):
        assert there.tobytes() == here.tobytes()
    with pytest.raises(UserError, match=r"s3://bucket/a/run has no layer 'stem\.rel'.*stem\.relu"):
        remote.units("stem.rel")
    with pytest.raises(UserError, match="no finished run in s3://bucket/a/ran"):
        open_run("s3://bucket/a/ran")


def test_pandas_alone_reads_the_tables(both, endpoint):
    local, _ = both
    options = {"endpoint_url": endpoint}
    filters = [("unit", "==", 3)]
    found = pd.read_parquet("s3://bucket/a/run/exemplars", storage_options=options, filters=filters)
    pd.testing.assert_frame_equal(found, pd.read_parquet(local.path / "exemplars", filters=filters))


def test_one_unit_costs_the_footer_and_its_own_row_group(both, monkeypatch):
    from actmine.pipeline.storage.bucket import _Files
    from actmine.pipeline.storage.parquet import write_rows
    from actmine.schemas.exemplars import EXEMPLARS
    from actmine.schemas.fields import IMAGE

    _, remote = both
    random = np.random.default_rng(0)
    row = {name: None for name in EXEMPLARS.names if EXEMPLARS.field(name).type != IMAGE}
    row |= dict.fromkeys(("rank", "image_id", "left", "top", "right", "bottom"), 0)
    rows = [
        row | {"layer": "wide", "unit": n // 9, "activation": 0.0, "key": "k", "clipped": False,
               "crop": {"bytes": random.bytes(20_000), "path": None}}
        for n in range(1800)
    ]  # fmt: skip
    write_rows(remote.path / "exemplars" / "wide.parquet", EXEMPLARS, rows)
    asked: list[str] = []
    call = _Files._call_s3

    async def noted(self, method, *akwarglist, **kwargs):
        answer = await call(self, method, *akwarglist, **kwargs)
        if method == "get_object":
            asked.append(answer["ContentLength"])
        return answer

    monkeypatch.setattr(_Files, "_call_s3", noted)
    found = remote.exemplars("wide", 120)
    remove_files([remote.path / "exemplars" / "wide.parquet"])
    assert found["crop"].map(lambda cell: cell["bytes"]).tolist() == [
        rows[n]["crop"]["bytes"] for n in range(1080, 1089)
    ]
    assert 9_000_000 < sum(asked) < 9_600_000 and len(asked) < 10, asked


def test_the_commands_take_a_run_in_a_bucket(both):
    from actmine.jobs.__main__ import application

    words = ["sheets", "--run", "s3://bucket/a/run", "--layers", "classifier", "--units", "5", "--no-overviews"]
    result = CliRunner().invoke(application(["sheets"]), words)
    assert result.exit_code == 0 and "s3://bucket/a/run/sheets/classifier/5.png" in result.stderr
    assert "sheets/classifier/5.png" in objects("a/run/")


def test_mining_again_keeps_what_is_there(both, dataset):
    before = objects("a/run/")
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose("stem.*,classifier")
    mine(
        dataset,
        network,
        traced,
        layers,
        run_folder("s3://bucket/a/run"),
        CPU,
        MineSettings(StatisticsOptions(topk=4), workers=1),
    )
    assert objects("a/run/") == before
    settings = MineSettings(StatisticsOptions(topk=4, sketch=64), workers=1)
    with pytest.raises(UserError, match=r"s3://bucket/a/run was begun with other settings: sketch was 1024, now 64"):
        mine(dataset, network, traced, layers, run_folder("s3://bucket/a/run"), CPU, settings)


def test_a_killed_run_goes_on_in_the_bucket(both, dataset, tmp_path):
    local, _ = both
    words = [
        "mine", "--dataset", str(Path(dataset.shards[0].url).parent), "--model", "demo", "--device", "cpu",
        "--layers", "stem.*,classifier", "--topk", "4", "--workers", "1", "--run", "s3://bucket/killed/run",
        "--no-visualize", "--no-sheets", "--check-crops", "0",
    ]  # fmt: skip
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    environment = aws | {"TMPDIR": str(tmp_path / "way")}
    (tmp_path / "way").mkdir()
    run = run_folder("s3://bucket/killed/run")
    killed = start(words, tmp_path / "notes", 1.0, environment)
    assert killed.wait_until(lambda: any((run / "state").glob("block-*"))), killed.said
    killed.process.kill()
    assert killed.end() == -signal.SIGKILL and killed.stage == "Scanning"
    assert list((run / "state").glob("block-*")) and not (run / "run.json").exists()
    again = start(words, tmp_path / "notes", 0.0, environment)
    assert again.end() == 0, again.said
    assert "Going on:" in again.said
    found = objects("killed/run/")
    for name in ("images.parquet", "exemplars/stem.relu.parquet", "units/classifier.parquet"):
        assert found[name] == (local.path / name).read_bytes(), name
    assert not [path for path in (tmp_path / "way").rglob("*") if path.is_file()]


def test_places_in_a_bucket_behave_like_paths(endpoint, tmp_path):
    place = run_folder("s3://bucket/odd [place]/run")
    assert not place.exists() and not list(place.glob("*"))
    for name in ("x/one.txt", "x/two.bin", "x/y/three.txt", "z/four.txt"):
        write_bytes(place / name, name.encode())
    assert [path.name for path in place.glob("x/*.txt")] == ["one.txt"]
    assert [str(path) for path in place.glob("*/*.txt")] == [f"{place}/x/one.txt", f"{place}/z/four.txt"]
    assert (place / "x").is_dir() and not (place / "x").is_file() and (place / "x/one.txt").is_file()
    one = place / "x" / "one.txt"
    assert (one.name, one.stem, one.suffix, one.parent) == ("one.txt", "one", ".txt", place / "x")
    with local_copy(one) as copy:
        assert copy.read_bytes() == b"x/one.txt"
    assert not copy.exists()
    with one.open("rb") as stream:
        stream.seek(2)
        assert stream.read(3) == b"one"
    remove_files([place / "x", place / "nothing"])
    assert [str(path) for path in place.glob("*/*")] == [f"{place}/z/four.txt"]
    with pytest.raises(FileNotFoundError):
        (place / "nothing").read_bytes()
    with suppress(KeyError), written_aside(one) as aside:
        aside.write_bytes(b"half")
        raise KeyError
    assert not one.exists()


def test_what_another_process_commits_is_seen_at_once(endpoint):
    import boto3

    place = run_folder("s3://bucket/seen")
    assert not (place / "a").exists() and not list(place.glob("*"))
    boto3.client("s3").put_object(Bucket="bucket", Key="seen/a", Body=b"1")
    assert (place / "a").exists() and len(list(place.glob("*"))) == 1
    boto3.client("s3").delete_object(Bucket="bucket", Key="seen/a")
    assert not (place / "a").exists() and not list(place.glob("*"))


def test_a_large_file_appears_whole(endpoint):
    data = np.random.default_rng(1).bytes(101 << 20)  # s3fs sends it in parts
    place = run_folder("s3://bucket/large/file")
    with written_aside(place) as aside:
        aside.write_bytes(data)
        assert not place.exists()
    assert place.read_bytes() == data
    remove_files([place])


def complaint(word: str) -> str:
    with pytest.raises(UserError) as caught:
        write_bytes(run_folder(word) / "file", b"1")
    with pytest.raises(UserError):
        (run_folder(word) / "file").is_file()
    return str(caught.value)


def test_a_missing_bucket_is_one_sentence(endpoint):
    assert complaint("s3://nowhere/run") == "There is no bucket nowhere. Make it, or choose another RUN."


def test_missing_credentials_are_one_sentence(endpoint, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_connections()
    assert "Unable to locate credentials. Set AWS_ACCESS_KEY_ID" in complaint("s3://bucket/run")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    forget_connections()
    assert "profile (nobody) could not be found" in complaint("s3://bucket/run")
    monkeypatch.undo()
    forget_connections()


def test_an_endpoint_that_has_gone_is_one_sentence(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_connections()
    assert "Check the network and AWS_ENDPOINT_URL; the same command then goes on" in complaint("s3://bucket/run")
    monkeypatch.undo()
    forget_connections()


def test_a_refusal_is_one_sentence(endpoint, monkeypatch):
    from s3fs import S3FileSystem

    async def refused(self, *args, **kwargs):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(S3FileSystem, "_call_s3", refused)
    assert "S3 refuses s3://bucket/run/file (Access Denied). Check that the credentials" in complaint("s3://bucket/run")


def test_a_missing_extra_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("s3fs"):
            raise ModuleNotFoundError("No module named 's3fs'", name="s3fs")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "actmine.pipeline.storage.bucket", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"A RUN on S3 needs s3fs: .*-m pip install 'actmine\[s3\]'"):
        run_folder("s3://bucket/run")


def test_a_full_disk_on_the_way_to_the_bucket_names_the_folder_on_the_way(endpoint, monkeypatch, tmp_path):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UserError, match=rf"{tmp_path}/actmine-.* \(No space left on device\).*set TMPDIR"):  # noqa: SIM117
        with written_aside(run_folder("s3://bucket/run/file")) as aside:
            full(aside, b"")


def test_a_folder_of_someone_else_on_the_way_is_refused(endpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("os.getuid", lambda: 12345)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UserError, match="belongs to someone else"), written_aside(run_folder("s3://b/r/f")):
        pass


def test_a_run_in_a_bucket_is_compared_like_any_other(both):
    local, remote = both
    compare_runs(remote, local, most=2)
    compare_runs(local, remote, most=2)
    found = remote.matches(local.path, "stem.relu")
    assert len(found) and (found["similarity"][found["rank"] == 0] == 1).all()
    pd.testing.assert_frame_equal(found, local.matches(remote.path, "stem.relu"))


def test_a_run_in_a_bucket_grows(both, dataset):
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    place = run_folder("s3://bucket/growing/run")
    for layers in ("stem.*", "classifier"):
        mine(
            dataset,
            network,
            traced,
            traced.choose(layers),
            place,
            CPU,
            MineSettings(StatisticsOptions(topk=4), workers=1),
        )
    there = objects("growing/run/")
    assert not [name for name in there if name.startswith("growing/")]
    wanted = open_run("s3://bucket/a/run")
    for layer in ("stem.relu", "classifier"):
        ours = open_run("s3://bucket/growing/run").exemplars(layer)
        assert ours[["unit", "rank", "activation", "image_id"]].equals(
            wanted.exemplars(layer)[["unit", "rank", "activation", "image_id"]]
        )
