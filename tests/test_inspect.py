"""One picture through a network: maps against hooks, units by a sort, class attention against its formula."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision.models import swin_transformer, vision_transformer
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.inspect.attention import class_attention
from actmine.pipeline.inspect.head import class_scores, kind_in_words
from actmine.pipeline.inspect.maps import find_class, show, standing_out
from actmine.pipeline.inspect.pictures import lit
from actmine.pipeline.inspect.places import lie_as_the_picture
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.run import open_run
from tests.making import picture


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shown") / "a <b> & ж.png"
    picture(90, 70, 3).save(path)
    return path


@pytest.fixture(scope="module")
def demo() -> tuple[Network, Traced]:
    network = load_network("demo")
    return network, Traced(network.module, network.input_shape)


def test_the_maps_are_those_of_hooks(image, demo):
    network, traced = demo
    layers = traced.choose("stem.relu,block5.relu,classifier")
    shown = show(image, network, traced, layers)
    plain, kept = copy.deepcopy(network.module), {}
    for name in ("stem.relu", "block5.relu", "classifier"):
        plain.get_submodule(name).register_forward_hook(lambda *call, name=name: kept.update({name: call[2].clone()}))
    scores = plain(shown.input)
    for name, values in shown.maps.items():
        wanted = kept[name][0].detach().numpy()
        assert np.allclose(values, wanted if wanted.ndim == 3 else wanted[:, None, None], atol=1e-5)
    assert np.allclose(shown.scores, scores[0].detach(), atol=1e-5)
    assert shown.seen.size == tuple(reversed(network.preprocessing.size))


def test_the_units_that_stand_out_are_those_furthest_above_their_mean(image, demo, tmp_path):
    network, traced = demo
    (layer,) = traced.choose("block5.relu")
    other = tmp_path / "other.png"
    picture(90, 70, 8).save(other)
    shown = [show(path, network, traced, [layer]) for path in (image, other)]
    random = np.random.default_rng(0)
    mean, deviation = random.random(layer.units), random.random(layer.units)
    deviation[3] = 0
    found = standing_out(shown, layer.name, 10, np.stack([mean, deviation]))
    most = np.stack([each.maps[layer.name].max((1, 2)) for each in shown])
    wanted = [
        (max((row[unit] - mean[unit]) / deviation[unit] for row in most), unit)
        for unit in range(layer.units)
        if unit != 3 and most[:, unit].max() > 0
    ]
    assert [each.unit for each in found] == [unit for _, unit in sorted(wanted, key=lambda e: (-e[0], e[1]))[:10]]
    assert found[0].heights is not None and max(found[0].heights) == pytest.approx(max(wanted)[0])
    plain = standing_out(shown, layer.name, layer.units)
    assert [max(each.activations) for each in plain] == sorted((max(each.activations) for each in plain), reverse=True)


class Sums(nn.Module):
    """Two channels, each summed over its map, weighed for two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1, bias=False)
        self.conv.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0, 0.0], [-2.0, 1.0]])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.conv(image)).sum((2, 3)))


def test_class_attention_is_where_a_known_network_looks():
    image = torch.tensor([[3.0, -1.0], [0.0, -2.0]])[None, None]
    traced = Traced(Sums(), (1, 2, 2))
    bright, layer = class_attention(traced, image, 0)
    assert layer == "relu" and bright.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    dark, _ = class_attention(traced, image, 1)
    assert dark.tolist() == [[0.0, 0.5], [0.0, 1.0]]


def test_class_attention_is_the_formula_of_grad_cam(image, demo):
    network, traced = demo
    shown = show(image, network, traced, traced.choose("block5.relu"))
    target = int(shown.scores.argmax())
    found, layer = class_attention(traced, shown.input, target)
    plain, kept = copy.deepcopy(network.module), {}
    for part in plain.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    plain.get_submodule(layer).register_forward_hook(lambda *call: kept.update(map=call[2]))
    score = plain(shown.input)[0, target]
    (slope,) = torch.autograd.grad(score, kept["map"])
    cam = (slope.mean((2, 3), keepdim=True) * kept["map"]).sum(1, keepdim=True).relu()
    assert cam.max() > 0
    wanted = functional.interpolate(cam, shown.input.shape[2:], mode="bilinear")[0, 0]
    assert np.allclose(found, (wanted / wanted.max()).detach(), atol=1e-5)


