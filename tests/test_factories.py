"""Networks of one's own: found, called, checked; with their transform or the flags; mined like any other."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import transforms
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.ascent.canvas import Normalized
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, check_name, load_network
from actmine.pipeline.network.subject import Subject
from actmine.pipeline.network.weights import weights_hash
from actmine.pipeline.preprocessing.images import Preprocessing, network_pixels
from actmine.pipeline.preprocessing.options import PreprocessingOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.run import picture as shown
from tests.making import encoded, picture, write_folder

ROOT = Path(__file__).parents[1]
NETWORKS = """
import torch
from torch import nn
from torchvision import transforms

def body(channels, seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), nn.ReLU())

def colours():
    return body(3)

def unseeded():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU())

def digits():
    steps = [transforms.Grayscale(), transforms.Resize(28), transforms.CenterCrop(28), transforms.ToTensor()]
    return body(1), transforms.Compose([*steps, transforms.Normalize((0.1307,), (0.3081,))])

def wide():
    return body(3), transforms.Compose([transforms.Resize((24, 40)), transforms.ToTensor()])

def upside_down(image):
    return transforms.functional.to_tensor(image.resize((16, 16)).rotate(180))

def strange():
    return body(3), upside_down

class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 * 30 * 30, 2)
    def forward(self, images):
        return self.head(self.conv(images).flatten(1))

class Holder:
    @staticmethod
    def inside():
        return body(3)

ready = body(3)

def company():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), norm)

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3))

def scripted():
    return torch.jit.script(body(3))

def partly_traced():
    return nn.Sequential(body(3), torch.jit.trace(nn.ReLU(), torch.zeros(1)))

def exported():
    return torch.export.export(body(3), (torch.zeros(1, 3, 16, 16),))

def exported_module():
    return exported().module()

def blue_first(image):
    return (transforms.functional.to_tensor(image.resize((16, 16))).flip(0) - 0.4) / 0.2

def bgr():
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False))
    network[0].weight.data = torch.eye(3)[:, :, None, None] * 2 - 1.0
    return network, blue_first

def grey_first(image):
    return transforms.functional.to_tensor(image.resize((16, 16)).convert("L").convert("RGB"))

def grey():
    return body(3), grey_first

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
    def forward(self, images):
        if images.mean() > 1e9:
            return images
        return nn.functional.relu(self.conv(images))

def functional():
    return Functional()

def wrapped():
    return nn.DataParallel(body(3).half().train())

def fails():
    return helper(7)

def helper(number):
    raise ValueError(f"no such thing as {number}.\\nsecond line")

def leaves():
    raise SystemExit("usage: train.py DATA")

def wants(classes):
    return body(3)

def wrong():
    return {"network": body(3)}

def wrong_pair():
    return body(3), 256

def nothing():
    pass

