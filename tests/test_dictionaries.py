"""Dictionaries make the latents of the libraries they come from: SAELens, overcomplete, saev, dictionary_learning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from actmine.pipeline.dictionaries.dictionary import Dictionary, KLargest, Rectified
from actmine.pipeline.dictionaries.files import read_dictionary
from actmine.pipeline.dictionaries.of_code import ByCode
from actmine.pipeline.errors import UserError

WIDTH, LATENTS = 24, 200


def vectors(count: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 + 0.3


def weights(seed: int = 0) -> dict[str, Tensor]:
    """An encoder and a decoder unlike it, whose rows have unlike lengths."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "W_enc": random(WIDTH, LATENTS) / 5, "b_enc": random(LATENTS) / 5, "W_dec": random(LATENTS, WIDTH) / 5,
        "b_dec": random(WIDTH) / 5,
    }  # fmt: skip


def same(made: Dictionary, latents: Tensor, again: Tensor | None, x: Tensor) -> None:
    torch.testing.assert_close(made(x), latents, rtol=1e-4, atol=1e-5)
    prepared = made.prepared(x)  # a few at a time
    parts = [made.encoded(prepared, at, min(at + 37, made.latents)) for at in range(0, made.latents, 37)]
    torch.testing.assert_close(torch.cat(parts, 1), latents, rtol=1e-4, atol=1e-5)
    if again is not None:
        found, count = made.reconstructed(x)
        torch.testing.assert_close(found, again, rtol=1e-4, atol=1e-4)
        assert torch.equal(count, (made(x) != 0).sum(1))


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "standard": {}, "gated": {}, "jumprelu": {}, "topk": {"k": 9},
    "topk that counts the lengths of its decoder": {"k": 9, "rescale_acts_by_decoder_norm": True},
}  # fmt: skip