def test_a_network_without_maps_says_so():
    with pytest.raises(UserError, match="--no-attention"):
        class_attention(Traced(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2)), torch.zeros(1, 3, 2, 2), 0)


class Registers(nn.Module):
    """Patches of an oblong picture as a sequence `[T, B, C]`, a class token before them and two registers behind."""

    def __init__(self, looks: bool) -> None:
        super().__init__()
        self.looks = looks
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.tokens = nn.Parameter(torch.randn(3, 1, 8))
        self.norm, self.attention, self.head = nn.LayerNorm(8), nn.MultiheadAttention(8, 2), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.looks and x.shape[0] < 1:
            return {}
        patches = self.patch(x).flatten(2).permute(2, 0, 1)
        more = self.tokens.expand(-1, patches.shape[1], -1)
        tokens = self.norm(torch.cat([more[:1], patches, more[1:]]))
        mixed = tokens + self.attention(tokens, tokens, tokens)[0]
        return {"logits": self.head(mixed[0]), "hidden": mixed}


def small_vit() -> nn.Module:
    return vision_transformer.VisionTransformer(32, 8, 2, 4, 16, 32, num_classes=4)


def small_swin() -> nn.Module:
    return swin_transformer.SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=4)


@pytest.mark.parametrize(
    ("build", "size", "layer", "at"),
    [
        (small_vit, (32, 32), "encoder.layers.encoder_layer_1.ln_1", lambda t: t[0, 1:].reshape(4, 4, -1)),
        (small_swin, (32, 32), "norm", lambda t: t[0]),
        (lambda: Registers(False), (8, 20), "norm", lambda t: t[1:11, 0].reshape(2, 5, -1)),
        (lambda: Registers(True), (8, 20), "norm", lambda t: t[1:11, 0].reshape(2, 5, -1)),
    ],
    ids=["vit", "swin", "registers", "registers, by modules"],
)
def test_class_attention_of_tokens_lies_on_their_grid(build, size, layer, at):
    torch.manual_seed(0)
    module = build().eval()
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm | nn.Linear):
            norm.weight.data.uniform_(-0.5, 1.0)
    image, kept = torch.randn(1, 3, *size), {}
    module.get_submodule(layer).register_forward_hook(lambda *call: kept.update(map=call[2]))
    output = module(image)
    (slope,) = torch.autograd.grad((output["logits"] if isinstance(output, dict) else output)[0, 2], kept["map"])
    cam = (at(slope).mean((0, 1)) * at(kept["map"])).sum(2).relu()
    assert cam.max() > 0
    wanted = functional.interpolate(cam[None, None], size, mode="bilinear")[0, 0]
    found, name = class_attention(Traced(build_again(module), (3, *size)), image, 2)
    assert name in (layer, "permute") and np.allclose(found, (wanted / wanted.max()).detach(), atol=1e-4)


