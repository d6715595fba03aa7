"""Networks that hypothesis makes against plain hooks, one image at a time: each layer is right or left out by name."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from actmine.pipeline.errors import UserError
from actmine.pipeline.network.batch_check import BATCH, CHANCE
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.layouts import as_map
from actmine.pipeline.network.names import Names
from actmine.pipeline.readings.taps import TappedNetwork, unit_offsets
from actmine.pipeline.receptive_fields.receptive_field import receptive_fields

C, SIDE, IMAGES = 4, 8, 3
KINDS = "plain reused renamed weight pruned keyword folded windows tokens sequence attention batch chance".split()
"""What a block can be; the last two make all that follows depend on more than one image."""


class Block(nn.Module):
    """A convolution, a linear map or attention, after which comes an activation, in some arrangement of the tensor."""

    def __init__(self, kind: str, shared: nn.Module) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.map: nn.Module = nn.MultiheadAttention(C, 2)
        else:
            self.map = nn.Linear(C, C) if kind in ("tokens", "sequence") else nn.Conv2d(C, C, 3, padding=1)
        if kind == "weight":
            self.map = parametrizations.weight_norm(self.map)
        if kind == "pruned":
            prune.l1_unstructured(self.map, "weight", 0.3)
        self.norm = nn.BatchNorm2d(C, track_running_stats=kind != "batch")
        self.relu = nn.ReLU()
        self.relu_1 = nn.ReLU() if kind == "renamed" else shared if kind == "reused" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "folded":
            return x + torch.cat(self.relu(self.map(torch.cat(x.chunk(4, 3), 0))).chunk(4, 0), 3)
        if self.kind == "windows":
            parts = x.unflatten(2, (2, SIDE // 2)).transpose(1, 2).flatten(0, 1)
            return x + self.relu(self.map(parts)).unflatten(0, (-1, 2)).transpose(1, 2).flatten(2, 3)
        if self.kind in ("tokens", "sequence", "attention"):
            order, back = ((0, 2, 1), (0, 2, 1)) if self.kind == "tokens" else ((2, 0, 1), (1, 2, 0))
            tokens = x.flatten(2).permute(*order)
            made = self.map(tokens, tokens, tokens)[0] if self.kind == "attention" else self.relu(self.map(tokens))
            return x + made.permute(*back).unflatten(2, (SIDE, SIDE))
        if self.kind == "keyword":
            return self.relu(self.norm(input=self.map(input=x)))
        x = self.norm(self.map(x)) if self.kind in ("plain", "batch") else self.map(x)
        if self.kind == "renamed":  # both names are called twice
            return self.relu(self.map(self.relu_1(self.map(self.relu(x)))))
        x = self.relu_1(x) if self.kind == "reused" else self.relu(x)
        return functional.dropout(x, 0.5) if self.kind == "chance" else x


class Network(nn.Module):
    """Blocks one after the other, and a head; where it `looks` at values, torch.fx cannot follow it."""

    def __init__(self, kinds: list[str], looks: bool) -> None:
        super().__init__()
        self.looks = looks
        self.stem = nn.Conv2d(3, C, 1)
        self.shared = nn.ReLU()
        self.blocks = nn.ModuleList([Block(kind, self.shared) for kind in kinds])
        self.head = nn.Linear(C, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.looks and x.numel() == 0:
            return x
        if self.looks and float(x.detach().abs().amin()) < 0:
            x = x * 2
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


def calls(network: nn.Module, image: Tensor) -> dict[tuple[str, int], Tensor]:
    """What each call of each module gives for one image, by plain hooks: by its path and how often it ran before."""
    found: dict[tuple[str, int], Tensor] = {}
    counts: Counter[str] = Counter()

    def keep(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            found[name, counts[name]] = (output[0] if isinstance(output, tuple) else output).clone()
            counts[name] += 1

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in network.named_modules() if name]
    with torch.no_grad():
        network(image)
    for handle in handles:
        handle.remove()
    return found


def named(network: nn.Module, call: tuple[str, int]) -> str:
    """The name of a call: paths belong to their own modules, further calls take the next free number."""
    path, again = call
    taken = {name for name, _ in network.named_modules(remove_duplicate=False)}
    free = (f"{path}_{number}" for number in range(1, 99))
    return path if again == 0 else [name for name in free if name not in taken][again - 1]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5), st.booleans())
def test_every_reading_is_that_of_the_image_alone_or_the_layer_is_left_out_by_name(kinds, looks):
    torch.manual_seed(len(kinds))
    network = Network(kinds, looks).eval()
    traced = Traced(network, (3, SIDE, SIDE))
    assert traced.by == ("modules" if looks else "graph")
    layers = {layer.name: layer for layer in traced.choose("", dependent=True)}
    images = torch.randn(IMAGES, 3, SIDE, SIDE)
    alone = [calls(network, image[None]) for image in images]
    ends = {named(network, call): call for call in alone[0]}
    chosen = [layer for layer in layers.values() if layer.name in ends]
    read = TappedNetwork(traced, chosen)(images)
    offsets = unit_offsets(chosen)
    order = list(alone[0])
    impure = next((number for number, kind in enumerate(kinds) if kind in ("batch", "chance")), None)
    sound = (
        order if impure is None else order[: order.index((f"blocks.{impure}.relu", 0)) + (kinds[impure] == "chance")]
    )
    for layer, first in zip(chosen, offsets, strict=False):
        assert bool(layer.dependence) == (ends[layer.name] not in sound), (layer, kinds)
        if layer.dependence:
            continue
        for image, single in enumerate(alone):
            maps = as_map(single[ends[layer.name]], layer.layout, layer.height, layer.width)
            wanted = single[ends[layer.name]].movedim(1 if layer.layout in MAPS else -1, 0).flatten(1).amax(1)
            found = read.maximum[image, first : first + layer.units]
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
            at = read.position[image, first : first + layer.units, None].long()
            torch.testing.assert_close(maps.reshape(layer.units, -1).gather(1, at)[:, 0], wanted, rtol=1e-4, atol=1e-5)
    named_ones = {*layers, *traced.left_out(), *traced.unmet()}
    for number, kind in enumerate(kinds):
        start = "shared" if kind == "reused" else f"blocks.{number}."
        assert any(name.startswith(start) for name in named_ones), (kind, named_ones)
        if kind == "folded" and impure is None:
            assert any(name.startswith(start) for name in traced.left_out())
    assert {"stem", "head"} <= named_ones


MAPS = ("maps", "window_maps", "features")


def test_names_are_those_of_one_call():
    shared = nn.ReLU()
    network = nn.Sequential()
    network.add_module("relu", shared)
    network.add_module("relu_1", nn.ReLU())
    names = Names(network)
    assert [names.of_module("relu") for _ in range(3)] == ["relu", "relu_2", "relu_3"]
    assert [names.of_module("relu_1") for _ in range(2)] == ["relu_1", "relu_1_1"]
    assert [names.of_function("", node) for node in ("relu_5", "add", "add_1")] == ["relu_4", "add", "add_1"]


class Sequence(nn.Module):
    """Patches as a sequence, `[T, B, C]` unless the batch comes first."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.patch = kind, nn.Conv2d(3, 8, 4, 4)
        if kind.startswith("encoder"):
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=kind == "encoder, batch first")
            self.body: nn.Module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        else:
            self.body = nn.LSTM(8, 8)
        self.after = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2)
        tokens = tokens.permute(2, 0, 1) if self.kind in ("encoder", "lstm") else tokens.permute(0, 2, 1)
        made = self.body(tokens)
        return self.after(made[0] if isinstance(made, tuple) else made)


