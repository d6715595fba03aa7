"""Directions are units: what a run says of the latents of a dictionary is what brute force finds."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn
from torchvision.transforms import v2

import actmine
from actmine.pipeline.dictionaries.dictionary import Dictionary, Gated, KLargest, Rectified, Thresholded
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.dictionary_layers import attach, of_objects
from actmine.pipeline.network.live_models import network_of
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.readings.taps import TappedNetwork
from actmine.pipeline.run import open_run
from actmine.pipeline.tables.direction_tables import by_chance
from tests.commands import start
from tests.making import encoded, picture, write_folder

IMAGES, LATENTS = 23, 150
QUICK: dict[str, Any] = {"visualize": False, "sheets": False, "quiet": True, "batch_size": 8, "min_support": 2,
                         "least_explained": -1e9}  # fmt: skip


class Tokens(nn.Module):
    """A vision transformer of 16 patches and a class token, small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.vit = torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=4)
        nn.init.normal_(self.vit.heads[0].weight)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.vit(images)
        return found


class Untraceable(nn.Module):
    """A network that torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Sequential(nn.Conv2d(3, 12, 5, 4), nn.ReLU(inplace=True))
        self.second = nn.Sequential(nn.Conv2d(12, 12, 3), nn.ReLU(inplace=True))

    def forward(self, images: Tensor) -> Tensor:
        first = self.first(images)
        found: Tensor = self.second(first) if float(first.detach().sum()) > -1e9 else first
        return found


def squeezenet() -> nn.Module:
    torch.manual_seed(2)
    return torchvision.models.squeezenet1_1(weights=None).features


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "maps": (squeezenet, "4.expand1x1_activation", 64),
    "tokens": (Tokens, "vit.encoder.layers.encoder_layer_0.add_1", 32),
    "modules": (Untraceable, "first.1", 12),
}
"""What makes a network, a layer of it, and the layer's units."""


transform = v2.Compose(
    [v2.Resize(64), v2.CenterCrop(64), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
     v2.Normalize([0.5] * 3, [0.25] * 3)]
)  # fmt: skip


