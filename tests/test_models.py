"""Networks by name: torchvision's and timm's, with weights by name, from files and from elsewhere; what is refused."""

from __future__ import annotations

import json
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.models import Network, check_name, load_network
from actmine.pipeline.network.weights import tensors_only, weights_hash
from actmine.pipeline.preprocessing.images import network_pixels
from actmine.pipeline.preprocessing.normalize import Normalize
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from actmine.pipeline.preprocessing.transforms import follow
from tests.making import encoded, picture, write_folder

SMALL = "squeezenet1_1"


def refused(name: str, weights: str = "", overrides: PreprocessingOptions = PreprocessingOptions()) -> str:
    with pytest.raises(UserError) as caught:
        load_network(name, weights, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No server answers, and nothing was downloaded before."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)


# names


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet52", "Did you mean resnet"),
        ("squeezenet", "Did you mean squeezenet1_1"),
        ("", "open_clip/NAME,TAG, or package.module:factory"),
        ("timm", "MODEL is demo"),
        ("timm/resnet10", "timm has no network 'resnet10'. Did you mean resnet10t"),
        ("timm/", "timm has no network ''"),
        ("timm/hf-hub:someone/thing", "timm has no network 'hf-hub:someone/thing'"),
        ("timm/resnet10t.c3_in2k", "timm's resnet10t has no weights 'c3_in2k'. Did you mean c3_in1k? It has c3_in1k."),
    ],
)
def test_unknown_names_get_near_matches_before_anything_is_built(name, sentence):
    with pytest.raises(UserError) as caught:
        check_name(name)
    assert sentence in str(caught.value)
    assert refused(name) == str(caught.value)


def test_timm_is_only_asked_for_where_the_name_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    check_name("resnet18")
    with pytest.raises(UserError, match=r"MODEL=timm/resnet10t needs timm: .*-m pip install 'actmine\[timm\]'\."):
        check_name("timm/resnet10t")


# torchvision's weights


def test_random_weights_are_the_same_each_time():
    one, two = (load_network(SMALL, "random") for _ in range(2))
    assert one.weights_hash == two.weights_hash == weights_hash(two.module)
    assert one.weights == "random (seed 0)" and len(one.categories or ()) == 1000 and not one.module.training


def test_weights_have_names_and_the_name_chooses_the_transform_too(monkeypatch):
    monkeypatch.setattr(
        torchvision._internally_replaced_utils, "load_state_dict_from_url", lambda *a, **k: pytest.fail("downloaded")
    )
    asked: list[object] = []

    def made(name: str, weights: object = None) -> torch.nn.Module:
        asked.append(weights)
        return torchvision.models.resnet50(weights=None)

    monkeypatch.setattr(torchvision.models, "get_model", made)
    first, second = (load_network("resnet50", word) for word in ("IMAGENET1K_V1", "ResNet50_Weights.IMAGENET1K_V2"))
    choice = torchvision.models.ResNet50_Weights
    assert asked == [choice.IMAGENET1K_V1, choice.IMAGENET1K_V2]
    assert first.weights == "ResNet50_Weights.IMAGENET1K_V1"
    for network, weights in ((first, choice.IMAGENET1K_V1), (second, choice.IMAGENET1K_V2)):
        assert network.preprocessing == follow(weights.transforms())
    assert first.preprocessing != second.preprocessing


def test_words_that_are_no_weights_list_those_that_are():
    sentence = refused("resnet50", "IMAGENET1K_V3")
    assert "Did you mean IMAGENET1K_V" in sentence and "random, IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT" in sentence
    assert "resnet50 has no weights 'ResNet18_Weights.IMAGENET1K_V1'" in refused(
        "resnet50", "ResNet18_Weights.IMAGENET1K_V1"
    )
    assert refused(SMALL, "gone.pt").startswith("There is no weights file 'gone.pt'.")


@pytest.mark.usefixtures("unreachable")
def test_weights_that_cannot_be_downloaded_say_which_file_to_fetch():
    sentence = refused(SMALL)
    assert "could not be downloaded from https://download.pytorch.org/models/squeezenet1_1-" in sentence
    assert "WEIGHTS=path/to/it" in sentence


