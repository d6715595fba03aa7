"""Weights go in whole or not at all: wrappers, prefixes, types, heads, and files that are no weights."""

from __future__ import annotations

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from actmine.pipeline.errors import UserError
from actmine.pipeline.network.weights import Filled, Weights, fill, fits, looks_like_a_file, read_weights, weights_hash


class Small(nn.Module):
    """A convolution, a normalization, a head of some classes."""

    def __init__(self, classes: int = 5, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.fc = nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(self.conv(images)).mean((2, 3)))


TRAINED = Small(seed=1)
STATE = TRAINED.state_dict()


def prefixed(prefix: str, state: dict[str, Tensor] = STATE) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def filled_from(path: Path, content: object, module: nn.Module | None = None) -> tuple[nn.Module, Filled]:
    """A fresh network with the weights of a file that `torch.save` wrote."""
    torch.save(content, path)
    module = module or Small()
    return module, fill(module, read_weights(path))


def refused(path: Path, content: object, module: nn.Module | None = None) -> str:
    """The sentence; asserts that the network is as it was."""
    module = module or Small()
    before = weights_hash(module)
    with pytest.raises(UserError) as caught:
        filled_from(path, content, module)
    assert weights_hash(module) == before
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        OrderedDict(STATE),
        {"state_dict": STATE, "epoch": 3, "optimizer": {"state": {}, "param_groups": []}},
        {"model": STATE, "lr": 0.1},
        {"model_state_dict": STATE},
        {"state_dict_ema": STATE},
        {"model_ema": {"state_dict": STATE}},
        {"net": {"module": STATE}, "args": argparse.Namespace(lr=0.1)},
        {"module": STATE, "scale": torch.ones(1)},
        {"params": STATE, "step": 7},
        {key: nn.Parameter(tensor) if tensor.is_floating_point() else tensor for key, tensor in STATE.items()},
    ],
    ids=range(11),
)
def test_a_state_dict_is_found_wherever_trainers_put_it(content, tmp_path):
    module, filled = filled_from(tmp_path / "w.pth", content)
    assert weights_hash(module) == weights_hash(TRAINED) != weights_hash(Small())
    assert filled == Filled()


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "backbone.", "_orig_mod.module.", "model.encoder.base."]
)
def test_a_prefix_that_all_names_share_is_no_part_of_them(prefix, tmp_path):
    module, filled = filled_from(tmp_path / "w.pth", {"state_dict": prefixed(prefix)})
    assert weights_hash(module) == weights_hash(TRAINED) and filled == Filled()
    save_file(prefixed(prefix), tmp_path / "w.safetensors")
    fill(module := Small(), read_weights(tmp_path / "w.safetensors"))
    assert weights_hash(module) == weights_hash(TRAINED)


def test_wrapping_modules_are_no_part_of_names_wherever_they_stand(tmp_path):
    inside = {key.replace("conv.", "conv._orig_mod.").replace("norm.", "norm.module."): STATE[key] for key in STATE}
    module, _ = filled_from(tmp_path / "w.pth", inside)
    assert weights_hash(module) == weights_hash(TRAINED)


def test_what_lies_beside_a_prefixed_network_is_left_aside_and_named(tmp_path):
    module, filled = filled_from(tmp_path / "w.pth", prefixed("backbone.") | {"loss.weight": torch.ones(3)})
    assert weights_hash(module) == weights_hash(TRAINED)
    assert filled.notices == ("Of w.pth only backbone.* is taken; left aside: loss.weight.",)


def test_of_two_networks_in_one_file_neither_is_taken_by_guess(tmp_path):
    both = prefixed("student.") | prefixed("teacher.")
    assert "several sets of weights that fit Small, under student., teacher." in refused(tmp_path / "w.pth", both)


def test_of_two_wrapped_state_dicts_the_plain_one_is_taken_and_it_is_said(tmp_path):
    other = Small(seed=2).state_dict()
    module, filled = filled_from(tmp_path / "w.pth", {"state_dict_ema": other, "state_dict": STATE})
    assert weights_hash(module) == weights_hash(TRAINED)
    assert filled.notices == (
        "w.pth holds state_dict, state_dict_ema; state_dict is taken (WEIGHTS=w.pth#state_dict_ema takes another).",
    )