number = 7
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a package of networks in it; nothing of it stays imported."""
    files = {
        "own/__init__.py": b"", "own/networks.py": NETWORKS.encode(), "own/broken.py": b"import torch\n\nx = 1 / 0\n",
        "own/misspelt.py": b"def factory(:\n", "own/needing.py": b"import surely_not_installed\n",
    }  # fmt: skip
    monkeypatch.chdir(write_folder(tmp_path, files))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "own"]:
        del sys.modules[name]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Image.Image]:
    """Twelve pictures of many sizes, by key; they lie in the folder `pictures`."""
    sizes = [(40 + 7 * n, 90 - 5 * n) for n in range(12)]
    found = {f"{n:02d}": picture(width, height, n) for n, (width, height) in enumerate(sizes)}
    write_folder(tmp_path / "pictures", {f"{key}.png": encoded(image, "PNG") for key, image in found.items()})
    return found


def refused(spec: str, weights: str = "", overrides: PreprocessingOptions = PreprocessingOptions()) -> str:
    with pytest.raises(UserError) as caught:
        load_network(spec, weights, overrides)
    return str(caught.value)


# what a factory may be and give


def test_a_function_a_class_a_dotted_name_and_a_network_itself_are_all_fine():
    hashes = {
        load_network(f"own.networks:{name}").weights_hash for name in ("colours", "Holder.inside", "ready", "wrapped")
    }
    assert len(hashes) == 2  # halves are others
    assert load_network("own.networks:Whole", "", PreprocessingOptions(crop="32")).weights == "as the factory made them"


def test_what_training_leaves_behind_is_taken_off():
    module = load_network("own.networks:wrapped").module
    assert isinstance(module, torch.nn.Sequential) and not module.training
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_a_factory_without_a_seed_makes_the_same_network_each_time_and_leaves_the_seed_of_others_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    one, two = (load_network("own.networks:unseeded") for _ in range(2))
    assert torch.equal(torch.rand(3), wanted)
    assert one.weights_hash == two.weights_hash
    again = load_network("own.networks:unseeded", "random")
    assert again.weights_hash == one.weights_hash and again.weights == "as the factory made them (seed 0)"
    assert "what it loads itself stays, with WEIGHTS=random too" in again.notices[-1]


def test_without_a_transform_it_is_the_usual_one_and_that_is_said():
    network = load_network("own.networks:colours")
    assert network.preprocessing == Preprocessing.usual(256, (224, 224))
    (notice,) = network.notices
    assert "gives no transform" in notice and "224 x 224" in notice and "(network, transform)" in notice
    assert load_network("own.networks:colours", "", PreprocessingOptions(resize="none", crop="32")).notices == ()


def test_a_transform_that_cannot_be_followed_is_used_and_that_is_said():
    network = load_network("own.networks:strange")
    assert network.input_shape == (3, 16, 16) and not network.preprocessing.followed
    assert "boxes are in pixels of the network's input" in network.notices[-1]


def test_channels_that_are_wished_for_reach_the_transform():
    assert load_network("own.networks:digits").input_shape == (1, 28, 28)
    assert load_network("own.networks:digits", "", PreprocessingOptions(channels=1)).input_shape == (1, 28, 28)
    assert "first convolution takes 1 channel." in refused("own.networks:digits", "", PreprocessingOptions(channels=3))


def test_weights_come_from_a_file_that_fits(own):
    state = load_network("own.networks:colours").module.state_dict()
    torch.save({"model": {f"module.{key}": value + 1 for key, value in state.items()}}, own / "w.pth")
    network = load_network("own.networks:colours", str(own / "w.pth"))
    assert network.weights == "w.pth"
    assert torch.equal(network.module.state_dict()["0.bias"], state["0.bias"] + 1)


# what it may not


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("own.network:colours", "there is no module 'own.network'"),
        ("nowhere.networks:colours", r"there is no module 'nowhere'.*It was looked for in .*PYTHONPATH"),
        ("own.networks:colors", r"own\.networks has no 'colors'\. Did you mean colours"),
        ("own.networks:Holder.outside", r"own\.networks\.Holder has no 'outside'"),
        ("own.networks:", "Write package.module:factory"),
        (":colours", "Write package.module:factory"),
        ("own/networks.py:colours", "Write package.module:factory"),
        ("own.networks:fails", r"without arguments: ValueError: no such thing as 7 \(networks\.py, line \d+\)\.$"),
        ("own.networks:wants", r"TypeError: wants\(\) missing 1 required positional argument: 'classes'"),
        ("own.networks:leaves", r"SystemExit: usage: train\.py DATA \(networks\.py, line \d+\)"),
        ("own.networks:wrong", r"gives a dict\. It should give a torch\.nn\.Module, or \(module, transform\)"),
        ("own.networks:wrong_pair", r"gives a Sequential, an int\. It should"),
        ("own.networks:nothing", r"gives nothing\. It should"),
        ("own.networks:number", "is an int, not a function or class"),
        ("own.broken:factory", r"importing own\.broken failed: ZeroDivisionError: .* \(broken\.py, line 3\)\.$"),
        ("own.misspelt:factory", r"importing own\.misspelt failed: SyntaxError: .* \(misspelt\.py, line 1\)\.$"),
        ("own.needing:factory", r"failed: ModuleNotFoundError: No module named 'surely_not_installed' \(needing\.py"),
        ("own.networks:Whole", r"does not run on images of 224 x 224 pixels and 3 channels: .*--crop and --channels"),
    ],
)
def test_each_mistake_is_a_sentence_with_its_place(spec, sentence):
    assert re.search(sentence, said := refused(spec)), said
    assert "\n" not in said


def test_the_line_is_the_one_of_the_users_own_file_that_failed():
    line = NETWORKS.splitlines().index('    raise ValueError(f"no such thing as {number}.\\nsecond line")') + 1
    assert f"line {line})" in refused("own.networks:fails")


def test_words_that_are_no_weights_of_a_factory_are_refused():
    assert "WEIGHTS is empty for the network as the factory made them" in refused(
        "own.networks:colours", "IMAGENET1K_V1"
    )
    assert "There is no weights file 'gone.pth'" in refused("own.networks:colours", "gone.pth")


def test_checking_the_name_imports_nothing_of_it(own):
    (own / "loud.py").write_text("raise SystemExit(1)")
    check_name("loud:factory")
    check_name("own.networks:nothing_like_it")
    assert "loud" not in sys.modules and "own.networks" not in sys.modules
    with pytest.raises(UserError, match=r"there is no module 'lout'.* Did you mean loud"):
        check_name("lout:factory")


def test_the_working_directory_hides_no_package_for_long(own):
    (own / "colorsys.py").write_text("raise SystemExit(1)")
    load_network("own.networks:colours")
    assert sys.path[0] != str(own)
    sys.modules.pop("colorsys", None)
    import colorsys  # the standard library's

    assert colorsys.ONE_THIRD


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["scripted", "partly_traced", "exported", "exported_module"])
def test_programs_are_refused_in_one_sentence(name):
    assert "a program of torch.jit or torch.export, in which single layers cannot be read" in refused(
        f"own.networks:{name}"
    )


def test_lazy_modules_get_their_numbers_from_the_factorys_seed():
    torch.manual_seed(7)
    first = weights_hash(load_network("own.networks:lazy", "", PreprocessingOptions("16", "16")).module)
    torch.manual_seed(8)
    assert weights_hash(load_network("own.networks:lazy", "", PreprocessingOptions("16", "16")).module) == first


def test_channels_that_come_in_another_order_are_known_by_pure_colours():
    how = load_network("own.networks:bgr").preprocessing
    assert how.order == (2, 1, 0) and how.described()["order"] == [2, 1, 0]
    red = Image.new("RGB", (16, 16), (200, 30, 10))
    assert np.allclose(how.colours(network_pixels(red, how)), np.array([200, 30, 10]) / 255, atol=1e-5)
    drawn = torch.from_numpy(np.array(red)).permute(2, 0, 1)[None] / 255
    fed = Normalized.of(how, torch.device("cpu"))(drawn)
    assert torch.allclose(fed[0], how.transform(red), atol=1e-5)
    assert load_network("own.networks:strange").preprocessing.order == ()
    assert any("Pure colours do not show" in notice for notice in load_network("own.networks:grey").notices)


def test_units_of_networks_that_take_blue_first_are_drawn_in_their_colours(own, pictures):
    words = ["--dataset", "pictures", "--model", "own.networks:bgr", "--topk", "3", "--device", "cpu", "--run", "drawn"]
    command("mine", *words, "--visualize", "--views", "3", "--no-sheets", "--quiet", "--compile", "0")
    run = open_run("drawn")
    for unit, colour in enumerate(("blue", "green", "red")):
        drawn = np.asarray(shown(run.units("0", unit).iloc[0]["visualization"])).mean((0, 1))
        assert int(drawn.argmax()) == ("red", "green", "blue").index(colour)
        view = shown(pd.read_parquet("drawn/views", filters=[("unit", "==", unit)]).iloc[0]["view"])
        assert int(np.asarray(view).mean((0, 1)).argmax()) == ("red", "green", "blue").index(colour)


def test_layers_that_depend_on_their_batch_are_refused_or_allowed_and_recorded(pictures, own):
    words = ["mine", "--dataset", "pictures", "--model", "own.networks:company", "--resize", "none", "--crop", "24"]
    words += ["--topk", "3", "--device", "cpu", "--no-visualize", "--no-sheets", "--quiet", "--run", "run"]
    for more, sentence in (
        ([], "1 of 2 layers of Sequential are not about single images. The first is 3: it depends on the other images"),
        (["--allow-dependent", "--compile", "1"], "COMPILE=1 fills the last batch of a shard up with black"),
    ):
        result = CliRunner().invoke(application(["mine"]), [*words, *more])
        assert result.exit_code == 1 and sentence in result.stderr.replace("\n", " ")
    command(*words, "--layers", "1", "--run", "sound")
    assert "dependent" not in json.loads((own / "sound" / "run.json").read_text())
    command(*words, "--allow-dependent")
    record = json.loads((own / "run" / "run.json").read_text())
    assert record["dependent"] == {"3": "it depends on the other images of a batch"}
    command("focus", "--run", "run", "--quiet", "--most", "1")
    command("layers", "--model", "own.networks:company", "--crop", "24")


def test_views_say_which_relus_keep_their_gradient_wherever_they_are_made(own, pictures):
    words = ["mine", "--dataset", "pictures", "--model", "own.networks:functional", "--resize", "none", "--crop", "24"]
    words += ["--topk", "2", "--device", "cpu", "--no-visualize", "--no-sheets", "--run", "run", "--views", "1"]
    said = CliRunner().invoke(application(["mine"]), words)
    assert "ReLUs that it calls as functions keep their own gradient" in said.stderr.replace("\n", " ")


# beyond this process


def test_a_subject_travels_to_another_process(own):
    network = load_network("own.networks:digits")
    subject = Subject(network, traced := Traced(network.module, network.input_shape), traced.choose(""))
    (own / "subject").write_bytes(pickle.dumps(subject))
    program = """
