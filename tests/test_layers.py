"""Names and choice of layers against torchvision's own feature extraction."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import get_graph_node_names
from typer.testing import CliRunner

from actmine.jobs.__main__ import application
from actmine.pipeline.errors import UserError
from actmine.pipeline.network.graph_trace import GraphTrace
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.module_trace import ModuleTrace


def network(name: str) -> nn.Module:
    slow_start = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, **slow_start).eval()


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "squeezenet1_1", "googlenet", "resnet18", "densenet121"])
def test_nodes_have_the_names_torchvision_gives_them(name):
    module = network(name)
    assert list(GraphTrace(module, (3, 224, 224)).qualified) == get_graph_node_names(module)[1]


def test_a_block_that_torchvision_takes_as_one_node_has_its_name():
    traced = Traced(network("mobilenet_v2"), (3, 224, 224))
    assert traced.unit_bearing()[0].name == "features.0"


def test_squeezenet_bears_units_after_each_relu():
    layers = Traced(network("squeezenet1_1"), (3, 224, 224)).unit_bearing()
    assert len(layers) == 26
    assert sum(layer.units for layer in layers) == 3944
    assert {layer.kind for layer in layers} == {"conv2d + relu"}
    assert (layers[0].name, layers[0].units, layers[0].height, layers[0].width) == ("features.1", 64, 111, 111)


def test_resnet_bears_units_at_convolutions_sums_and_the_head():
    names = [layer.name for layer in Traced(network("resnet18"), (3, 224, 224)).unit_bearing()]
    assert names[:4] == ["relu", "layer1.0.relu", "layer1.0.bn2", "layer1.0.add"]
    assert names[-2:] == ["layer4.1.add", "fc"]
    assert "layer4.0.add" in names and "layer4.0.downsample.1" in names


def test_a_glob_selects_among_unit_bearing_layers_in_running_order():
    traced = Traced(network("squeezenet1_1"), (3, 224, 224))
    chosen = [layer.name for layer in traced.choose("features.4*, features.3*")]
    assert chosen == [
        f"features.{n}.{part}_activation" for n in (3, 4) for part in ("squeeze", "expand1x1", "expand3x3")
    ]


def test_an_exact_name_may_be_a_convolution_before_its_relu_or_a_whole_module():
    traced = Traced(network("squeezenet1_1"), (3, 224, 224))
    bare, fire = traced.choose("features.12.expand3x3, features.12")
    assert (bare.name, bare.kind, bare.units) == ("features.12.expand3x3", "conv2d", 256)
    assert (fire.name, fire.kind, fire.units) == ("features.12", "cat", 512)


def width_of(module: nn.Module) -> int | None:
    return getattr(module, "out_channels", getattr(module, "out_features", getattr(module, "embed_dim", None)))


FAMILIES = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t
mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
shufflenet_v2_x0_5 squeezenet1_0 swin_t swin_v2_t vgg11_bn vit_b_16 wide_resnet50_2""".split()
OTHERS = sorted({*torchvision.models.list_models(module=torchvision.models)} - {*FAMILIES})