@pytest.mark.parametrize("kind", ["encoder", "encoder, batch first", "lstm"])
def test_layers_inside_torchs_own_sequence_models_are_read_wherever_the_batch_is(kind):
    torch.manual_seed(0)
    network = Sequence(kind).eval()
    traced = Traced(network, (3, 16, 16))
    layers = traced.choose("")
    assert {"patch", "after"} <= {layer.name for layer in layers}
    if kind.startswith("encoder"):
        assert {f"body.layers.{n}.linear1" for n in (0, 1)} <= {layer.name for layer in layers}
    assert all(field.whole or name in ("patch", "after") for name, field in receptive_fields(traced, layers).items())
    images = torch.randn(4, 3, 16, 16)
    read = TappedNetwork(traced, layers)(images)
    for layer, first in zip(layers, unit_offsets(layers), strict=False):
        for image in range(4):
            single = calls(network, images[image : image + 1])[layer.name, 0]
            wanted = single.movedim(1 if layer.layout == "maps" else -1, 0).flatten(1).amax(1)
            found = read.maximum[image, first : first + layer.units]
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_sequence_that_is_read_along_its_images_is_refused_unless_it_is_allowed():
    traced = Traced(Sequence("lstm, images as steps").eval(), (3, 16, 16))
    with pytest.raises(
        UserError, match=r"1 of 2 layers of Sequence .* The first is after: it depends on the other images"
    ):
        traced.choose("")
    assert [layer.dependence for layer in traced.choose("", dependent=True)] == ["", BATCH]
    assert [layer.name for layer in traced.choose("patch")] == ["patch"]


