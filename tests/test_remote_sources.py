"""Datasets elsewhere: the same shards on a disk, over HTTP and on S3 are the same dataset and give the same tables."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch

import actmine.pipeline.stages.mining
from actmine.pipeline.datasets.shard_writer import write_shards
from actmine.pipeline.datasets.shards import ShardError
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import image_tar, jpeg, refusal, samples, write_folder
from tests.serving import Server, impatient, s3_store, web_server

for package in ("aiohttp", "tenacity"):
    pytest.importorskip(package, reason="needs the extra http")

COUNT = 4


@dataclass
class Elsewhere:
    """The same four shards in three places; `pattern` has them all, `tar` is the first."""

    folder: Path
    pattern: str
    tar: str
    server: Server
    replace: Callable[[str, bytes], None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sources")
    files = {f"{'abc'[n % 3]}/{n:03d}.jpg": jpeg(n, 30 + n) for n in range(32)}
    write_shards(find_dataset(str(write_folder(root / "pictures", files))), root / "birds", 8, "birds")
    (root / "birds" / "birds-000001.index.parquet").unlink()
    return root / "birds"


@pytest.fixture(scope="module")
def web(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    root = write_folder(tmp_path_factory.mktemp("web"), {f"birds/{p.name}": p.read_bytes() for p in folder.iterdir()})
    with web_server(root) as server:
        url = f"{server.url}/birds/birds-"
        replace = lambda name, data: (root / "birds" / name).write_bytes(data)  # noqa: E731
        yield Elsewhere(folder, f"{url}{{000000..000003}}.tar", f"{url}000000.tar", server, replace)


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Elsewhere]:
    with pytest.MonkeyPatch.context() as patch:
        impatient(patch)
        with s3_store(patch) as found:
            files = {f"x/birds/{p.name}": p.read_bytes() for p in folder.iterdir()}
            url = found.put("sources", files) + "/x/birds/birds-"
            found.put("odd", {
                "both/a.tar": b"", "both/a.jpg": b"", "images/a/1.jpg": b"", "deep/er/a.tar": b"", "text/a.txt": b"",
                ".hidden/.a.tar": b"",
            })  # fmt: skip
            replace = lambda name, data: found.client.put_object(  # noqa: E731
                Bucket="sources", Key=f"x/birds/{name}", Body=data
            )
            yield Elsewhere(folder, f"{url}{{000000..000003}}.tar", f"{url}000000.tar", found.server, replace)


@pytest.fixture(params=["web", "store"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Elsewhere]:
    found: Elsewhere = request.getfixturevalue(request.param)
    impatient(monkeypatch)
    found.server.asked.clear()
    yield found
    found.server.fault = lambda path, before: ""
    for path in found.folder.iterdir():
        found.replace(path.name, path.read_bytes())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


def run_mine(dataset: Dataset, run: Path, workers: int = 2) -> Path:
    network = load_network("demo", "random")
    traced = Traced(network.module, network.input_shape)
    layers = traced.choose(traced.unit_bearing()[0].name)
    mine(
        dataset,
        network,
        traced,
        layers,
        run,
        torch.device("cpu"),
        MineSettings(StatisticsOptions(topk=5), workers=workers),
    )
    return run


def tables(run: Path) -> dict[str, bytes]:
    """Every table but the one that says where the shards are."""
    files = {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}
    del files["shards.parquet"]
    return files


@pytest.fixture(scope="module")
def on_disk(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return tables(run_mine(find_dataset(str(folder)), tmp_path_factory.mktemp("runs") / "disk"))


def test_the_same_shards_are_the_same_dataset_wherever_they_are(elsewhere: Elsewhere) -> None:
    disk, found = find_dataset(str(elsewhere.folder)), find_dataset(elsewhere.pattern)
    assert (found.name, found.fingerprint) == (disk.name, disk.fingerprint)
    assert [samples(shard) for shard in found.shards] == [samples(shard) for shard in disk.shards]
    assert [shard.index is None for shard in found.shards] == [False, True, False, False]
    assert [shard.index is None for shard in disk.shards] == [False, True, False, False]


def test_tables_are_the_same_bytes_wherever_the_shards_are(
    elsewhere: Elsewhere, on_disk: dict[str, bytes], tmp_path: Path
) -> None:
    run = run_mine(find_dataset(elsewhere.pattern), tmp_path / "run")
    assert tables(run) == on_disk
    assert pd.read_parquet(run / "shards.parquet").url.tolist()[0] == elsewhere.tar
    image = open_run(run).images.iloc[0]
    assert open_run(run).original(image.image_id).size == (image.width, image.height)


def test_a_network_in_trouble_changes_no_byte(elsewhere: Elsewhere, on_disk: dict[str, bytes], tmp_path: Path) -> None:
    times: Counter[tuple[str, str]] = Counter()

    def twice(path: str, before: int) -> str:
        """The first two requests for most ranges fail, each range in one way, however many are under way at once."""
        wanted = path, elsewhere.server.range
        times[wanted] += 1
        kind = zlib.crc32(repr(wanted).encode()) % 6
        return ("500", "cut", "reset", "503", "", "")[kind] if times[wanted] <= 2 else ""

    elsewhere.server.fault = twice
    assert tables(run_mine(find_dataset(elsewhere.pattern), tmp_path / "run")) == on_disk
    assert len(times) > 15 and sum(count > 2 for count in times.values()) > len(times) / 3


@pytest.mark.parametrize(("fault", "sentence"), [("404", "there is no such"), ("403", "403")])
def test_a_shard_that_goes_between_scan_and_crops_is_one_sentence_and_comes_back(
    fault: str, sentence: str, elsewhere: Elsewhere, on_disk: dict[str, bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    stage = actmine.pipeline.stages.mining.Mining._cut

    def gone_then_cut(self, *args):  # type: ignore[no-untyped-def]
        elsewhere.server.fault = lambda path, before: fault if path.endswith("000002.tar") else ""
        return stage(self, *args)

    monkeypatch.setattr(actmine.pipeline.stages.mining.Mining, "_cut", gone_then_cut)
    with pytest.raises(
        ShardError, match=rf"^Shard .*birds-000002.tar cannot be read: .*{sentence}.*What was done is kept"
    ):
        run_mine(find_dataset(elsewhere.pattern), tmp_path / "run")
    elsewhere.server.fault = lambda path, before: ""
    monkeypatch.undo()
    impatient(monkeypatch)
    elsewhere.server.asked.clear()
    assert tables(run_mine(find_dataset(elsewhere.pattern), tmp_path / "run")) == on_disk


def test_a_shard_that_changes_during_the_run_is_one_sentence(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = actmine.pipeline.stages.mining.Mining._cut

    def change_then_cut(self, *args):  # type: ignore[no-untyped-def]
        whole = (elsewhere.folder / "birds-000002.tar").read_bytes()
        elsewhere.replace("birds-000002.tar", whole[:-1] + b"\1")
        return stage(self, *args)

    monkeypatch.setattr(actmine.pipeline.stages.mining.Mining, "_cut", change_then_cut)
    with pytest.raises(ShardError, match=r"birds-000002.tar has changed while it was in use: its ETag was"):
        run_mine(find_dataset(elsewhere.pattern), tmp_path / "run")


def test_damage_elsewhere_is_found_as_on_a_disk(elsewhere: Elsewhere) -> None:
    whole = (elsewhere.folder / "birds-000001.tar").read_bytes()
    for data, sentence in ((whole[:9000], "damaged after byte"), (whole + b"x" * 600, "data follow its end marker")):
        elsewhere.replace("birds-000001.tar", data)
        with pytest.raises(ShardError, match=sentence):
            samples(find_dataset(elsewhere.pattern).shards[1])
    elsewhere.replace("birds-000001.tar", b"\x1f\x8b" + whole[2:])
    with pytest.raises(ShardError, match="is compressed"):
        samples(find_dataset(elsewhere.pattern).shards[1])


def test_a_missing_shard_of_a_pattern_is_an_error(elsewhere: Elsewhere) -> None:
    word = elsewhere.pattern.replace("000003", "000006")
    assert refusal(word) == f"3 of 7 shards are missing, the first is {elsewhere.tar.replace('0000.', '0004.')}."
    assert "more than once" in refusal(elsewhere.tar.replace("000000", "{000000,000000}"))


def test_a_folder_or_glob_of_s3_is_the_same_dataset_with_one_listing(store: Elsewhere) -> None:
    disk = find_dataset(str(store.folder))
    url = store.tar.rpartition("/")[0]
    for word in (url, f"{url}/", f"{url}/*.tar", f"{url}/birds-0000*.tar", "s3://sources/**/birds-??????.tar"):
        store.server.asked.clear()
        found = find_dataset(word)
        assert (found.name, found.fingerprint) == (disk.name, disk.fingerprint), word
        assert [shard.url for shard in found.shards] == [f"{url}/birds-{n:06d}.tar" for n in range(COUNT)]
        assert [shard.index is None for shard in found.shards] == [False, True, False, False]
        assert len(store.server.asked) == 1
        assert [samples(shard) for shard in found.shards] == [samples(shard) for shard in disk.shards]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("s3://odd/both", "holds tars as well as images (s3://odd/both/a.jpg). Say DATASET='s3://odd/both/*.tar'"),
        ("s3://odd/images", "holds images and no tars"),
        ("s3://odd/images", "-m actmine shards --source folder --out s3://odd/images-shards"),
        ("s3://odd/deep", "say DATASET='s3://odd/deep/**/*.tar'"),
        ("s3://odd/text", "holds no tars."),
        ("s3://odd/.hidden", "holds no tars."),
        ("s3://odd/nothing", "There is nothing in s3://odd/nothing"),
        ("s3://odd/*.tar", "nothing is called s3://odd/*.tar"),
        ("s3://odd/**x/a.tar", "is not a glob"),
        ("s3://o*/a.tar", "names no tar"),
        ("s3://odd/{both/*,both/a}.tar", "more than once"),
        ("{s3://odd/both/*,https://h/a}.tar", "say one kind"),
        ("{s3://odd/both/a,/tmp/a}.tar", "mixes addresses and paths"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_on_s3_is_one_sentence(word: str, sentence: str, store: Elsewhere) -> None:
    assert sentence in refusal(word)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("https://host/x/*.tar", "a brace pattern such as https://host/x/train-{000000..000063}.tar"),
        ("https://host/x/[0-9].tar", "a web server has no list"),
        ("https://host/x/", "a web server does not tell what lies in one"),
        ("https://host", "names no tar"),
        ("https:///x.tar", "names no tar"),
        ("gs://bucket/a.tar", "gs:// is not read"),
        ("ftp://host/a.tar", "ftp:// is not read"),
        ("pipe:curl example.org", "a pipe would run whatever it says"),
        ("http://host/get.tar?sig={1,2}", "several query strings"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_on_the_web_is_one_sentence(word: str, sentence: str) -> None:
    text = refusal(word)
    assert sentence in text
    assert "\n" not in text


def test_no_secret_of_an_address_is_written_anywhere(web: Elsewhere, tmp_path: Path) -> None:
    host = web.pattern.removeprefix("http://")
    dataset = find_dataset(f"http://someone:geheim@{host}?X-Amz-Signature=abcdef")
    run = run_mine(dataset, tmp_path / "run")
    assert "geheim" not in repr(dataset) and "abcdef" not in repr(dataset)
    for path in run.rglob("*"):
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in (b"geheim", b"someone", b"abcdef")), path
    assert json.loads((run / "run.json").read_bytes())["url"] == web.tar
    assert pd.read_parquet(run / "shards.parquet").url[0] == web.tar


def test_a_name_is_that_of_the_folder_above(web: Elsewhere, tmp_path: Path) -> None:
    with web_server(tmp_path) as server:
        host = "127.0.0.1"
        for folder, name in (("", host), ("val/", f"{host}-val"), ("my birds/val/", "my birds-val")):
            image_tar(tmp_path / folder / "0.tar", 1)
            assert find_dataset(f"{server.url}/{folder.replace(' ', '%20')}0.tar").name == name


def test_thousands_of_shards_are_looked_up_with_a_bar(web: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = []

    class Watching:
        def stage(self, name: str, total: int | None, unit: str, done: int = 0):  # type: ignore[no-untyped-def]
            from actmine.pipeline.progress import Silent

            stages.append((name, total, unit))
            return Silent().stage(name, total, unit, done)

        def say(self, sentence: str) -> None:
            """Nothing."""

    with pytest.raises(UserError, match="996 of 1000 shards are missing"):
        find_dataset(web.pattern.replace("000003", "000999"), progress=Watching())
    assert stages == [("Looking up shards", 1000, "shards")]