@pytest.mark.parametrize("name", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_units_of_every_torchvision_network_are_the_channels_of_the_operation_that_makes_them(name):
    if name.startswith("regnet"):  # they compute with tensors while they are made
        module = network(name)
    else:
        with torch.device("meta"):
            module = network(name)
    side = 299 if name == "inception_v3" else 518 if name == "vit_h_14_518" else 224
    traced = Traced(module, (3, side, side))
    assert traced.by == "graph" and not traced.left_out()
    for layer in traced.unit_bearing():
        first = traced.node(layer)
        while " + " in layer.kind and first.op != "placeholder" and not hasattr(made_by(module, first), "weight"):
            first = first.all_input_nodes[0]
        if layer.kind in ("conv2d", "linear"):
            assert layer.units == width_of(made_by(module, first)), layer


def made_by(module: nn.Module, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


@pytest.mark.parametrize(
    ("name", "layer", "layout", "units", "height", "width"),
    [
        ("convnext_tiny", "features.1.0.block.4", "maps_last", 384, 56, 56),  # linear + gelu over [B, H, W, C]
        ("convnext_tiny", "features.1.0.add", "maps", 96, 56, 56),
        ("vit_b_16", "encoder.layers.encoder_layer_0.self_attention", "tokens", 768, 197, 1),
        ("vit_b_16", "encoder.layers.encoder_layer_3.add_1", "tokens", 768, 197, 1),
        ("vit_b_16", "encoder.layers.encoder_layer_3.mlp.1", "tokens", 3072, 197, 1),
        ("swin_t", "features.1.0.attn.shifted_window_attention", "maps_last", 96, 56, 56),
        ("swin_t", "features.3.0.add", "maps_last", 192, 28, 28),
        ("maxvit_t", "blocks.0.layers.0.layers.window_attention.add", "maps_last", 64, 64, 49),
        ("mobilenet_v3_small", "features.1.block.1.activation", "maps", 8, 1, 1),  # squeeze-and-excitation
        ("googlenet", "inception3a", "maps", 256, 28, 28),  # a concatenation
        ("resnet50", "layer1.0.relu_1", "maps", 64, 56, 56),  # a module called again
        ("densenet121", "features.denseblock1.denselayer1.relu2", "maps", 128, 56, 56),
    ],
)
def test_layers_of_every_layout_have_their_units_and_positions(name, layer, layout, units, height, width):
    (found,) = Traced(network(name), (3, 224, 224)).choose(layer)
    assert (found.layout, found.units, found.height, found.width) == (layout, units, height, width)


@pytest.mark.parametrize("word", ["features.12.expand3x33", "featurs.*"])
def test_an_unknown_layer_is_refused_with_near_matches(word):
    traced = Traced(network("squeezenet1_1"), (3, 224, 224))
    with pytest.raises(UserError, match=r"Did you mean .*features\."):
        traced.choose(word)


class Block(nn.Module):
    """A residual block that looks at values, which torch.fx cannot follow."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] < 2:
            return x
        y = self.conv2(self.relu(self.bn1(self.conv1(x))))
        return self.relu(y + x)


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.block = Block(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block(self.stem(x))
        return self.head(x.mean((2, 3)) if x.numel() else x.flatten(1))


def test_a_network_that_torch_fx_cannot_follow_is_read_by_its_modules_and_says_so():
    traced = Traced(Branching(), (3, 17, 15))
    assert traced.by == "modules"
    assert "control flow" in traced.why
    found = [(layer.name, layer.kind, layer.units, layer.height, layer.width) for layer in traced.unit_bearing()]
    assert found == [
        ("stem", "conv2d", 8, 8, 7),
        ("block.relu", "conv2d + batchnorm2d + relu", 8, 8, 7),
        ("block.conv2", "conv2d", 8, 8, 7),
        ("block.relu_1", "add + relu", 8, 8, 7),
        ("head", "linear", 5, None, None),
    ]
    assert [layer.name for layer in traced.choose("block.bn1, block.relu_1")] == ["block.bn1", "block.relu_1"]


def test_both_ways_to_follow_a_network_agree_where_both_can():
    module = network("resnet18")
    graph, modules = GraphTrace(module, (3, 64, 64)), ModuleTrace(module, (3, 64, 64))
    common = [point for point in modules.bearing() if (found := graph.find(point.name)) and found.shape == point.shape]
    assert len(common) == len(modules.bearing())
    kinds = {point.name: point.kind for point in graph.bearing()}
    assert all(kinds.get(point.name, point.kind) == point.kind for point in common if "add" not in point.kind)
    assert {point.name for point in modules.bearing() if "add" in point.kind} == {
        f"layer{stage}.{block}.relu_1" for stage in range(1, 5) for block in range(2)
    }


def test_a_network_that_does_not_run_on_such_images_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"Branching cannot be mined on images of 17 x 15 pixels and 1 channels: .*"):
        Traced(Branching(), (1, 17, 15))


def test_what_does_not_depend_on_the_image_bears_no_units():
    class Placed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.coded = nn.Buffer(torch.rand(1, 2, 6, 5))
            self.places = nn.Conv2d(2, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) + self.places(self.coded)

    for trace in (GraphTrace(Placed(), (3, 6, 5)), ModuleTrace(Placed(), (3, 6, 5))):
        assert "places" not in [point.name for point in trace.bearing()]


def test_the_list_of_layers_has_a_line_for_each_and_breaks_no_word():
    said = CliRunner().invoke(application(["layers"]), ["layers", "--model", "squeezenet1_1", "--weights", "random"])
    lines = [line.split() for line in said.stdout.splitlines()[4:] if line.strip()]
    assert len(lines) == 26 and all(line[-3:] == ["conv2d", "+", "relu"] for line in lines)
