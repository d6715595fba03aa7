"""Networks of transformers, open_clip and torchvision's further kinds: small ones, against their own code and hooks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm.utils
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
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


def deit_with_teacher() -> tuple[Any, Any]:
    config = transformers.DeiTConfig(**SMALL, **WORDS, intermediate_size=48)
    processor = transformers.DeiTImageProcessor(size={"height": 36, "width": 36}, crop_size={"height": 32, "width": 32})
    return transformers.DeiTForImageClassificationWithTeacher(config), processor


def siglip_classifier() -> tuple[Any, Any]:
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.SiglipConfig(text_config=text, vision_config={**SMALL, "intermediate_size": 48}, **WORDS)
    return transformers.SiglipForImageClassification(config), transformers.SiglipImageProcessor(
        size={"height": 32, "width": 32}
    )


def depth() -> tuple[Any, Any]:
    config = transformers.DPTConfig(
        **SMALL, intermediate_size=48, backbone_out_indices=[0, 1, 1, 1], neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return transformers.DPTForDepthEstimation(config), processor


KINDS = (vit, clip, dinov2, convnext, swin, deit_with_teacher, siglip_classifier, depth)
SOUND = [kind.__name__ for kind in KINDS if kind is not depth]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each of them, as one that was downloaded."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(5)
    for kind in KINDS:
        for part in kind():
            part.save_pretrained(root / kind.__name__)
    return root


@pytest.mark.parametrize("kind", SOUND)
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
    with pytest.raises(actmine.UserError, match=r"The folder .* cannot be loaded \(.*\)\.$") as refused:
        load_network(f"hf/{tmp_path / 'empty'}")
    with pytest.raises(actmine.UserError, match=r"there is no folder \./nowhere\.$"):
        check_name("hf/./nowhere")
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("kind", ["deit_with_teacher", "siglip_classifier"])
def test_a_classifier_is_mined_with_its_head_as_the_library_runs_it(saved, kind):
    network = load_network(f"hf/{saved / kind}")
    itself = getattr(transformers, type(network.module).__name__).from_pretrained(saved / kind).eval()
    assert "ForImageClassification" in type(itself).__name__ and network.categories == ("cat", "dog", "newt")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        mine, theirs = network.module(images).logits, itself(images).logits
    assert torch.equal(mine, theirs) and mine.shape == (2, 3)
    assert "classifier" in str(network.traced().choose("")[-1].name)


def test_what_the_weights_lack_is_random_the_same_each_time_and_never_mined_unseen(saved, tmp_path):
    place = Path(shutil.copytree(saved / "vit", tmp_path / "headless"))
    tensors = load_file(place / "model.safetensors")
    save_file(
        {name: each for name, each in tensors.items() if name != "classifier.weight"}, place / "model.safetensors"
    )
    network = load_network(f"hf/{place}")
    assert (
        network.missing == {"classifier.weight"} and "has no classifier.weight: random (seed 0)." in network.notices[0]
    )
    assert network.weights_hash == load_network(f"hf/{place}").weights_hash
    photos = write_folder(tmp_path / "photos", {"0.png": encoded(picture(50, 44), "PNG")})
    with pytest.raises(actmine.UserError, match=r"lacks classifier\.weight, which the chosen layers need"):
        actmine.mine(f"hf/{place}", str(photos), run=tmp_path / "run", quiet=True)


def test_a_pooling_layer_that_was_never_trained_is_left_out(saved):
    network = load_network(f"hf/{saved / 'depth'}")
    names = [layer.name for layer in network.traced().unit_bearing()]
    assert type(network.module).__name__ == "DPTModel" and not network.missing and network.notices == ()
    assert names and not any("pooler" in name for name in names)


def test_neither_code_nor_pickles_of_a_repository_are_run(saved, tmp_path):
    was_run = tmp_path / "was run"
    pickled = Path(shutil.copytree(saved / "vit", tmp_path / "pickled"))
    tensors = load_file(pickled / "model.safetensors")
    (pickled / "model.safetensors").unlink()
    torch.save(tensors, pickled / "pytorch_model.bin")
    assert load_network(f"hf/{pickled}").weights_hash == load_network(f"hf/{saved / 'vit'}").weights_hash

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (was_run,)

    torch.save({**tensors, "more": Harmful()}, pickled / "pytorch_model.bin")
    with pytest.raises(actmine.UserError, match=r"holds a pickle with more than tensors, which is never loaded"):
        load_network(f"hf/{pickled}")

    coded = Path(shutil.copytree(saved / "vit", tmp_path / "coded"))
    config = json.loads((coded / "config.json").read_text())
    config |= {"model_type": "ours", "auto_map": {"AutoConfig": "ours.Config", "AutoModel": "ours.Network"}}
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "ours.py").write_text(f"import pathlib\npathlib.Path({str(was_run)!r}).touch()\n")
    with pytest.raises(actmine.UserError, match=r"brings code of its own, which is never run"):
        load_network(f"hf/{coded}")
    assert not was_run.exists()


def test_a_hub_that_does_not_answer_is_asked_once_and_what_was_downloaded_is_enough(saved, monkeypatch, tmp_path):
    asked: list[str] = []

    def refuse(url: str, **_: Any) -> None:
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(actmine.UserError, match=r"repository owner/vit of .* cannot be loaded .*HF_HOME.*HF_TOKEN"):
        load_network("hf/owner/vit")
    assert asked == ["https://huggingface.co/owner/vit/resolve/main/config.json"]
    commit = "0123456789" * 4
    (tmp_path / "models--owner--vit/refs").mkdir(parents=True)
    (tmp_path / "models--owner--vit/refs/main").write_text(commit)
    shutil.copytree(saved / "vit", tmp_path / f"models--owner--vit/snapshots/{commit}")
    found = load_network("hf/owner/vit")
    assert found.weights == f"owner/vit@{commit[:12]}"
    assert found.weights_hash == load_network(f"hf/{saved / 'vit'}").weights_hash


@pytest.mark.parametrize(
    ("name", "layer"),
    [("fcn_resnet50", "classifier.4"), ("lraspp_mobilenet_v3_large", "classifier.add"),
     ("fasterrcnn_mobilenet_v3_large_fpn", "backbone.body.16")],
)  # fmt: skip
def test_segmentation_and_backbones_of_detection_are_mined(name, layer):
    network = load_network(name, "random", PreprocessingOptions(resize="64", crop="64"))
    layers = {each.name: each for each in network.traced().choose("")}
    assert layer in layers and network.preprocessing.followed and network.preprocessing.size == (64, 64)
    shape = "Its own transform leaves each image its shape"
    assert not any(shape in said for said in network.notices) and shape in load_network(name, "random").notices[-1]


OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 99, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def open_clip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library with a small network, and weights of it that were trained with QuickGELU on another mean."""
    library = pytest.importorskip("open_clip", reason="needs the extra open-clip")
    (tmp_path / "small.json").write_text(json.dumps(OPEN_CLIP))
    monkeypatch.setattr(library.factory, "_MODEL_CONFIGS", dict(library.factory._MODEL_CONFIGS))
    monkeypatch.setattr(library.factory, "_MODEL_CONFIG_PATHS", [*library.factory._MODEL_CONFIG_PATHS])
    library.add_model_config(tmp_path / "small.json")
    torch.manual_seed(3)
    trained = library.create_model("small", force_quick_gelu=True)
    save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, tmp_path / "w.safetensors")
    about = {"file": str(tmp_path / "w.safetensors"), "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setitem(library.pretrained._PRETRAINED, "small", {"ours": about})
    library.trained = trained.visual.eval()
    return library


@pytest.mark.parametrize("weights", ["", "w.safetensors"])
def test_open_clip_s_tower_computes_as_it_was_trained_with_the_transform_of_its_weights(open_clip, weights, tmp_path):
    network = load_network("open_clip/small,ours", str(tmp_path / weights) if weights else "")
    assert network.preprocessing.mean == (0.5,) * 3 and network.preprocessing.followed and network.notices == ()
    image = picture(90, 71, 2)
    _, _, transform = open_clip.create_model_and_transforms("small", "ours", force_quick_gelu=True)
    pixels = torch.from_numpy(network_pixels(image, network.preprocessing)[None])
    mine = Normalize(network.preprocessing, torch.device("cpu"))(pixels)
    torch.testing.assert_close(mine[0], transform(image), atol=1e-6, rtol=0)
    with torch.no_grad():
        assert torch.equal(network.module(mine), open_clip.trained(mine))


def test_tokens_of_open_clip_s_tower_are_told_apart(open_clip, tmp_path):
    photos = write_folder(tmp_path / "photos", {f"{n}.png": encoded(picture(50, 44, n), "PNG") for n in range(6)})
    run = actmine.mine("open_clip/small,ours", str(photos), topk=6, run=tmp_path / "run", visualize=False,
                       sheets=False, quiet=True)  # fmt: skip
    tokens = run.layers[run.layers.height == 17]
    assert len(tokens) and (tokens.first_patch == 1).all() and (tokens.patch_rows == 4).all()
    for name in tokens.layer:
        rows = run.exemplars(name)
        assert rows.token.tolist() == ["patch" if y else "class" for y in rows.y]


def test_open_clip_says_what_it_has(open_clip):
    assert load_network("open_clip/small", "random").weights.startswith("random")
    with pytest.raises(actmine.UserError, match=r"says no weights: MODEL=open_clip/small,TAG with one of ours"):
        load_network("open_clip/small")
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
    [
        nn.DataParallel,
        torch.compile,
        lambda net: torch.optim.swa_utils.AveragedModel(net),
        lambda net: net.half(),
        timm.utils.ModelEmaV2,
        timm.utils.ModelEmaV3,
        lambda net: nn.DataParallel(timm.utils.ModelEmaV2(net)),
    ],
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
    exported = torch.export.export(nn.Conv2d(3, 4, 3), (torch.zeros(1, 3, 8, 8),))
    for program in (exported, exported.module()):
        with pytest.raises(actmine.UserError, match=r"model is a program of torch\.jit or torch\.export"):
            actmine.layers(program)
    with pytest.raises(actmine.UserError, match=r"0 is a program of torch\.jit or torch\.export"):
        actmine.layers(nn.Sequential(exported.module()))
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