def test_a_file_of_features_leaves_the_head_random_and_a_file_of_another_network_is_refused(tmp_path):
    state = load_network(SMALL, "random").module.state_dict()
    save_file(
        {key: value + 1 for key, value in state.items() if key.startswith("features")}, tmp_path / "f.safetensors"
    )
    network = load_network(SMALL, str(tmp_path / "f.safetensors"))
    assert network.missing == {"classifier.1.weight", "classifier.1.bias"} and network.weights == "f.safetensors"
    assert torch.equal(network.module.state_dict()["features.0.bias"], state["features.0.bias"] + 1)
    assert "Is it for another MODEL?" in refused("alexnet", str(tmp_path / "f.safetensors"))
    own = torchvision.models.squeezenet1_1(weights=None, num_classes=10)
    torch.save(own.state_dict(), tmp_path / "ten.pth")
    network = load_network(SMALL, str(tmp_path / "ten.pth"))
    assert network.missing == {"classifier.1.weight", "classifier.1.bias"}
    assert "classifier.1.weight is [10, 512, 1, 1], wanted [1000, 512, 1, 1]" in network.notices[0]


def test_the_old_names_in_torchvisions_own_files_of_densenet_are_known(tmp_path):
    module = load_network("densenet121", "random").module
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value + 1 if value.ndim else value
           for key, value in module.state_dict().items()}  # fmt: skip
    torch.save(old, tmp_path / "w.pth")
    network = load_network("densenet121", str(tmp_path / "w.pth"))
    assert not network.missing and network.weights_hash != weights_hash(module)


@pytest.mark.parametrize(("auxiliary", "kept"), [(True, True), (False, False)])
def test_googlenet_is_built_with_the_heads_that_its_file_has(auxiliary, kept, tmp_path):
    options = {"aux_logits": auxiliary, "init_weights": False}
    torch.save(torchvision.models.googlenet(weights=None, **options).state_dict(), tmp_path / "w.pth")
    network = load_network("googlenet", str(tmp_path / "w.pth"))
    assert not network.missing and network.module.transform_input
    assert any(key.startswith("aux") for key in network.module.state_dict()) == kept


def test_inside_tensors_only_every_load_is_of_tensors_alone(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with tensors_only(), pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "whole.pth", weights_only=False)
    assert isinstance(torch.load(tmp_path / "whole.pth", weights_only=False), torch.nn.Linear)


# flags


def test_flags_change_the_input_and_a_network_that_cannot_take_it_says_so():
    network = load_network(SMALL, "random", PreprocessingOptions(resize="40", crop="32x64", mean="0.5,0.5,0.5"))
    assert network.input_shape == (3, 32, 64) and network.preprocessing.mean == (0.5, 0.5, 0.5)
    assert "does not run on images of 224 x 224 pixels and 1 channel: " in (
        said := refused(SMALL, "random", PreprocessingOptions(channels=1))
    )
    assert "Its first convolution takes 3 channels. --resize, --crop and --channels say what it gets." in said
    assert "does not run on images of 96 x 96" in refused("vit_b_32", "random", PreprocessingOptions(crop="96"))
    assert load_network("demo", "", PreprocessingOptions(crop="48")).input_shape == (3, 48, 48)


# timm


TIMM = ["resnet10t", "test_vit.r160_in1k", "test_efficientnet", "test_convnext", "test_byobnet"]


@pytest.mark.parametrize("name", TIMM)
def test_timm_networks_see_the_pixels_that_timm_gives_them(name):
    import timm

    network = load_network(f"timm/{name}", "random")
    model = timm.create_model(name, pretrained=False)
    config = timm.data.resolve_model_data_config(model)
    wanted = timm.data.create_transform(**config, is_training=False)
    how = network.preprocessing
    assert network.input_shape == config["input_size"] and how.followed and network.notices == ()
    for size in ((300, 200), (97, 401), (64, 64)):
        image = picture(*size, seed=size[0])
        pixels = torch.from_numpy(network_pixels(image, how))[None]
        assert torch.equal(Normalize(how, torch.device("cpu"))(pixels)[0], wanted(image))
    assert network.module.state_dict().keys() == model.state_dict().keys()
    assert network.categories is not None and network.categories[:1] == ("tench, Tinca tinca",)


def test_timm_builds_for_the_size_and_the_channels_that_are_wished_for():
    network = load_network("timm/test_vit", "random", PreprocessingOptions(resize="100", crop="96", channels=1))
    assert network.input_shape == (1, 96, 96)
    assert "built for 96 x 96 pixels and 1 channel" in network.notices[0]
    assert load_network("timm/resnet10t", "random", PreprocessingOptions(crop="64x96")).notices == ()