CHECKPOINT = {
    "student": STATE, "teacher": prefixed("module."), "state": {"model": STATE, "step": 3},
    "moco": prefixed("module.encoder_q.") | prefixed("module.encoder_k."),
}  # fmt: skip


@pytest.mark.parametrize("part", ["teacher", "student", "state.model", "moco.encoder_q", "moco.module.encoder_k"])
def test_a_part_of_a_file_is_taken_where_it_is_named(part, tmp_path):
    torch.save(CHECKPOINT, tmp_path / "w.pth")
    weights = read_weights(tmp_path / f"w.pth#{part}")
    assert weights.origin == f"w.pth#{part}" and looks_like_a_file(str(tmp_path / f"w.pth#{part}"))
    module = Small()
    fill(module, weights)
    assert weights_hash(module) == weights_hash(TRAINED)


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    torch.save(CHECKPOINT["moco"], tmp_path / "w.pth")
    save_file(prefixed("teacher."), tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"w\.pth has no part 'ema'\. It holds module"):
        read_weights(tmp_path / "w.pth#ema")
    assert read_weights(tmp_path / "w.safetensors#teacher").tensors.keys() == STATE.keys()
    assert "WEIGHTS=w.pth#student takes a part of it" in refused(tmp_path / "w.pth", CHECKPOINT)


def test_numbers_of_numpy_beside_the_weights_are_read_and_nothing_else_of_numpy(tmp_path):
    numbers = [np.float64(0.5), np.float32(2.5), np.int64(-3), np.bool_(True), np.dtype(">f4").type(1.5)]
    module, _ = filled_from(tmp_path / "w.pth", {"state_dict": STATE, "best": numbers})
    assert weights_hash(module) == weights_hash(TRAINED)
    for strange in (np.array([1.0]), np.datetime64(3, "D"), np.str_("x"), np.void(b"abc")):
        said = refused(tmp_path / "w.pth", {"state_dict": STATE, "best": strange})
        assert "which could run code and is not loaded" in said or "cannot be read as weights" in said


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_types_become_the_networks_own(dtype, tmp_path):
    module, _ = filled_from(tmp_path / "w.pth", {key: value.to(dtype) for key, value in STATE.items()
                                                 if value.is_floating_point()})  # fmt: skip
    assert module.conv.weight.dtype == torch.float32
    assert torch.equal(module.conv.weight, STATE["conv.weight"].to(dtype).float())


def test_integers_are_no_weights(tmp_path):
    sentence = refused(tmp_path / "w.pth", STATE | {"conv.weight": torch.ones(4, 3, 3, 3, dtype=torch.int8)})
    assert sentence == "w.pth does not fit: conv.weight is int8, wanted float32."


def test_missing_tensors_are_named_but_not_those_that_count_batches(tmp_path):
    part = {key: tensor for key, tensor in STATE.items() if key.startswith(("conv", "norm")) and tensor.ndim}
    module, filled = filled_from(tmp_path / "w.pth", part)
    assert filled.missing == {"fc.weight", "fc.bias"}
    assert torch.equal(module.fc.weight, Small().fc.weight) and torch.equal(module.conv.weight, STATE["conv.weight"])


def test_a_head_of_other_classes_is_missing_and_said(tmp_path):
    module, filled = filled_from(tmp_path / "w.pth", Small(7, seed=1).state_dict())
    assert filled.missing == {"fc.weight", "fc.bias"}
    assert filled.notices == (
        "w.pth has a head of other classes, left random: fc.weight is [7, 4], wanted [5, 4]; "
        "fc.bias is [7], wanted [5].",
    )
    assert torch.equal(module.fc.weight, Small().fc.weight) and torch.equal(module.conv.weight, STATE["conv.weight"])


