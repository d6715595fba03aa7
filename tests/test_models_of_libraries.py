"""Networks of transformers, open_clip and torchvision's further kinds: small ones, against their own code and hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import actmine
from actmine.pipeline.network.models import check_name, load_network
from actmine.pipeline.preprocessing.images import network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from tests.making import encoded, picture, write_folder

transformers = pytest.importorskip("transformers", reason="needs the extra hf")
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WORDS = {"id2label": {0: "cat", 1: "dog", 2: "newt"}, "label2id": {"cat": 0, "dog": 1, "newt": 2}}


def vit() -> tuple[Any, Any]:
    config = transformers.ViTConfig(**SMALL, **WORDS, intermediate_size=48)
    size = {"height": 32, "width": 32}
    return transformers.ViTForImageClassification(config), transformers.ViTImageProcessor(size=size)


def clip() -> tuple[Any, Any]:
    text = {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "vocab_size": 99,
    }
    config = transformers.CLIPConfig(text_config=text, vision_config={**SMALL, "intermediate_size": 48})
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return transformers.CLIPModel(config), processor


def dinov2() -> tuple[Any, Any]:
    config = transformers.Dinov2WithRegistersConfig(**SMALL, mlp_ratio=2, num_register_tokens=3)
    processor = transformers.BitImageProcessor(size={"shortest_edge": 37}, crop_size={"height": 32, "width": 32})
    return transformers.Dinov2WithRegistersModel(config), processor


def convnext() -> tuple[Any, Any]:
    config = transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64, **WORDS)
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875)
    return transformers.ConvNextForImageClassification(config), processor


def swin() -> tuple[Any, Any]:
    config = transformers.SwinConfig(
        embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4, image_size=32, **WORDS
    )
    return transformers.SwinForImageClassification(config), transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}
    )


KINDS = (vit, clip, dinov2, convnext, swin)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each of them, as one that was downloaded."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(5)
    for kind in KINDS:
        for part in kind():
            part.save_pretrained(root / kind.__name__)
    return root


@pytest.mark.parametrize("kind", [kind.__name__ for kind in KINDS])
def test_what_the_network_sees_is_what_its_image_processor_makes(saved, kind):
    network = load_network(f"hf/{saved / kind}")
    assert network.preprocessing.followed and network.notices == () and network.weights == str(saved / kind)
    processor = transformers.AutoImageProcessor.from_pretrained(saved / kind)
    for size in ((61, 47), (40, 57), (90, 90)):
        image = picture(*size, seed=size[0])
        mine = Normalize(network.preprocessing, torch.device("cpu"))(
            torch.from_numpy(network_pixels(image, network.preprocessing)[None])
        )
        theirs = processor(images=image, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["vit", "clip", "dinov2"])
def test_maxima_of_its_layers_are_those_of_plain_hooks(saved, kind, tmp_path):
    photos = write_folder(tmp_path / "photos", {f"{n}.png": encoded(picture(50, 44, n), "PNG") for n in range(5)})
    run = actmine.mine(f"hf/{saved / kind}", str(photos), topk=3, run=tmp_path / "run", visualize=False, sheets=False,
                       quiet=True)  # fmt: skip
    network = load_network(f"hf/{saved / kind}")
    names = [name for name in run.layers.layer if "fc1" in name or name.endswith("projection") or "mlp" in name]
    kept: dict[str, torch.Tensor] = {}
    modules = dict(network.module.named_modules())
    for name in names[:3]:
        modules[name].register_forward_hook(lambda module, given, found, name=name: kept.update({name: found}))
    pixels = np.stack([network_pixels(Image.open(photos / f"{n}.png"), network.preprocessing) for n in range(5)])
    with torch.no_grad():
        network.module(Normalize(network.preprocessing, torch.device("cpu"))(torch.from_numpy(pixels)))
    checked = [name for name in names[:3] if name in kept]
    for name in checked:
        maps = kept[name].flatten(2).transpose(1, 2) if kept[name].ndim == 4 else kept[name]
        wanted = maps.amax((0, 1)) if maps.ndim == 3 else maps.amax(0)
        assert np.allclose(run.units(name).activation_max, wanted, atol=1e-5), name
    assert checked and run.record["model"] == f"hf/{saved / kind}"


def test_categories_weights_and_the_tower_of_images(saved):
    assert load_network(f"hf/{saved / 'vit'}").categories == ("cat", "dog", "newt")
    tower = load_network(f"hf/{saved / 'clip'}")
    assert type(tower.module).__name__ == "CLIPVisionModel" and tower.categories is None
    random = load_network(f"hf/{saved / 'vit'}", "random")
    again = load_network(f"hf/{saved / 'vit'}", "random")
    assert random.weights_hash == again.weights_hash != load_network(f"hf/{saved / 'vit'}").weights_hash
    file = load_network(f"hf/{saved / 'vit'}", str(saved / "vit" / "model.safetensors"))
    assert file.weights_hash == load_network(f"hf/{saved / 'vit'}").weights_hash


def test_what_is_not_there_is_one_sentence(monkeypatch, tmp_path):
    with pytest.raises(actmine.UserError, match="say hf/OWNER/NAME"):
        check_name("hf/nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(actmine.UserError, match=r"The folder .* cannot be loaded .*HF_TOKEN\)\.$") as refused:
        load_network(f"hf/{tmp_path / 'empty'}")
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize(
    ("name", "layer"),
    [("fcn_resnet50", "classifier.4"), ("lraspp_mobilenet_v3_large", "classifier.add"),
     ("fasterrcnn_mobilenet_v3_large_fpn", "backbone.body.16")],
)  # fmt: skip
def test_segmentation_and_backbones_of_detection_are_mined(name, layer):
    network = load_network(name, "random", PreprocessingOptions(resize="64", crop="64"))
    layers = {each.name: each for each in network.traced().choose("")}
    assert layer in layers and network.preprocessing.followed and network.preprocessing.size == (64, 64)
    assert "leaves each image its shape" in network.notices[0]


def test_open_clip_s_tower_sees_what_its_own_transform_makes(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="needs the extra open-clip")
    network = load_network("open_clip/RN50", "random")
    _, _, transform = open_clip.create_model_and_transforms("RN50", pretrained=None)
    image = picture(300, 260, 2)
    mine = Normalize(network.preprocessing, torch.device("cpu"))(
        torch.from_numpy(network_pixels(image, network.preprocessing)[None])
    )
    torch.testing.assert_close(mine[0], transform(image), atol=1e-6, rtol=0)
    assert network.preprocessing.followed and network.weights.startswith("random")
    with pytest.raises(actmine.UserError, match=r"says no weights: MODEL=open_clip/RN50,TAG with one of openai"):
        load_network("open_clip/RN50")
    with pytest.raises(actmine.UserError, match=r"no network 'RN5'\. Did you mean RN50"):
        check_name("open_clip/RN5")


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
        self.second = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.second(self.first(x).relu())
        return found


@pytest.mark.parametrize(
    "wrap",
    [nn.DataParallel, torch.compile, lambda net: torch.optim.swa_utils.AveragedModel(net), lambda net: net.half()],
)
def test_modules_in_their_wrappers_are_the_modules_inside(wrap):
    inner = Wrapped()
    held = wrap(inner)
    rows = actmine.layers(held, resize="16", crop="16")
    assert rows.layer.tolist() == ["relu", "second"] and rows.units.tolist() == [4, 4]
    assert next(inner.parameters()).dtype == next(held.parameters()).dtype and held.training


def test_programs_are_refused_by_name():
    with pytest.raises(actmine.UserError, match=r"model is a program of torch\.jit"):
        actmine.layers(torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)))
    with pytest.raises(actmine.UserError, match=r"model is .*, not a torch\.nn\.Module"):
        actmine.layers(lambda x: x)


@pytest.mark.parametrize(("kind", "others"), [("vit", 1), ("dinov2", 4)])
def test_exemplars_at_class_and_register_tokens_have_the_whole_image_and_say_so(saved, kind, others, tmp_path):
    photos = write_folder(tmp_path / "photos", {f"{n}.png": encoded(picture(50, 44, n), "PNG") for n in range(6)})
    run = actmine.mine(f"hf/{saved / kind}", str(photos), topk=6, run=tmp_path / "run", visualize=False, sheets=False,
                       quiet=True, layers="*mlp*fc1,*projection,*fc2")  # fmt: skip
    for name, tokens in zip(run.layers.layer, run.layers.height, strict=True):
        rows = run.exemplars(name)
        if tokens != 16 + others:
            assert rows.token.isna().all(), "maps"
            continue
        wanted = ["class" if y == 0 else "register" if y < others else "patch" for y in rows.y]
        assert rows.token.tolist() == wanted
        about = run.layer(name).about
        assert (about["first_patch"], about["patch_rows"], about["patch_columns"]) == (others, 4, 4)
        whole = rows[rows.token != "patch"]
        assert (
            whole[["left", "top", "right", "bottom"]].to_numpy() == [0, 0, 50, 44]
        ).all() and not whole.clipped.any()
    assert {"patch", "class"} <= {*pd.concat([run.exemplars(name) for name in run.layers.layer]).token.dropna()}
    layer = next(name for name in run.layers.layer if "class" in run.exemplars(name).token.tolist())
    row = run.exemplars(layer)[run.exemplars(layer).token == "class"].iloc[0]
    shown = run.sheet(layer, int(row.unit))
    assert shown.size[0] > 100 and run.crop(row).size == (50, 44)