def test_timm_weights_come_from_files_by_name_and_by_timms_own_translation(tmp_path):
    state = {key: value + 1 if value.is_floating_point() else value
             for key, value in load_network("timm/test_convnext", "random").module.state_dict().items()}  # fmt: skip
    torch.save({"state_dict": state}, tmp_path / "w.pth.tar")
    network = load_network("timm/test_convnext", str(tmp_path / "w.pth.tar"))
    assert not network.missing and network.weights == "w.pth.tar"
    assert all(torch.equal(value, state[key]) for key, value in network.module.state_dict().items())
    half = {key: value.bfloat16() for key, value in state.items() if not key.startswith("head")}
    save_file({f"model.{key}": value for key, value in half.items()}, tmp_path / "w.safetensors")
    network = load_network("timm/test_convnext", str(tmp_path / "w.safetensors"))
    assert network.missing and all(key.startswith("head") for key in network.missing)
    small = load_network("timm/test_vit", "random", PreprocessingOptions(crop="96", resize="96")).module.state_dict()
    torch.save(small, tmp_path / "vit.pth")  # its positions are of another image size, which timm resamples
    assert not load_network("timm/test_vit", str(tmp_path / "vit.pth")).missing


def test_timm_words_that_are_no_weights_are_refused():
    assert refused("timm/resnet10t", "IMAGENET1K_V1") == (
        "timm/resnet10t has no weights 'IMAGENET1K_V1'. WEIGHTS is empty, random, c3_in1k, a .safetensors/.pth file."
    )
    assert "name two sets of weights" in refused("timm/resnet50.a2_in1k", "a1_in1k")
    assert refused("timm/resnet10t", "gone.pth").startswith("There is no weights file 'gone.pth'.")


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    ("name", "weights", "place"),
    [
        ("timm/resnet10t", "", "timm/resnet10t.c3_in1k on the Hugging Face hub"),
        ("timm/resnet50", "a1_in1k", "timm/resnet50.a1_in1k on the Hugging Face hub"),
    ],
)
def test_timm_weights_that_cannot_be_fetched_name_the_file_at_once(name, weights, place):
    sentence = refused(name, weights)
    assert place in sentence and "Name or service not known" in sentence
    assert "Download model.safetensors elsewhere and say WEIGHTS=path/to/it" in sentence


def test_timms_trained_weights_are_loaded_by_timm_from_the_file_that_was_fetched(tmp_path, monkeypatch):
    state = {key: value + 1 if value.is_floating_point() else value
             for key, value in load_network("timm/resnet10t", "random").module.state_dict().items()}  # fmt: skip
    save_file(state, tmp_path / "model.safetensors")
    asked: list[dict[str, object]] = []

    def kept(**where: object) -> str:
        asked.append(where)
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", kept)
    network: Network = load_network("timm/resnet10t")
    assert asked == [{"repo_id": "timm/resnet10t.c3_in1k", "filename": "model.safetensors", "revision": None}]
    assert network.weights == "resnet10t.c3_in1k"
    assert all(torch.equal(value, state[key]) for key, value in network.module.state_dict().items())


def test_an_architecture_without_trained_weights_says_so():
    import timm

    names = set(timm.list_models("resnet*")) - {each.partition(".")[0] for each in timm.list_models(pretrained=True)}
    name = min(names)
    assert refused(f"timm/{name}") == f"timm has no trained weights of {name}. WEIGHTS is random or a file."


def test_a_timm_network_is_mined_and_its_folder_has_a_plain_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "in", {f"{n}.png": encoded(picture(60, 50, n), "PNG") for n in range(5)})
    words = "--dataset=in --model=timm/test_vit.r160_in1k --weights=random --resize=36 --crop=32 --layers=blocks.0.*"
    quickly = "--device=cpu --no-visualize --no-sheets --focus=0 --quiet"
    result = CliRunner().invoke(application(["mine"]), ["mine", *words.split(), *quickly.split()])
    assert result.exit_code == 0, (result.output, result.exception)
    record = json.loads((tmp_path / "runs/in-timm_test_vit.r160_in1k/run.json").read_text())
    assert record["model"] == "timm/test_vit.r160_in1k" and record["preprocessing"]["size"] == [32, 32]
    assert record["versions"]["timm"] and record["counts"]["seen"] == 5
