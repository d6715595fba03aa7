"""A run that somebody else has made: its code is imported and its addresses are asked only if the user says so."""

from __future__ import annotations

import json
import os
import sys
import threading
import zlib
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.atlas.export import export
from actmine.pipeline.datasets.folder_shards import FolderShard
from actmine.pipeline.datasets.shards import Place, ShardError, read_bytes
from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.errors import UserError
from actmine.pipeline.mined_network import mined_network
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.mine import MineSettings, mine
from actmine.pipeline.storage.parquet import read_rows, write_rows
from actmine.schemas.images import IMAGES
from actmine.schemas.shards import SHARDS
from tests.atlas_tables import PLAIN, write_run
from tests.making import encoded, jpeg, picture, write_folder
from tests.serving import Server

FACTORY = """
from pathlib import Path
from torch import nn

Path({trace!r}).touch()

def small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
"""
COMMANDS = ("check", "facets", "focus", "inspect", "score", "views", "visualize")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Another user: one who has mined nothing here."""

    def become() -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))

    return become


@pytest.fixture(scope="module")
def mined(tmp_path_factory) -> Path:
    """A folder with the run `run` of the factory `made_here:small`, which leaves `imported` behind when imported."""
    root = tmp_path_factory.mktemp("mined")
    (root / "made_here.py").write_text(FACTORY.format(trace=str(root / "imported")))
    write_folder(root / "in", {f"{seed}.jpg": jpeg(seed, 240, 240) for seed in range(10)})
    before = Path.cwd()
    os.chdir(root)
    try:
        network = load_network("made_here:small")
        traced = Traced(network.module, network.input_shape)
        source = find_dataset(str(root / "in"))
        settings = MineSettings(StatisticsOptions(4, bands=(5.0,), band_images=4), workers=1)
        mine(source, network, traced, traced.choose(""), root / "run", torch.device("cpu"), settings)
    finally:
        os.chdir(before)
    return root


def forget(root: Path) -> None:
    """As in a new process: the factory's module was never imported."""
    sys.modules.pop("made_here", None)
    (root / "imported").unlink(missing_ok=True)


def said(command: str, run: str, *words: str) -> str:
    more = {"inspect": ["--image", "in/0.jpg"]}.get(command, [])
    return CliRunner().invoke(application([command]), [command, "--run", run, *more, *words]).output


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_imports_what_a_strangers_run_names(mined, monkeypatch, elsewhere, command):
    monkeypatch.chdir(mined)
    forget(mined)
    elsewhere()
    assert "made_here:small" in (told := said(command, "run")) and "--trust" in told
    assert len(told.strip().splitlines()) == 1
    assert not (mined / "imported").exists()


def test_with_trust_it_is_imported_and_for_a_run_of_ones_own_without(mined, monkeypatch, elsewhere):
    monkeypatch.chdir(mined)
    forget(mined)
    assert mined_network(open_run("run")).name == "made_here:small"
    elsewhere()
    with pytest.raises(UserError, match="--trust"):
        mined_network(open_run("run"))
    assert mined_network(open_run("run", trust=True)).name == "made_here:small"


def test_a_run_that_was_given_another_network_or_lies_elsewhere_is_no_more_ones_own(mined, monkeypatch, tmp_path):
    monkeypatch.chdir(mined)
    assert open_run("run").trusted
    changed = tmp_path / "run"
    changed.mkdir()
    for name in ("run.json", "shards.parquet"):
        (changed / name).write_bytes((mined / "run" / name).read_bytes())
    assert not open_run(changed).trusted


@pytest.mark.parametrize("inside", ["its folder", "a package"])
def test_code_inside_the_run_is_never_imported(mined, monkeypatch, tmp_path, inside):
    run = tmp_path / "runs" / "stranger"
    run.mkdir(parents=True)
    for name in ("layers.parquet", "shards.parquet", "images.parquet"):
        (run / name).write_bytes((mined / "run" / name).read_bytes())
    (run / "evil.py").write_text(FACTORY.format(trace=str(tmp_path / "imported")))
    model = "evil:small" if inside == "its folder" else "runs.stranger.evil:small"
    record = json.loads((mined / "run" / "run.json").read_text()) | {"model": model}
    (run / "run.json").write_text(json.dumps(record))
    monkeypatch.chdir(run if inside == "its folder" else tmp_path)
    for name in ("evil", "runs", "runs.stranger"):
        sys.modules.pop(name, None)
    with pytest.raises(UserError, match=r"lies inside the run .*never imported"):
        mined_network(open_run(run, trust=True))
    assert not (tmp_path / "imported").exists()