@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale", "expected_average_only_in"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("apply", [True, False], ids=["b_dec first", "b_dec last"])
def test_latents_are_those_of_saelens(kind, normalization, apply, tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    config = {
        "architecture": kind.split()[0], "d_in": WIDTH, "d_sae": LATENTS, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": apply, "normalize_activations": normalization, **ARCHITECTURES[kind],
    }  # fmt: skip
    sae = sae_lens.SAE.from_dict(config)
    filled = weights()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in sae.named_parameters():
        given = filled[name] if name in filled else torch.randn(parameter.shape, generator=generator) / 4
        parameter.data = given.abs() if name == "threshold" else given
    sae.save_model(tmp_path)
    x = vectors()
    with torch.no_grad():
        latents = sae.encode(x)
        again = sae.decode(latents)
    assert 0 < (latents != 0).float().mean() < 0.9
    same(read_dictionary(tmp_path), latents, again, x)


@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
@pytest.mark.parametrize("saved", ["save_inference_model", "save_model"])
def test_dictionaries_trained_by_saelens_are_those_that_it_uses_later(kind, saved, tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    config = {"architecture": kind, "d_in": WIDTH, "d_sae": LATENTS, "k": 9.0, "normalize_activations": "none"}
    config |= {"matryoshka_widths": [50, LATENTS]} if "matryoshka" in kind else {}
    sae = sae_lens.TrainingSAE.from_dict(config)
    for name, tensor in weights().items():
        getattr(sae, name).data = tensor.clone()
    sae.topk_threshold = torch.tensor(0.4, dtype=torch.double)
    sae.save_inference_model(tmp_path / "use")
    used = sae_lens.SAE.load_from_disk(tmp_path / "use")
    getattr(sae, saved)(tmp_path / "kept")
    x = vectors()
    with torch.no_grad():
        latents = used.encode(x)
        again = used.decode(latents)
    same(read_dictionary(tmp_path / "kept"), latents, again, x)


def test_a_configuration_before_version_6_is_read_with_its_defaults(tmp_path):
    filled = weights()
    save_file(filled, tmp_path / "sae_weights.safetensors")
    old = {"d_in": WIDTH, "d_sae": LATENTS, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7},
           "normalize_activations": False, "hook_point": "blocks.3.hook_resid_post", "prepend_bos": True}  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    made, x = read_dictionary(tmp_path), vectors()
    products = (x - filled["b_dec"]) @ filled["W_enc"] + filled["b_enc"]
    same(made, kept(products, 7).relu(), None, x)
    assert isinstance(made, KLargest) and made.k == 7


def kept(products: Tensor, k: int) -> Tensor:
    values, places = products.topk(k, 1)
    return torch.zeros_like(products).scatter(1, places, values)


def saev(path: Path, header: Mapping[str, Any], further: Mapping[str, Tensor] = {}) -> Path:
    with path.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        torch.save({**weights(), **further}, file)
    return path


def schema(number: int, kind: str, k: int = 8) -> dict[str, Any]:
    return {"schema": number, "cfg": {"d_model": WIDTH, "activation": {"cls": kind, "params": {"top_k": k}}}}


THRESHOLD = {"activation.threshold": torch.tensor(0.5)}
SAEV: dict[str, tuple[dict[str, Any], Mapping[str, Tensor], Callable[[Tensor], Tensor]]] = {
    "schema 5, Relu": (schema(5, "Relu"), {}, torch.relu),
    "schema 2, TopK, negative latents stay": (schema(2, "TopK", 150), {}, lambda x: kept(x, 150)),
    "schema 1, TopK by its name": ({"schema": 1, "cls": "TopK", "cfg": {"top_k": 6}}, {}, lambda x: kept(x, 6)),
    "schema 1, nothing said": ({"schema": 1, "cfg": {"d_vit": WIDTH}}, {}, torch.relu),
    "schema 2, BatchTopK of each vector": (schema(2, "BatchTopK"), {}, lambda x: kept(x, 8)),
    "schema 5, BatchTopK by its threshold": (schema(5, "BatchTopK"), THRESHOLD, lambda x: x * (x > 0.5)),
    "schema 4, BatchTopK without one yet": (
        schema(4, "BatchTopK"), {"activation.threshold": torch.tensor(0.0)}, torch.relu
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAEV)
def test_checkpoints_of_saev_take_no_bias_from_their_vectors(kind, tmp_path):
    header, further, activation = SAEV[kind]
    made, filled, x = read_dictionary(saev(tmp_path / "sae.pt", header, further)), weights(), vectors()
    latents = activation(x @ filled["W_enc"] + filled["b_enc"])
    same(made, latents, latents @ filled["W_dec"] + filled["b_dec"], x)


def test_the_first_checkpoints_of_saev_took_it(tmp_path):
    made, filled, x = (
        read_dictionary(saev(tmp_path / "sae.pt", {"d_vit": WIDTH, "exp_factor": 2})),
        weights(),
        vectors(),
    )
    same(made, ((x - filled["b_dec"]) @ filled["W_enc"] + filled["b_enc"]).relu(), None, x)


def of_modules(bias: str) -> dict[str, Tensor]:
    filled = weights()
    return {"encoder.weight": filled["W_enc"].t(), "encoder.bias": filled["b_enc"],
            "decoder.weight": filled["W_dec"].t(), bias: filled["b_dec"]}  # fmt: skip


def learned(folder: Path, kind: str, tensors: Mapping[str, Tensor]) -> Path:
    folder.mkdir()
    torch.save(dict(tensors), folder / "ae.pt")
    (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": kind, "k": 5}}))
    return folder


def test_dictionaries_of_dictionary_learning_are_read_as_it_reads_them(tmp_path):
    filled, x = weights(), vectors()
    products = (x - filled["b_dec"]) @ filled["W_enc"] + filled["b_enc"]
    norms = filled["W_dec"].norm(dim=1)
    numbers = {"k": torch.tensor(5, dtype=torch.int), "threshold": torch.tensor(0.3)}
    groups = {"group_sizes": torch.tensor([100, 100]), "active_groups": torch.tensor(2)}
    gates = {"r_mag": filled["b_enc"] * 2, "gate_bias": filled["b_enc"], "mag_bias": filled["b_enc"] / 2}
    plain = products - filled["b_enc"]
    gated = (plain * gates["r_mag"].exp() + gates["mag_bias"]).relu() * (plain + gates["gate_bias"] > 0)
    without_bias = {name: each for name, each in of_modules("decoder_bias").items() if name != "encoder.bias"}
    cases = {
        "AutoEncoder": (of_modules("bias"), products.relu() * norms),
        "AutoEncoderNew": (of_modules("decoder.bias"), (x @ filled["W_enc"] + filled["b_enc"]).relu()),
        "GatedAutoEncoder": (without_bias | gates, gated),
        "AutoEncoderTopK": (of_modules("b_dec") | numbers, kept(products.relu(), 5)),
        "BatchTopKSAE": (of_modules("b_dec") | numbers, products * (products > 0.3)),
        "MatryoshkaBatchTopKSAE": (filled | numbers | groups, products * (products > 0.3)),
        "JumpReluAutoEncoder": (
            filled | {"threshold": torch.full((LATENTS,), 0.2)},
            (after := x @ filled["W_enc"] + filled["b_enc"]) * (after > 0.2),
        ),
    }
    for kind, (tensors, latents) in cases.items():
        same(read_dictionary(learned(tmp_path / kind, kind, tensors)), latents, None, x)


def test_plain_files_are_encoders_or_directions_with_names(tmp_path):
    filled, x = weights(), vectors()
    save_file(filled, tmp_path / "relu.safetensors")
    same(read_dictionary(tmp_path / "relu.safetensors"), (x @ filled["W_enc"] + filled["b_enc"]).relu(), None, x)
    directions = filled["W_dec"].contiguous()
    names = [f"a direction {n}" for n in range(LATENTS)]
    save_file({"directions": directions}, tmp_path / "named.safetensors", {"names": json.dumps(names)})
    np.save(tmp_path / "array.npy", directions.numpy())
    (tmp_path / "array.txt").write_text("\n".join(names))
    torch.save({"weight": directions, "bias": filled["b_enc"]}, tmp_path / "probe.pt")
    for name in ("named.safetensors", "array.npy"):
        made = read_dictionary(tmp_path / name)
        same(made, x @ directions.t(), None, x)
        assert made.names == tuple(names) and not made.rectified and not made.decodes
    same(read_dictionary(tmp_path / "probe.pt"), x @ directions.t() + filled["b_enc"], None, x)


@pytest.mark.parametrize("kind", ["TopKSAE", "JumpSAE", "SAE"])
def test_latents_of_code_are_those_of_overcomplete(kind, monkeypatch):
    cm = pytest.importorskip("matplotlib").cm  # which it draws with, by a name that is gone
    monkeypatch.setattr(cm, "get_cmap", pytest.importorskip("matplotlib").colormaps.get_cmap, raising=False)
    sae = pytest.importorskip("overcomplete.sae")
    torch.manual_seed(0)
    coder = getattr(sae, kind)(WIDTH, LATENTS, **({"top_k": 7} if kind == "TopKSAE" else {})).eval()
    made, x = ByCode(coder, WIDTH, "DICTIONARY"), vectors()
    with torch.no_grad():
        same(made, coder.encode(x)[-1], coder.decode(coder.encode(x)[-1]), x)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 1000), latents=st.sampled_from([5, 64, 200, 4096, 4160, 9000]), k=st.integers(1, 20),
       coarse=st.booleans())  # fmt: skip
def test_the_k_largest_are_those_of_a_sort_the_first_of_equal_ones(seed, latents, k, coarse):
    generator = torch.Generator().manual_seed(seed)
    encoder, x = torch.randn(6, latents, generator=generator), torch.randn(9, 6, generator=generator)
    if coarse:  # many products are equal
        encoder, x = encoder.round(), x.round()
    made = KLargest(encoder, k, rectifies=bool(seed % 2))
    products = x @ encoder
    order = products.sort(dim=1, descending=True, stable=True).indices[:, : min(k, latents)]
    wanted = torch.zeros_like(products).scatter(1, order, products.gather(1, order))
    assert torch.equal(made(x) != 0, (wanted.relu() if seed % 2 else wanted) != 0)
    torch.testing.assert_close(made(x), wanted.relu() if seed % 2 else wanted)
    if (fewer := made.without_silent(prepared := made.prepared(x))) is not None:
        compact = made.encoded(fewer.prepared, 0, fewer.count)
        assert torch.equal(compact[:, fewer.at], made.encoded(prepared, 0, latents))


def test_a_vector_with_a_nan_has_no_latent_that_is_a_number():
    x = vectors(3)
    x[1, 4] = torch.nan
    for made in (Rectified(weights()["W_enc"]), KLargest(weights()["W_enc"], 4)):
        assert made(x).isnan().all(1).tolist() == [False, True, False]


def config(**more: Any) -> dict[str, Any]:
    return {"d_in": WIDTH, "d_sae": LATENTS, "metadata": {"sae_lens_version": "6.2.0"}} | more


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "nothing there": (lambda at: at / "none", "there is no"),
    "an architecture to come": (
        lambda at: saelens(at, config(architecture="temporal")), "architecture 'temporal', which is not known"
    ),
    "an unknown normalization": (lambda at: saelens(at, config(normalize_activations="rms")), "'rms', which is not"),
    "heads of an attention": (lambda at: saelens(at, config(reshape_activations="hook_z")), "heads of an attention"),
    "no k": (lambda at: saelens(at, config(architecture="topk")), "no number for k"),
    "another width": (lambda at: saelens(at, config(d_in=WIDTH + 1)), "has the shape"),
    "a tensor more": (
        lambda at: saelens(at, config(), {**weights(), "skip": torch.zeros(3)}), "knows no use for: skip"
    ),
    "a tensor less": (lambda at: saelens(at, config(), {"W_enc": weights()["W_enc"]}), "no tensor 'W_dec'"),
    "no weights": (lambda at: (saelens(at, config()) / "sae_weights.safetensors").unlink() or at, "but no sae_weights"),
    "settings cut short": (lambda at: saelens(at, config(), cut=True), "no whole JSON"),
    "numbers that are none": (
        lambda at: saelens(at, config(), {**weights(), "b_enc": torch.full((LATENTS,), torch.nan)}), "no numbers"
    ),
    "a schema to come": (lambda at: saev(at / "x.pt", schema(6, "Relu")), "schema 6, which is not known"),
    "an activation to come": (lambda at: saev(at / "x.pt", schema(5, "Softmax")), "'Softmax', which is not known"),
    "a BatchTopK without its threshold": (lambda at: saev(at / "x.pt", schema(5, "BatchTopK")), "without its thresh"),
    "a whole module": (lambda at: pickled(at / "x.pt"), "never a pickle that runs code"),
    "two matrices": (lambda at: plain(at, {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}), "It should hold an encoder"),
    "whole numbers": (lambda at: plain(at, {"directions": torch.ones(2, 3, dtype=torch.int32)}), "not real numbers"),
    "no tensors": (lambda at: plain(at, {}), "has no tensors"),
    "a text": (lambda at: wrote(at / "x.json", b"[]"), "of no known kind"),
    "half a file": (lambda at: wrote(at / "x.safetensors", b"\x10\0\0\0"), "no whole file of tensors"),
}  # fmt: skip


def saelens(at: Path, said: dict[str, Any], tensors: Mapping[str, Tensor] | None = None, cut: bool = False) -> Path:
    save_file(dict(tensors or weights()), at / "sae_weights.safetensors")
    (at / "cfg.json").write_text(json.dumps(said)[: 20 if cut else None])
    return at


def plain(at: Path, tensors: dict[str, Tensor]) -> Path:
    save_file(tensors, at / "x.safetensors")
    return at / "x.safetensors"


def pickled(path: Path) -> Path:
    torch.save(nn.Linear(2, 2), path)
    return path


def wrote(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_known_is_refused_in_a_sentence(case, tmp_path):
    make, told = HOSTILE[case]
    with pytest.raises(UserError) as refused:
        read_dictionary(make(tmp_path))
    assert told in str(refused.value), refused.value