class Windows(nn.Module):
    """A convolution, and a linear map of windows by places, which are no picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()
        self.linear, self.gelu, self.head = nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.relu(self.conv(x)).unflatten(2, (2, 4)).unflatten(4, (2, 4))
        windows = parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)  # [B, 4, 16, C]
        return self.head(self.gelu(self.linear(windows)).mean((1, 2)))


def test_class_attention_takes_no_windows_for_a_picture():
    torch.manual_seed(0)
    traced = Traced(Windows().eval(), (3, 8, 8))
    by_name = {layer.name: layer for layer in traced.known()}
    assert (by_name["gelu"].layout, by_name["gelu"].height, by_name["gelu"].width) == ("maps_last", 4, 16)
    fit = lie_as_the_picture(traced, [by_name["gelu"], by_name["relu"]])
    assert fit == {by_name["relu"].node}
    assert class_attention(traced, torch.randn(1, 3, 8, 8), 1)[1] in ("conv", "relu")


def build_again(module: nn.Module) -> nn.Module:
    """The same network without hooks."""
    twin = copy.deepcopy(module)
    for part in twin.modules():
        part._forward_hooks.clear()
    return twin


def test_scores_are_found_in_whatever_a_network_gives_or_it_is_said_what_that_is():
    scores, map_ = torch.zeros(1, 5), torch.zeros(1, 5, 2, 2)
    for output in (scores, {"logits": scores, "hidden": map_}, (scores, map_), SimpleNamespace(logits=scores)):
        assert class_scores(output) is scores
    for output in (map_, {"pooled": scores}, (scores, scores), [], None):
        assert class_scores(output) is None
    assert (
        kind_in_words({"out": map_, "aux": (scores,)})
        == "a dict of out (a tensor [1, 5, 2, 2]), aux (a tuple of a tensor [1, 5])"
    )


def test_a_class_is_found_by_name_and_number():
    scores = np.array([0.1, 3.0, 0.2])
    assert [find_class(word, scores, ["cat", "Dog", "hen"]) for word in ("", "2", "dog")] == [1, 2, 1]
    with pytest.raises(UserError, match=r"no class 'dogs'\. Did you mean Dog"):
        find_class("dogs", scores, ["cat", "Dog", "hen"])


def test_a_picture_has_its_colours_where_a_map_is_high_and_is_pale_elsewhere():
    seen = Image.new("RGB", (40, 40), (200, 100, 50))
    values = np.array([[4.0, 0.0], [-3.0, 0.0]])
    shown = np.asarray(lit(seen, values, 4.0, 40)).astype(int)
    (grey,) = set(np.asarray(seen.convert("L")).flat)
    pale = round(0.28 * float(grey) + 0.72 * 255)
    assert shown[0, 0].tolist() == [200, 100, 50] and shown[-1, -1].tolist() == [pale] * 3
    assert set(np.asarray(lit(seen, values * 0, 0.0, 40)).flat) == {pale}


def inspected(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(application(["inspect"]), ["inspect", *words, "--quiet"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def test_the_page_shows_every_layer_with_pictures_of_the_run(image, demo_run, tmp_path):
    other = tmp_path / "other.png"
    picture(90, 70, 8).save(other)
    words = ["--image", str(image), "--other", str(other), "--run", str(demo_run), "--out", str(tmp_path / "out")]
    assert inspected(*words, "--layers", "stem.relu,block5.*", "--class", "wheel") == (0, "")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "a &lt;b&gt; &amp; ж.png" in page and "<b>" not in page and "wheel" in page
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["00-stem.relu.png", "01-block5.relu.png", "attention.png"]
    assert all(f'src="{name}"' in page for name in names)
    assert all(Image.open(tmp_path / "out" / name).width == 1400 for name in names)
    assert len(open_run(demo_run).layers) > 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--image", "missing.png", "--model", "demo"],
            "IMAGE=missing.png cannot be shown to the network: No such",
        ),
        (["--image", __file__, "--model", "demo"], "cannot be shown to the network: cannot identify image file"),
        (["--image", "missing.png"], "MODEL is empty"),
        (["--image", "missing.png", "--model", "demo", "--layers", "nope"], "There is no layer 'nope'"),
    ],
)
def test_what_cannot_be_shown_is_said(words, says):
    code, said = inspected(*words)
    assert code == 1 and says in said.replace("\n", " ")


def test_without_a_head_there_is_no_class_and_all_else_is_shown(image, tmp_path):
    whole = load_network("demo").module.state_dict()
    body = {name: value for name, value in whole.items() if "classifier" not in name}
    save_file(body, tmp_path / "headless.safetensors")
    words = ["--image", str(image), "--model", "demo", "--weights", str(tmp_path / "headless.safetensors")]
    words += ["--layers", "block5.relu", "--out", str(tmp_path / "out")]
    assert inspected(*words) == (0, "")
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == ["00-block5.relu.png"]
    code, said = inspected(*words, "--class", "wheel")
    assert code == 1 and "leave --class out" in said.replace("\n", " ")