def test_any_other_shape_is_refused_and_all_of_them_are_listed(tmp_path):
    odd = STATE | {"conv.weight": torch.ones(4, 1, 3, 3), "fc.bias": torch.ones(9)}
    sentence = refused(tmp_path / "w.pth", odd)
    assert "w.pth does not fit Small: conv.weight is [4, 1, 3, 3], wanted [4, 3, 3, 3]; fc.bias is [9]" in sentence
    wider_stem = STATE | {"conv.weight": torch.ones(8, 3, 3, 3), "conv.bias": torch.ones(8)}
    assert "does not fit" in refused(tmp_path / "w.pth", wider_stem)
    assert "does not fit" in refused(tmp_path / "w.pth", STATE | {"fc.weight": torch.ones(5, 3)})


def test_tensors_of_another_network_are_refused_by_name(tmp_path):
    assert "tensors that Small does not have: conv.extra" in refused(
        tmp_path / "w.pth", STATE | {"conv.extra": torch.ones(1)}
    )
    nothing = refused(tmp_path / "w.pth", {"a.b": torch.ones(1)})
    assert "holds no tensor of Small: it has a.b, wanted are conv.bias, conv.weight, fc.bias and" in nothing
    assert "fits nothing of Small but its head" in refused(tmp_path / "w.pth", {"fc.weight": torch.ones(9, 4)})


def test_a_network_without_a_head_takes_a_file_that_has_one_and_a_deeper_one_is_refused(tmp_path):
    headless = Small()
    headless.fc = nn.Identity()
    _, filled = filled_from(tmp_path / "w.pth", STATE, headless)
    assert filled.notices == ("w.pth has more than Small takes: fc.bias, fc.weight left aside.",)
    assert torch.equal(headless.conv.weight, STATE["conv.weight"])
    lacking = {key: value for key, value in STATE.items() if key != "norm.bias"}
    assert "does not have: fc.bias, fc.weight" in refused(tmp_path / "w.pth", lacking, headless)


def test_fits_tells_whether_all_names_and_shapes_are_there():
    assert fits(Small(), Weights("w", STATE))
    assert not fits(Small(), Weights("w", prefixed("x.")))
    assert not fits(Small(7), Weights("w", STATE))


class Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("old", [False, True])
def test_a_malicious_pickle_executes_nothing(old, tmp_path):
    path, mark = tmp_path / "w.pth", tmp_path / "ran"
    torch.save(STATE | {"x": Malicious(mark)}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=r"holds Python objects besides tensors \(\w+\.mkdir\).*state_dict"):
        read_weights(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # it would have


def test_more_than_tensors_is_one_sentence_that_says_what_to_save(tmp_path):
    path = tmp_path / "w.pth"
    for content in (TRAINED, {"state_dict": STATE, "best": np.zeros(2)}):
        assert "torch.save(model.state_dict()" in refused(path, content)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"epoch": 3, "name": "x"}, r"among its entries are epoch \(an int\), name \(a str\)"),
        (STATE | {"epoch": 3}, r"among its entries are epoch \(an int\)"),
        ({"state_dict": {"epoch": 3}}, r"w.pth\['state_dict'\] does not hold a state_dict"),
        ({}, "it is empty"),
        ([1, 2], "holds a list, not a state_dict"),
        (torch.ones(2), "holds a Tensor, not a state_dict"),
        ({"a": STATE, "b": STATE}, r"among its entries are a \(a"),
    ],
    ids=range(7),
)
def test_files_without_a_state_dict_say_what_they_hold(content, sentence, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(UserError, match=sentence):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("data", [b"", b"x" * 100, bytes(8) + b"{}", b"PK\x03\x04" + b"x" * 50, b"\x80\x02}q\x00."])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
def test_damaged_files_are_one_short_sentence(data, name, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_weights(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and len(str(caught.value)) < 400
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_cut_short_anywhere_is_a_sentence(tmp_path):
    torch.save(STATE, tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    for part in range(0, len(data), len(data) // 12):
        (tmp_path / "w.pth").write_bytes(data[:part])
        with pytest.raises(UserError, match=r"w\.pth"):
            read_weights(tmp_path / "w.pth")


def test_the_hash_covers_every_tensor():
    assert weights_hash(Small(seed=1)) == weights_hash(TRAINED)
    for key in STATE:
        changed = Small(seed=1)
        state = changed.state_dict()
        state[key].add_(1)
        assert weights_hash(changed) != weights_hash(TRAINED), key