def test_chance_is_told_from_company():
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(functional.dropout(self.a(x), 0.1))

    assert [layer.dependence for layer in Traced(Noisy(), (3, 9, 9)).choose("", True)] == ["", CHANCE]


class Odd(nn.Module):
    """Volumes, complex numbers, parts that never run, data-parallel parts, and deformable convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.DataParallel(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()))
        self.volume = nn.Conv3d(2, 4, 3, padding=1)
        self.waves = nn.Conv2d(1, 4, 1, dtype=torch.complex64)
        self.never = nn.Conv2d(3, 3, 1)
        self.offsets, self.deformed = nn.Conv2d(3, 18, 1), torchvision.ops.DeformConv2d(3, 4, 3, padding=1)
        self.inner.device_ids = []

    def forward(self, x: Tensor) -> Tensor:
        volume = self.volume(self.inner(x).unflatten(1, (2, 4))).mean((2, 3, 4))
        waves = self.waves(torch.view_as_complex(torch.stack([x[:, :1], x[:, 1:2]], -1).contiguous()))
        return volume + waves.abs().mean((2, 3)) + self.deformed(x, self.offsets(x)).clamp(min=0).mean((2, 3))


def test_what_cannot_be_read_is_left_out_with_its_reason():
    traced = Traced(Odd().eval(), (3, 9, 9))
    layers = traced.choose("")
    assert {layer.name: layer.kind for layer in layers} == {
        "inner.module.1": "conv2d + relu", "offsets": "conv2d", "clamp": "deformconv2d + clamp", "add": "add",
        "add_1": "add",
    }  # fmt: skip
    assert traced.left_out() == {
        "volume": "it gives a tensor of shape [1, 4, 4, 9, 9] for one image",
        "waves": "its values are complex64, not real numbers",
    }
    assert traced.unmet() == {"never": "it never runs"}
    remarks = " ".join(traced.remarks())
    assert all(f" {name}: " in remarks for name in ("volume", "waves", "never"))
    assert TappedNetwork(traced, layers)(torch.randn(2, 3, 9, 9)).maximum.shape[0] == 2
    assert receptive_fields(traced, layers)["clamp"].note == "deform_conv2d could not be followed"


@pytest.mark.parametrize("word", ["never", "volume", "waves", "inner", "nope"])
def test_no_layer_is_unknown_that_the_network_has(word):
    traced = Traced(Odd().eval(), (3, 9, 9))
    if word == "inner":
        assert traced.choose(word)[0].name == word
        return
    with pytest.raises(UserError) as caught:
        traced.choose(word)
    assert ("There is no layer" in str(caught.value)) == (word == "nope")


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "pruned"])
def test_networks_with_hooks_of_torch_are_left_as_they_were(kind):
    conv = nn.Conv2d(3, 4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if kind == "pruned":
            prune.random_unstructured(conv, "weight", 0.5)
        else:
            getattr(nn.utils, kind)(conv)
    network = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    images = torch.randn(2, 3, 9, 9)
    before = network(images).detach()
    traced = Traced(network, (3, 9, 9))
    read = TappedNetwork(traced, traced.choose(""))(images)
    assert torch.equal(read.maximum[:, 4:], before.amax((2, 3)))
    assert torch.equal(network(images), before)
    assert all(type(value) is not torch._subclasses.FakeTensor for value in vars(conv).values())


def test_a_layer_without_numbers_is_said():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    network[2].weight.data.fill_(torch.nan)  # type: ignore[operator]
    assert Traced(network, (3, 9, 9)).remarks() == ["All values were NaN, for two pictures: 2."]


def test_a_network_with_nothing_to_read_says_so():
    with pytest.raises(UserError, match="Sequential has no convolution and no linear layer that a trace can see"):
        Traced(nn.Sequential(nn.Flatten()), (3, 9, 9)).choose("")
