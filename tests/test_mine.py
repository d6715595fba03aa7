"""Mining end to end: against brute force, twice, with other workers, interrupted, refused."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

import actmine.pipeline.stages.mining
from actmine.pipeline.datasets.sources import Dataset, find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.preprocessing.images import Preprocessing
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.run import open_run
from actmine.pipeline.stages.mine import MineSettings, mine

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `class/image` folder of 90 noisy pictures of odd sizes, some twins, one of them broken, one grey."""
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(7)
    for number in range(90):
        path = root / f"class_{number % 4}" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        height, width = random.integers(70, 150, 2)
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((int(width), int(height)), Image.Resampling.BICUBIC)
        if number % 10 == 9:
            picture = Image.open(root / f"class_{(number - 1) % 4}" / f"{number - 1:03d}.png")  # a twin: ties
        picture.convert("L" if number == 5 else "RGB").save(path)
    (root / "class_1" / "041.png").write_bytes(b"not a picture")
    return root


def build(name: str) -> Network:
    """A network on 64 px inputs, with random weights that spread over many activations."""
    if name == "demo":
        return load_network("demo")
    torch.manual_seed(1)
    options = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    how = Preprocessing.usual(72, (64, 64))
    return Network(name, module, how, "random", f"random {name}")


def run_mine(dataset: Dataset, network: Network, run: Path, layers: str = "", **settings: object) -> pd.DataFrame:
    traced = Traced(network.module, network.input_shape)
    options: dict[str, object] = {"keep": StatisticsOptions(12), "batch_size": 16, "workers": 2, "max_skipped": 0.05}
    mine(dataset, network, traced, traced.choose(layers), run, CPU, MineSettings(**(options | settings)))  # type: ignore[arg-type]
    return pd.read_parquet(run / "exemplars")


def brute_force(
    pictures: list[list[tuple[int, Image.Image]]], network: Network, layers: list[str], k: int, batch: int
) -> dict[str, list[list[tuple[float, int, int, int]]]]:
    """Keeps every map of every image, then sorts: per layer and unit the k best (activation, image_id, y, x).

    `pictures` are the shards' images with their ids; preprocessing is torchvision's own composition.
    """
    how = network.preprocessing
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(how.steps[0].to[0]),
            torchvision.transforms.CenterCrop(how.size),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(how.mean, how.std),
        ]
    )
    for module in network.module.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    extract = create_feature_extractor(network.module, layers).to(memory_format=torch.channels_last).eval()
    entries: dict[str, list[list[tuple[float, int, int, int]]]] = {}
    for shard in pictures:
        for start in range(0, len(shard), batch):
            part = shard[start : start + batch]
            images = torch.stack([transform(image.convert("RGB")) for _, image in part])
            with torch.inference_mode():
                maps = extract(images.to(memory_format=torch.channels_last))
            for layer, output in maps.items():
                values = output.float().numpy()
                values = values[:, :, None, None] if values.ndim == 2 else values
                units = entries.setdefault(layer, [[] for _ in range(values.shape[1])])
                for (image_id, _), activations in zip(part, values, strict=True):
                    for unit, plane in enumerate(activations):
                        y, x = divmod(int(np.argmax(plane)), plane.shape[1])
                        units[unit].append((float(plane[y, x]), image_id, y, x))
    return {
        layer: [sorted(unit, key=lambda e: (-e[0], e[1], e[2], e[3]))[:k] for unit in units]
        for layer, units in entries.items()
    }


def assert_same(exemplars: pd.DataFrame, wanted: dict[str, list[list[tuple[float, int, int, int]]]]) -> None:
    for layer, units in wanted.items():
        rows = exemplars[exemplars["layer"] == layer].sort_values(["unit", "rank"])
        assert len(rows) == sum(len(unit) for unit in units)
        positions = rows[["y", "x"]].fillna(0).astype(int)
        found = list(zip(rows["activation"], rows["image_id"], positions["y"], positions["x"], strict=True))
        flat = [entry for unit in units for entry in unit]
        assert [(float(a), int(i), int(y), int(x)) for a, i, y, x in found] == [
            (float(np.float32(a)), i, y, x) for a, i, y, x in flat
        ], layer