import pickle, sys
from actmine.pipeline.network.weights import weights_hash
subject = pickle.load(open("subject", "rb"))
print(weights_hash(subject.network.module), [layer.name for layer in subject.layers], subject.traced.input_shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=own, env={"PYTHONPATH": f"{ROOT}:{own}"}, capture_output=True, text=True
    )
    assert done.stdout.strip() == f"{weights_hash(network.module)} {[each.name for each in subject.layers]} (1, 28, 28)"


# mined


def command(*words: str) -> str:
    """Standard output of a command that succeeds; what it says besides is kept out of it."""
    result = CliRunner().invoke(application([words[0]]), list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return str(result.stdout)


CASES = {
    "colours": (
        ["--resize", "none", "--crop", "32"],
        transforms.Compose([transforms.CenterCrop(32), transforms.ToTensor(),
                            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]),
    ),
    "digits": (
        [],
        transforms.Compose([transforms.Grayscale(), transforms.Resize(28), transforms.CenterCrop(28),
                            transforms.ToTensor(), transforms.Normalize(0.1307, 0.3081)]),
    ),
    "wide": ([], transforms.Compose([transforms.Resize((24, 40)), transforms.ToTensor()])),
}  # fmt: skip
SHAPES = {"colours": (32, 32), "digits": (28, 28), "wide": (24, 40)}


@pytest.mark.parametrize("name", CASES)
def test_small_grey_and_oblong_networks_are_mined_like_any_other(name, pictures, own):
    flags, transform = CASES[name]
    words = ["--dataset", "pictures", "--model", f"own.networks:{name}", *flags, "--topk", "3", "--device", "cpu"]
    command("mine", *words, "--no-visualize", "--no-sheets", "--quiet", "--compile", "0")
    run = own / "runs" / f"pictures-own.networks_{name}"
    record = json.loads((run / "run.json").read_text())
    assert record["model"] == f"own.networks:{name}" and record["weights"] == "as the factory made them"
    assert tuple(record["preprocessing"]["size"]) == SHAPES[name]

    network: Network = load_network(f"own.networks:{name}", "", PreprocessingOptions(*flags[1::2]))
    images = torch.stack([transform(image) for image in pictures.values()])
    with torch.no_grad():
        maps = {"1": network.module[:2](images), "3": network.module(images)}  # type: ignore[index]
    exemplars = pd.read_parquet(run / "exemplars")
    assert set(exemplars["layer"]) == set(maps)
    for (layer, unit), rows in exemplars.groupby(["layer", "unit"]):
        values = maps[layer][:, unit]
        best = values.flatten(1).max(1)
        order = best.values.argsort(descending=True, stable=True)[:3]
        np.testing.assert_allclose(rows["activation"], best.values[order], rtol=1e-5, atol=1e-6)
        if len(set(best.values.tolist())) == len(best.values):
            assert rows["key"].tolist() == [list(pictures)[each] for each in order]
        at = rows["y"].to_numpy() * values.shape[2] + rows["x"].to_numpy()
        found = values[order].flatten(1)[range(3), at]
        np.testing.assert_allclose(found, best.values[order], rtol=1e-5, atol=1e-6)
    for row in exemplars.itertuples():
        width, height = pictures[row.key].size
        assert 0 <= row.left < row.right <= width and 0 <= row.top < row.bottom <= height


@pytest.mark.parametrize("name", CASES)
def test_their_layers_are_listed(name):
    rows = json.loads(command("layers", "--model", f"own.networks:{name}", *CASES[name][0], "--json"))
    height, width = SHAPES[name]
    sizes = [(height, width), ((height - 3) // 2 + 1, (width - 3) // 2 + 1)]
    assert [(row["layer"], row["units"], row["height"], row["width"]) for row in rows] == [
        ("1", 6, *sizes[0]), ("3", 5, *sizes[1])
    ]  # fmt: skip
    assert [row["rf_height"] for row in rows] == [3, 5]


def test_the_commands_say_what_the_user_should_know(own):
    result = CliRunner().invoke(application(["layers"]), ["layers", "--model", "own.networks:colours"])
    assert "gives no transform" in result.stderr and "gives no transform" not in result.stdout