def test_networks_by_name_need_no_trust(tmp_path, elsewhere):
    elsewhere()
    record = {"model": "demo", "dataset": "x", "weights": "random (seed 0)", "asked": {"weights": "random"},
              "weights_hash": "0", "preprocessing": {}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="mined with other weights"):
        mined_network(open_run(tmp_path))


@pytest.fixture
def web():
    server = Server(lambda handler: (404, {}, b""))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def changed(run, name, schema, changes):
    """Every row of a table with some cells of its own."""
    rows = read_rows(run / f"{name}.parquet").to_pylist()
    write_rows(run / f"{name}.parquet", schema, [row | changes for row in rows])


def test_no_address_of_a_strangers_table_is_asked(mined, tmp_path, web, elsewhere):
    run = tmp_path / "run"
    run.mkdir()
    for path in (mined / "run").rglob("*"):
        if path.is_file() and "state" not in path.parts and path.name not in ("pictures.parquet", "crops.parquet"):
            (run / path.relative_to(mined / "run")).parent.mkdir(exist_ok=True)
            (run / path.relative_to(mined / "run")).write_bytes(path.read_bytes())
    changed(run, "shards", SHARDS, {"url": f"{web.url}/secret.tar"})
    image = int(pd.read_parquet(run / "images.parquet").image_id.iloc[0])
    with pytest.raises(UserError, match=r"secret\.tar, which is not asked for them.*--trust"):
        open_run(run).original(image)
    export(open_run(run), str(tmp_path / "site"), [])
    assert web.asked == []
    with pytest.raises(UserError, match="no such file"):
        open_run(run, trust=True).original(image)
    assert web.asked


def test_no_run_elsewhere_that_a_record_says_it_was_compared_with_is_opened(tmp_path, monkeypatch):
    opened = []
    run = write_run(tmp_path, extra=True)
    record = json.loads((run / "run.json").read_text())
    record["matches"]["other-run"]["other"] = "s3://somebodys/other-run"
    (run / "run.json").write_text(json.dumps(record))
    monkeypatch.setattr(
        "actmine.pipeline.atlas.elsewhere.open_run", lambda place: opened.append(str(place)) or open_run(place)
    )
    export(open_run(run), str(tmp_path / "site"), [PLAIN])
    assert opened == [str(tmp_path / "other-run")]


def test_a_table_leads_to_no_file_outside_its_dataset(tmp_path):
    write_folder(tmp_path, {"in/a.jpg": jpeg(), "secret.jpg": jpeg(1)})
    shard = FolderShard(0, str(tmp_path / "in"))
    for path in ("../secret.jpg", str(tmp_path / "secret.jpg"), "x/../../secret.jpg"):
        with pytest.raises(ShardError, match="a trap"):
            read_bytes(shard, Place(path, 0, (tmp_path / "secret.jpg").stat().st_size))
    for offset, nbytes in ((-1, 5), (0, -5), (0, 1 << 40)):
        with pytest.raises(ShardError, match="a trap"):
            read_bytes(shard, Place("a.jpg", offset, nbytes))


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_never_read(tmp_path, kind):
    if kind == "pipe":
        os.mkfifo(tmp_path / "a.jpg")
    elif kind == "device":
        (tmp_path / "a.jpg").symlink_to("/dev/zero")
    else:
        (tmp_path / "a.jpg").mkdir()
    for shard in (FolderShard(0, str(tmp_path), files=()), TarShard(0, str(tmp_path / "a.jpg"))):
        with pytest.raises(ShardError, match=r"not a file|Is a directory|no image"):
            read_bytes(shard, Place("a.jpg", 0, 100))


@pytest.mark.parametrize("known", ["another sum", "no sum", "the sum"])
def test_a_strangers_tables_bring_no_local_picture_into_an_export(tmp_path, known):
    """Whoever names a file of this machine does not know the sum of its bytes."""
    private = write_folder(tmp_path / "private", {"me.png": encoded(picture(40, 30, 99), "PNG")})
    data = (private / "me.png").read_bytes()
    crc32 = {"another sum": 7, "no sum": None, "the sum": zlib.crc32(data)}[known]
    run = write_run(tmp_path)
    named = {"path": "me.png", "offset": 0, "nbytes": len(data), "crc32": crc32, "width": 40, "height": 30}
    changed(run, "images", IMAGES, named)
    changed(run, "shards", SHARDS, {"url": str(private)})
    for name in ("pictures", "crops"):
        (run / f"{name}.parquet").unlink(missing_ok=True)
    export(open_run(run), str(tmp_path / "site"), [])
    written = [path.suffix for path in (tmp_path / "site" / "whole").iterdir()]
    assert written and set(written) == {".png" if known == "the sum" else ".svg"}