def folder_pictures(folder: Path) -> list[list[tuple[int, Image.Image]]]:
    found = []
    for image_id, path in enumerate(sorted(folder.rglob("*.png"))):
        try:
            found.append((image_id, Image.open(path).convert("RGB")))
        except OSError:
            continue
    return [found]


@pytest.mark.parametrize("name", ["resnet18", pytest.param("googlenet", marks=pytest.mark.slow)])
def test_every_exemplar_of_every_unit_equals_a_brute_force_sort(name, folder, tmp_path):
    network = build(name)
    traced = Traced(network.module, network.input_shape)
    names = [layer.name for layer in traced.unit_bearing()]
    exemplars = run_mine(find_dataset(str(folder)), network, tmp_path / "run")
    assert_same(exemplars, brute_force(folder_pictures(folder), build(name), names, 12, 16))


def test_every_exemplar_of_the_whole_demo_equals_a_brute_force_sort(demo_dataset, tmp_path):
    network = load_network("demo")
    traced = Traced(network.module, network.input_shape)
    names = [layer.name for layer in traced.unit_bearing()]
    exemplars = run_mine(demo_dataset, network, tmp_path / "run", keep=StatisticsOptions(50), batch_size=64)
    import webdataset

    pictures, image_id = [], 0
    for shard in demo_dataset.shards:
        samples = list(webdataset.WebDataset(shard.url, shardshuffle=False))
        pictures.append([(image_id + n, Image.open(io.BytesIO(s["jpg"]))) for n, s in enumerate(samples)])
        image_id += len(samples)
    assert image_id == 4096
    assert_same(exemplars, brute_force(pictures, load_network("demo"), names, 50, 64))


def test_the_tables_tell_the_truth_about_every_image(folder, tmp_path):
    exemplars = run_mine(find_dataset(str(folder)), build("resnet18"), tmp_path / "run", "layer3.*")
    run = tmp_path / "run"
    shards, skipped, images = (pd.read_parquet(run / f"{t}.parquet") for t in ("shards", "skipped", "images"))
    assert (shards["members"], shards["seen"], shards["skipped"])[0].tolist() == [90]
    assert (shards["seen"] + shards["skipped"] == shards["members"]).all()
    assert skipped[["key", "shard"]].values.tolist() == [["class_1/041", 0]]
    assert "cannot identify image file" in skipped["error"][0]
    assert set(exemplars["image_id"]) == set(images["image_id"])
    for row in images.itertuples():
        original = Image.open(folder / row.path)
        assert original.size == (row.width, row.height)
        assert row.label_name == f"class_{row.label}" == row.path.split("/")[0]
        assert row.nbytes == (folder / row.path).stat().st_size and row.offset == 0


def test_crops_are_the_original_pixels_inside_the_box(folder, tmp_path):
    exemplars = run_mine(
        find_dataset(str(folder)), build("resnet18"), tmp_path / "run", "relu,layer1.0.add,layer4.1.add"
    )
    run = open_run(tmp_path / "run")
    images, exact = run.images, 0
    for row in exemplars.iloc[::23].itertuples():
        original = Image.open(folder / images.loc[row.image_id, "path"]).convert("RGB")
        wanted = original.crop((row.left, row.top, row.right, row.bottom))
        crop = run.crop(row._asdict())  # out of files that are kept as they are
        assert np.array_equal(np.asarray(crop), np.asarray(wanted))
        exact += 1
    assert exact > 50


def tables_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


def test_two_runs_and_any_number_of_workers_give_the_same_bytes(folder, tmp_path, monkeypatch):
    dataset, network = find_dataset(str(folder)), build("resnet18")
    for run, workers in (("first", 1), ("again", 1), ("many", 4)):
        monkeypatch.setattr(
            "actmine.pipeline.stages.mining.usable_cores", partial(int, workers)
        )  # layers' tables at once
        run_mine(dataset, network, tmp_path / run, "layer2.*", workers=workers)
    first = tables_of(tmp_path / "first")
    assert len(first) > 10
    assert tables_of(tmp_path / "again") == first
    assert tables_of(tmp_path / "many") == first