def dictionaries(width: int) -> dict[str, Dictionary]:
    generator = torch.Generator().manual_seed(9)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    encoder, bias, centre, decoder = (
        random(width, LATENTS),
        random(LATENTS) / 4,
        random(width) / 9,
        random(LATENTS, width),
    )
    rest = (bias, centre, decoder, centre)
    return {
        "relu": Rectified(encoder, *rest), "jumprelu": Thresholded(encoder, random(LATENTS).abs() / 4, *rest),
        "topk": KLargest(encoder, 6, *rest), "gated": Gated(encoder, random(LATENTS).exp(), bias / 2, *rest),
        "normed": Rectified(encoder, *rest, normalization="layer_norm"),
        "scaled": KLargest(encoder, 3, *rest, normalization="constant_norm_rescale"),
        "probes": Dictionary(encoder[:, :40]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("directions") / "photos"
    return write_folder(root, {f"{'ab'[n % 2]}/{n:02d}.png": encoded(picture(64, 64, n), "PNG") for n in range(IMAGES)})


def inputs(photos: Path) -> Tensor:
    """What networks get of all images, in the order in which they are mined."""
    return torch.stack([transform(Image.open(path)) for path in sorted(photos.rglob("*.png"))])


def vectors(net: nn.Module, kind: str, images: Tensor) -> Tensor:
    """What a layer makes of images, `[B, T, width]`, by a hook or by hand."""
    kept: list[Tensor] = []
    with torch.no_grad():
        if kind == "tokens":
            vit = net.vit
            inside = vit.conv_proj(images).flatten(2).transpose(1, 2)
            inside = torch.cat([vit.class_token.expand(len(images), -1, -1), inside], 1) + vit.encoder.pos_embedding
            return vit.encoder.layers[0](inside)
        module = net[4].expand1x1_activation if kind == "maps" else net.first[1]
        handle = module.register_forward_hook(lambda _, __, made: kept.append(made.clone()))
        net(images)
        handle.remove()
    return kept[0].flatten(2).transpose(1, 2)


@pytest.fixture(scope="module", params=NETWORKS)
def mined(request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with all kinds of dictionaries on one layer, and the latents of all images by brute force."""
    make, layer, width = NETWORKS[request.param]
    net, of = make().eval(), dictionaries(width)
    run = actmine.mine(
        net, str(photos), layers=layer, transform=transform, tokens="all", topk=4, direction="both", positions="all",
        dictionary={f"{layer}:{name}": each for name, each in of.items()}, run=tmp_path_factory.mktemp("runs") / "run",
        **QUICK,
    )  # fmt: skip
    x = vectors(make().eval(), request.param, inputs(photos))
    with torch.no_grad():
        latents = {name: each(x.flatten(0, 1)).unflatten(0, x.shape[:2]).numpy() for name, each in of.items()}
    return run, layer, latents, of


def test_statistics_of_latents_are_those_of_brute_force(mined):
    run, layer, latents, of = mined
    for name, z in latents.items():
        units, image = run.units(f"{layer}:{name}"), z.max(1)
        assert np.allclose(units.activation_max, image.max(0), rtol=1e-4, atol=1e-5)
        assert np.allclose(units.activation_mean, image.mean(0), rtol=1e-4, atol=1e-5)
        assert np.allclose(units.activation_std, image.std(0), rtol=1e-3, atol=1e-4)
        assert (units.images_fired == (image > 0).sum(0)).all() and np.allclose(units.firing_rate, (image > 0).mean(0))
        assert np.allclose(units.density, (z > 0).mean((0, 1)))
        assert np.allclose(units.position_firing_rate, (z > 0).mean((0, 1)), atol=0.01)
        if of[name].decodes:
            assert np.allclose(units.decoder_norm, of[name].decoder.norm(dim=1))


def test_exemplars_of_latents_are_those_of_a_sort_and_none_on_which_they_do_not_fire(mined):
    run, layer, latents, of = mined
    for name, z in latents.items():
        image = z.max(1)
        for unit in range(0, z.shape[2], 7):
            rows = run.exemplars(f"{layer}:{name}", unit, band="top")
            order = np.lexsort((np.arange(IMAGES), -image[:, unit]))[:4]
            if of[name].rectified:
                order = order[image[order, unit] > 0]
            assert np.allclose(rows.activation, image[order, unit], rtol=1e-4, atol=1e-5)
            told = [z[i, p, unit] for i, p in zip(rows.image_id, place(rows, z.shape[1]), strict=True)]
            assert np.allclose(told, rows.activation, rtol=1e-4, atol=1e-5)


def place(rows: pd.DataFrame, positions: int) -> np.ndarray:
    """The positions of exemplars, row by row."""
    across = 1 if positions == 17 else round(positions**0.5)
    return (rows.y * across + rows.x).to_numpy()


def test_layers_say_what_they_are_made_of(mined):
    run, layer, latents, _ = mined
    rows = pd.read_parquet(run.path / "layers.parquet").set_index("layer")
    for name, z in latents.items():
        row = rows.loc[f"{layer}:{name}"]
        assert row.dictionary_layer == layer and row.units == z.shape[2]
        assert np.isclose(row.latents_per_position, (z > 0).sum(2).mean(), rtol=1e-4)
        assert (
            row.dead_units == ((z > 0).sum((0, 1)) == 0).sum() and row.dense_units == ((z > 0).mean((0, 1)) > 0.1).sum()
        )
        assert (row.rf_height, row.rf_width) == tuple(rows.loc[layer, ["rf_height", "rf_width"]])
    assert pd.isna(rows.loc[layer].dictionary)


def test_labels_sketches_and_maps_are_kept_of_latents(mined):
    run, layer, latents, _ = mined
    z = latents["topk"]
    name, labels = f"{layer}:topk", np.array([n // 12 for n in range(IMAGES)])  # a has 12 of the 23 images
    for label in (0, 1):
        rows = run.labels(name)
        rows = rows[rows.label == label].sort_values("unit")
        assert np.allclose(rows["mean"], z.max(1)[labels == label].mean(0), rtol=1e-4, atol=1e-5)
    assert (run.path / "sketches").is_dir() and len(run.neighbors(name))
    maps = run.maps(name)
    assert len(maps) and maps.high.max() == pytest.approx(z.max(), rel=1e-4)


def test_the_nearest_directions_are_those_of_a_sort_with_what_chance_reaches(mined):
    run, layer, _, of = mined
    for name in ("topk", "probes"):
        made = of[name]
        directions = (made.encoder.t() if name == "probes" else made.decoder).double().numpy()
        unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        cosines = unit @ unit.T - 3 * np.eye(len(unit))
        rows = run.directions(f"{layer}:{name}")
        assert np.allclose(rows.cosine, np.sort(cosines, 1)[:, ::-1][:, :10].reshape(-1), atol=1e-5)
        assert np.allclose(cosines[rows.unit, rows.neighbor_unit], rows.cosine, atol=1e-5)


@pytest.mark.parametrize(("count", "width"), [(40, 12), (500, 64)])
def test_what_chance_reaches_among_directions_is_what_random_ones_reach(count, width):
    random = np.random.Generator(np.random.PCG64(0))
    most = []
    for _ in range(400):
        drawn = random.standard_normal((count, width))
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        most.append((drawn[1:] @ drawn[0]).max())
    assert by_chance(count, width) == pytest.approx(np.quantile(most, 0.95), abs=0.03)


def test_a_run_without_dictionaries_is_what_it_was(photos, tmp_path):
    run = actmine.mine(
        Untraceable(), str(photos), layers="first.1", transform=transform, run=tmp_path / "run", topk=3, **QUICK
    )
    assert "dictionaries" not in run.record and "dictionaries" not in run.record["asked"]
    assert run.units("first.1").density.isna().all() and run.units("first.1").images_fired.notna().all()


@pytest.mark.parametrize(("tokens", "places"), [("patch", range(1, 17)), ("cls", range(1)), ("all", range(17))])
def test_a_dictionary_encodes_the_tokens_that_it_was_trained_on(tokens, places, photos, tmp_path):
    _, layer, width = NETWORKS["tokens"]
    made = dictionaries(width)["topk"]
    its = {f"{layer}:d": made}
    run = actmine.mine(Tokens(), str(photos), layers="vit.heads.head", transform=transform, dictionary=its,
                       tokens=tokens, topk=2, run=tmp_path / "run", **QUICK)  # fmt: skip
    x = vectors(Tokens().eval(), "tokens", inputs(photos))[:, list(places)]
    with torch.no_grad():
        z = made(x.flatten(0, 1)).unflatten(0, x.shape[:2]).numpy()
    units, rows = run.units(f"{layer}:d"), run.exemplars(f"{layer}:d")
    assert np.allclose(units.activation_max, z.max((0, 1)), rtol=1e-4, atol=1e-5)
    assert np.allclose(units.density, (z > 0).mean((0, 1)))
    told = [z[row.image_id, row.y, row.unit] for row in rows.itertuples()]
    assert np.allclose(told, rows.activation, rtol=1e-4, atol=1e-5)
    if tokens == "patch":
        assert set(rows.token) == {"patch"} and run.layers.set_index("layer").first_patch[f"{layer}:d"] == 0


def test_which_tokens_is_asked_where_it_is_not_said(photos, tmp_path):
    _, layer, width = NETWORKS["tokens"]
    with pytest.raises(UserError, match=r"16 patches and 1 other token. Say on which of them"):
        actmine.mine(Tokens(), str(photos), transform=transform, dictionary={layer: dictionaries(width)["topk"]},
                     run=tmp_path / "run", **QUICK)  # fmt: skip


@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_latents_may_be_pooled_over_an_image(pool, photos, tmp_path):
    make, layer, width = NETWORKS["maps"]
    made = dictionaries(width)["relu"]
    its = {f"{layer}:d": made}
    run = actmine.mine(make(), str(photos), layers=f"{layer}:*", transform=transform, dictionary=its, pool=pool,
                       topk=3, run=tmp_path / "run", **QUICK)  # fmt: skip
    x = vectors(make().eval(), "maps", inputs(photos))
    with torch.no_grad():
        z = made(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    wanted = (z.mean(1) if pool == "mean" else z.sum(1)).numpy()
    rows = run.exemplars(f"{layer}:d", 5)
    assert np.allclose(rows.activation, np.sort(wanted[:, 5])[::-1][: len(rows)], rtol=1e-4, atol=1e-5)
    assert rows.y.isna().all() and run.layers.pool.tolist() == [pool]


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_a_dictionary_explains_is_what_brute_force_finds_with_an_interval_over_images(kind, photos, tmp_path):
    make, layer, width = NETWORKS[kind]
    net, made = make().eval(), dictionaries(width)["relu"]
    words = {"tokens": "all"} if kind == "tokens" else {}
    run = actmine.mine(net, str(photos), layers=layer, transform=transform, run=tmp_path / "run", topk=2,
                       dictionary={f"{layer}:d": made}, **QUICK | words)  # fmt: skip
    x = vectors(net, kind, inputs(photos))
    with torch.no_grad():
        again = made.reconstructed(x.flatten(0, 1))[0].unflatten(0, x.shape[:2])
    error = (again - x).double().square().sum((1, 2)).numpy()
    spread = (x - x.mean((0, 1))).double().square().sum((1, 2)).numpy()
    row = run.layers.set_index("layer").loc[f"{layer}:d"]
    assert row.reconstructed_images == IMAGES
    assert row.explained_variance == pytest.approx(1 - error.sum() / spread.sum(), rel=1e-4)
    without = (error.sum() - error) / (spread.sum() - spread)  # the jackknife
    deviation = np.sqrt((IMAGES - 1) / IMAGES * np.square(without - without.mean()).sum())
    away = stats.t.ppf(0.975, IMAGES - 1) * deviation
    assert row.explained_variance - row.explained_variance_low == pytest.approx(away, rel=0.15)
    assert row.explained_variance_high - row.explained_variance == pytest.approx(away, rel=0.15)


def test_a_dictionary_of_other_vectors_is_refused_and_says_what_it_explains(photos, tmp_path):
    make, layer, width = NETWORKS["maps"]
    with pytest.raises(UserError, match=r"explains -?[\d,.]+% of the variance of .*trained on other vectors"):
        actmine.mine(make(), str(photos), layers=layer, transform=transform, run=tmp_path / "run",
                     dictionary={layer: dictionaries(width)["relu"]}, **QUICK | {"least_explained": 0.0})  # fmt: skip
    with pytest.raises(UserError, match=r"is of vectors of 12 numbers, and .* has 64 units"):
        actmine.mine(make(), str(photos), transform=transform, dictionary={layer: dictionaries(12)["relu"]},
                     run=tmp_path / "run", **QUICK)  # fmt: skip


WORDS = ["mine", "--model", "demo", "--weights", "random", "--layers", "block1.*", "--topk", "3", "--no-sheets",
         "--no-visualize", "--least-explained", "-1e9", "--batch-size", "8", "--workers", "1"]  # fmt: skip


@pytest.fixture(scope="module")
def sae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saes") / "sae"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_enc": (40, 90), "b_enc": (90,), "W_dec": (90, 40), "b_dec": (40,)}
    save_file({name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()},
              folder / "sae_weights.safetensors")  # fmt: skip
    said = {"architecture": "topk", "d_in": 40, "d_sae": 90, "k": 5, "metadata": {"sae_lens_version": "6.1.0"}}
    (folder / "cfg.json").write_text(json.dumps(said))
    return folder


def tables(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


def test_a_killed_run_with_a_dictionary_goes_on_to_the_same_bytes_and_grows_by_one(sae, photos, tmp_path):
    words = [*WORDS, "--dataset", str(photos), "--dictionary", f"block1.relu={sae}"]
    whole = start([*words, "--run", str(tmp_path / "whole")], tmp_path / "notes")
    assert whole.end() == 0, whole.said
    struck = start([*words, "--run", str(tmp_path / "struck")], tmp_path / "notes", 0.05)
    assert struck.wait_for("Keeping pictures")
    struck.process.kill()
    assert struck.end() == -signal.SIGKILL
    again = start([*words, "--run", str(tmp_path / "struck")], tmp_path / "notes")
    assert again.end() == 0, again.said
    assert tables(tmp_path / "struck") == tables(tmp_path / "whole")
    plain = [*WORDS, "--dataset", str(photos), "--run", str(tmp_path / "grown")]
    for further in ([], ["--dictionary", f"block1.relu={sae}"], []):
        command = start([*plain, *further], tmp_path / "notes")
        assert command.end() == 0, command.said
    for table in ("units", "exemplars"):
        left, right = (pd.read_parquet(tmp_path / run / table) for run in ("grown", "whole"))
        keys = ["layer", "unit", *(["rank"] if table == "exemplars" else [])]
        pd.testing.assert_frame_equal(*(each.sort_values(keys).reset_index(drop=True) for each in (left, right)))


def test_a_run_whose_dictionary_was_changed_says_so(sae, photos, tmp_path):
    moved = shutil.copytree(sae, tmp_path / "sae")
    words = [*WORDS, "--dataset", str(photos), "--dictionary", f"block1.relu={moved}", "--run", str(tmp_path / "run")]
    assert start(words, tmp_path / "notes").end() == 0
    run = open_run(tmp_path / "run", trust=True)
    assert run.record["asked"]["dictionaries"] == {"block1.relu:sae": str(moved)}
    drawn = actmine.visualize(actmine.open_run(tmp_path / "run"), layers="block1.relu:sae", units=[3], quiet=True)
    assert drawn.units("block1.relu:sae", 3).visualization_preset.tolist() == ["default"]
    said = json.loads((moved / "cfg.json").read_text())
    (moved / "cfg.json").write_text(json.dumps(said | {"k": 6}))
    with pytest.raises(UserError, match=r"another dictionary block1.relu:sae than"):
        actmine.visualize(actmine.open_run(tmp_path / "run"), layers="block1.relu:sae", units=[4], quiet=True)
    command = start(words, tmp_path / "notes")
    assert command.end() == 1 and "dictionaries" in command.said


def test_a_network_with_dictionaries_travels_to_another_process(photos):
    make, layer, width = NETWORKS["maps"]
    network = network_of(make(), transform)
    traced = network.traced()
    attach(traced, of_objects({f"{layer}:d": dictionaries(width)["topk"]}))
    subject = Subject(network, traced, traced.choose("*:d"))
    there = pickle.loads(pickle.dumps(subject))
    x = inputs(photos)[:3]
    with torch.inference_mode():
        one, other = (TappedNetwork(each.traced, each.layers)(x).maximum for each in (subject, there))
    assert one.shape == (3, LATENTS) and torch.equal(one, other)


CODE = """
import torch

class Coder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.randn(40, 30, generator=torch.Generator().manual_seed(0)))

    def encode(self, x):
        return (x @ self.matrix).relu()

def coder():
    return Coder()

def numbers():
    return torch.nn.Linear(2, 2)
"""


def test_a_dictionary_of_code_is_imported_for_those_who_chose_it_alone(photos, tmp_path, monkeypatch):
    (tmp_path / "code_of_mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    words = {"layers": "block1.relu", "run": tmp_path / "run", "topk": 2, **QUICK}
    run = actmine.mine("demo", str(photos), dictionary="block1.relu=code_of_mine:coder", **words)
    assert len(run.units("block1.relu:coder")) == 30 and run.layers.kind.iloc[-1].endswith("code dictionary")
    actmine.visualize(actmine.open_run(tmp_path / "run"), layers="block1.relu:coder", units=[1], quiet=True)
    theirs = shutil.copytree(tmp_path / "run", tmp_path / "theirs")
    with pytest.raises(UserError, match=r"is made by code, code_of_mine:coder"):
        actmine.visualize(actmine.open_run(theirs), layers="block1.relu:coder", units=[2], quiet=True)
    with pytest.raises(UserError, match=r"gives a Linear without encode"):
        actmine.mine(
            "demo", str(photos), dictionary="block1.relu=code_of_mine:numbers", **words | {"run": tmp_path / "b"}
        )


@pytest.mark.parametrize(("word", "told"), [
    ("block1.relu", "say LAYER=PATH"), ("block*=x.pt", "is a glob"), ("block9=x.pt", "no layer 'block9'"),
    ("block1.relu=x.pt", "there is no"),
])  # fmt: skip
def test_words_that_name_no_dictionary_are_told(word, told, photos, tmp_path):
    with pytest.raises(UserError, match=re.escape(told)):
        actmine.mine("demo", str(photos), dictionary=word, run=tmp_path / "run", **QUICK)
    with pytest.raises(UserError, match="POOL='most' is one of max, mean, sum and cls"):
        actmine.mine("demo", str(photos), dictionary=word, pool="most", run=tmp_path / "run", **QUICK)


def test_the_lines_of_the_guide_run(tmp_path, monkeypatch, capsys):
    guide = (Path(__file__).parents[1] / "docs" / "guides" / "directions.md").read_text()
    net = torchvision.models.resnet18(weights=None).eval()
    dataset = [(picture(70, 64, seed), seed % 2) for seed in range(6)]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"net": net, "dataset": dataset, "preprocess": transform}
    for block in re.findall(r"^```py\n(.*?)^```", guide, flags=re.M | re.S):
        exec(block.replace('run="runs/probes"', 'run="runs/probes", visualize=False, sheets=False, quiet=True'), names)
    printed = capsys.readouterr().out
    assert "layer4.1.add:probes" in printed and "activation" in printed


class Outlying(Tokens):
    """The same with a class token many times as long as its patches."""

    def __init__(self) -> None:
        super().__init__()
        self.vit.class_token.data = 30 * torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1))


def test_how_long_a_token_is_beside_the_others_is_said_and_outliers_may_be_left_out(photos, tmp_path):
    _, layer, width = NETWORKS["tokens"]
    made = dictionaries(width)["topk"]
    x = vectors(Outlying().eval(), "tokens", inputs(photos))
    norms = x.norm(dim=2)
    ratios = (norms / norms.median(1, keepdim=True).values).numpy()
    assert (ratios[:, 0] > 10).all() and (ratios[:, 1:] < 10).all()
    for most in (0, 10):
        run = actmine.mine(
            Outlying(), str(photos), layers=layer, transform=transform, dictionary={f"{layer}:d": made}, tokens="all",
            topk=3, ignore_norm=most, run=tmp_path / str(most), **QUICK,
        )  # fmt: skip
        with torch.no_grad():
            latents = made(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        for name, values in ((layer, x), (f"{layer}:d", latents)):
            image = (values[:, 1:] if most else values).amax(1).numpy()
            rows = run.exemplars(name)
            assert np.allclose(run.units(name).activation_max, image.max(0), rtol=1e-4, atol=1e-5)
            assert np.allclose(rows.activation, image[rows.image_id, rows.unit], rtol=1e-4, atol=1e-5)
            assert np.allclose(rows.token_norm_ratio, ratios[rows.image_id, rows.y], rtol=1e-3)
            assert (set(rows.token) == {"patch"}) == bool(most)
            assert run.layers.set_index("layer").outlier_tokens[name] == pytest.approx(1 / 17)


@pytest.mark.parametrize("further", [{"direction": "both"}, {"positions": "sample"}, {"ignore_norm": 0.5}])
def test_outliers_are_left_out_only_where_that_says_something(further, photos, tmp_path):
    with pytest.raises(UserError, match="IGNORE_NORM is a number above 1"):
        actmine.mine(Tokens(), str(photos), transform=transform, run=tmp_path, **QUICK | {"ignore_norm": 9.0} | further)