def test_a_run_with_other_settings_is_refused_naming_what_differs(folder, tmp_path):
    dataset, network = find_dataset(str(folder)), build("resnet18")
    run_mine(dataset, network, tmp_path / "run", "layer1.*")
    with pytest.raises(UserError, match=r"other settings: direction was \"max\", now \"min\"\. Choose another RUN"):
        run_mine(dataset, network, tmp_path / "run", "layer1.*", keep=StatisticsOptions(12, "min"))
    with pytest.raises(UserError, match="batch_size was 16, now 8"):
        run_mine(dataset, network, tmp_path / "run", "layer2.*", batch_size=8)


def test_mining_again_keeps_the_tables(folder, tmp_path):
    dataset, network = find_dataset(str(folder)), build("resnet18")
    run_mine(dataset, network, tmp_path / "run", "layer1.*")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.parquet")}
    run_mine(dataset, network, tmp_path / "run", "layer1.*")
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.parquet")}


def test_too_many_skipped_samples_fail_but_leave_their_account_and_go_on_when_allowed(folder, tmp_path):
    dataset, network = find_dataset(str(folder)), build("resnet18")
    with pytest.raises(UserError, match=r"1 of 90 samples were skipped, more than --max-skipped=0.01 .*041"):
        run_mine(dataset, network, tmp_path / "run", "layer1.*", max_skipped=0.01)
    assert len(pd.read_parquet(tmp_path / "run" / "skipped.parquet")) == 1
    assert len(run_mine(dataset, network, tmp_path / "run", "layer1.*", max_skipped=0.02)) > 0


def test_fewer_images_than_k_give_fewer_rows_and_no_invented_ones(folder, tmp_path):
    exemplars = run_mine(
        find_dataset(str(folder)), build("resnet18"), tmp_path / "run", "layer1.0.add", keep=StatisticsOptions(500)
    )
    assert exemplars.groupby("unit").size().unique().tolist() == [89]
    assert exemplars["image_id"].between(0, 89).all()


def test_nan_activations_are_counted_and_never_win(folder, tmp_path):
    class Spoiled(nn.Module):
        """Divides by how far the first pixel is from the image's largest: NaN for pictures that start with it."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            distance = x[:, :, :1, :1].sum(1, keepdim=True).clamp(min=0.0)
            return torch.log(distance) * 0 + self.conv(x)

    network = Network("spoiled", Spoiled().eval(), Preprocessing.usual(40, (32, 32)), "random", "spoiled")
    exemplars = run_mine(find_dataset(str(folder)), network, tmp_path / "run", "add")
    units = pd.read_parquet(tmp_path / "run" / "units")
    assert (units["nan_count"] > 0).all() and (units["nan_count"] + units["images_seen"] == 89).all()
    assert exemplars["activation"].notna().all()
    assert units["activation_mean"].notna().all()


def test_weights_that_lack_what_the_layers_need_are_refused_by_name(folder, tmp_path):
    network = build("resnet18")
    lacking = Network(
        "resnet18", network.module, network.preprocessing, "part.pth", "x", None, frozenset({"fc.weight"})
    )
    with pytest.raises(UserError, match=r"part\.pth lacks fc\.weight"):
        run_mine(find_dataset(str(folder)), lacking, tmp_path / "run", "fc")
    assert len(run_mine(find_dataset(str(folder)), lacking, tmp_path / "run", "layer4.1.add"))


def test_statistics_and_labels_of_units_agree_with_the_maps(folder, tmp_path):
    network = build("resnet18")
    exemplars = run_mine(find_dataset(str(folder)), network, tmp_path / "run", "layer2.0.relu")
    units = pd.read_parquet(tmp_path / "run" / "units").set_index("unit")
    every = brute_force(folder_pictures(folder), build("resnet18"), ["layer2.0.relu"], 10**6, 16)["layer2.0.relu"]
    for unit, entries in enumerate(every):
        values = np.array([value for value, *_ in entries], np.float32).astype(np.float64)
        row = units.loc[unit]
        assert row["images_seen"] == 89 and row["activation_max"] == np.float32(values.max())
        np.testing.assert_allclose(
            [row["activation_mean"], row["activation_std"]], [values.mean(), values.std()], rtol=1e-6
        )
        assert row["firing_rate"] == (values > 0).mean()
        mine_rows = exemplars[(exemplars["unit"] == unit) & (exemplars["activation"] > 0)]
        if len(mine_rows):
            counts = mine_rows["label"].value_counts()
            assert row["label_purity"] == counts.max() / len(mine_rows)
            assert row["top_label"] == counts[counts == counts.max()].index.min()


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(folder, tmp_path):
    """SIGKILL once, in the middle of the scan: the same command then finishes as if nothing had been."""
    pictures = sorted(path for path in folder.rglob("*.png") if path.stat().st_size > 100)
    import webdataset

    for shard in range(6):
        with webdataset.TarWriter(str(tmp_path / f"part-{shard}.tar"), mtime=0) as writer:
            for number in range(30):
                writer.write(
                    {"__key__": f"{number:03d}", "png": pictures[(shard * 30 + number) % 88].read_bytes(), "cls": 1}
                )
    command = [
        sys.executable, "-m", "actmine", "mine", "--dataset", str(tmp_path / "part-{0..5}.tar"), "--model", "resnet18",
        "--weights", "random", "--layers", "layer1.*", "--topk", "8", "--no-visualize", "--no-sheets", "--run",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, str(whole)], check=True, cwd=ROOT, env=environment, capture_output=True)
    process = subprocess.Popen([*command, str(killed)], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(killed.glob("state/block-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "run.json").exists()
    again = subprocess.run([*command, str(killed)], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0 and "Going on:" in again.stderr
    assert tables_of(killed) == tables_of(whole)


def test_an_image_that_changed_after_its_scan_is_one_sentence(folder, tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    scan_only = actmine.pipeline.stages.mining.Mining._cut

    def spoil_then_cut(self, merged, rows):
        for path in pictures.rglob("*.png"):
            path.write_bytes(b"x" * path.stat().st_size)
        return scan_only(self, merged, rows)

    monkeypatch.setattr(actmine.pipeline.stages.mining.Mining, "_cut", spoil_then_cut)
    with pytest.raises(UserError, match=r"has other bytes than when it was scanned.* dataset changed"):
        run_mine(find_dataset(str(pictures)), build("resnet18"), tmp_path / "run", "layer1.0.add")


def test_the_record_names_everything_the_result_depends_on(folder, tmp_path):
    run_mine(find_dataset(str(folder)), build("resnet18"), tmp_path / "run", "layer1.0.add")
    record = json.loads((tmp_path / "run" / "run.json").read_bytes())
    wanted = {"dataset_fingerprint", "weights_hash", "preprocessing", "layers", "topk", "versions", "machine",
              "precision", "decoder", "counts", "seconds", "batch_size", "device", "fingerprint"}  # fmt: skip
    assert wanted <= record.keys()
    assert record["counts"]["seen"] == 89 and record["counts"]["skipped"] == 1


def test_row_groups_are_small_and_hold_whole_units(folder, tmp_path):
    run_mine(find_dataset(str(folder)), build("resnet18"), tmp_path / "run", "layer3.0.add")
    file = pq.ParquetFile(tmp_path / "run" / "exemplars" / "layer3.0.add.parquet")
    for group in range(file.num_row_groups):
        units = file.read_row_group(group, ["unit"])["unit"].to_numpy()
        assert len(units) <= 1800 and (np.bincount(units - units.min()) == 12).all()


def test_only_the_needed_part_of_the_network_is_kept():
    network = build("resnet18")
    traced = Traced(network.module, network.input_shape)
    names = TappedNetwork(traced, traced.choose("layer1.0.add")).parameter_names()
    assert not any(name.startswith(("layer2", "fc")) for name in names)
