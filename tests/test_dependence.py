"""What each kind of operation depends on, against perturbation on tiny networks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from actmine.pipeline.receptive_fields.dependence import following
from actmine.pipeline.receptive_fields.dependence_shadow import Shadow

HEIGHT, WIDTH = 12, 9


def shadow_and_truth(function: Callable[[Tensor], Tensor], channels: int = 4, draws: int = 6) -> tuple[Shadow, Tensor]:
    """The shadow of what `function` makes of an image, and bounds `[4, …]` from changing each row and column of it."""
    torch.manual_seed(0)
    image = torch.rand(1, channels, HEIGHT, WIDTH, dtype=torch.float64) + 0.5
    with following(image) as network:
        shadow = network.shadow_of(function(image.clone()))
    rows, columns = [], []
    with torch.no_grad():
        for dim, length, found in ((2, HEIGHT, rows), (3, WIDTH, columns)):
            for line in range(length):
                differs = torch.zeros(shadow.shape, dtype=torch.bool)
                for _ in range(draws):
                    before = torch.randn(image.shape, dtype=torch.float64)
                    after = before.clone()
                    after.select(dim, line).add_(torch.randn(()).sign() * 3 * torch.rand_like(before.select(dim, line)))
                    differs |= ~torch.isclose(function(before.clone()), function(after), rtol=1e-13, atol=0)
                found.append(differs)
    return shadow, torch.stack([*_ends(torch.stack(rows)), *_ends(torch.stack(columns))])


def _ends(differs: Tensor) -> tuple[Tensor, Tensor]:
    """First and minus one past the last along the first dimension; infinite where nothing differs."""
    length = len(differs)
    numbers = torch.arange(length).reshape(-1, *[1] * (differs.dim() - 1))
    first = torch.where(differs, numbers, torch.inf).amin(0)
    last = torch.where(differs, -numbers - 1, torch.inf).amin(0)
    return first, last


def assert_true(function: Callable[[Tensor], Tensor], channels: int = 4, exact: bool = True) -> Shadow:
    """The shadow holds what perturbation finds, and no more if `exact`."""
    shadow, truth = shadow_and_truth(function, channels)
    planes = torch.stack(list(shadow.planes))
    assert shadow.note is None
    assert bool((planes <= truth).all())
    if exact:
        assert torch.equal(planes, truth.float())
    return shadow


def seeded(module: nn.Module) -> nn.Module:
    """With random weights, in float64."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.requires_grad_(False).copy_(torch.rand(parameter.shape, generator=generator) - 0.4)
    return module.double().eval()


side = st.integers(1, 4)
pair = st.tuples(side, side)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pair, pair, st.tuples(st.integers(0, 3), st.integers(0, 3)), pair, st.sampled_from([1, 2, 4]))
def test_a_convolution_of_any_geometry(kernel, stride, padding, dilation, groups):
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(spans[0] <= HEIGHT + 2 * padding[0] and spans[1] <= WIDTH + 2 * padding[1])
    mixed = seeded(nn.Conv2d(4, 4, (3, 1), (1, 1), (1, 0), groups=4))
    convolution = seeded(nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups))
    assert_true(lambda x: convolution(torch.cat([mixed(x)[:, :1], x[:, 1:]], 1)))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(pair, pair, st.tuples(st.integers(0, 2), st.integers(0, 2)), pair, st.sampled_from([1, 2]))
def test_a_transposed_convolution_of_any_geometry(kernel, stride, padding, dilation, groups):
    sizes = [
        (n - 1) * s - 2 * p + d * (k - 1) + 1
        for n, s, p, d, k in zip((HEIGHT, WIDTH), stride, padding, dilation, kernel, strict=True)
    ]
    assume(min(sizes) > 0)
    module = seeded(nn.ConvTranspose2d(4, 4, kernel, stride, padding, groups=groups, dilation=dilation))
    assert_true(module)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pair, pair, pair, pair, st.booleans(), st.sampled_from(["max", "average"]))
def test_a_pooling_of_any_geometry(kernel, stride, padding, dilation, ceil_mode, kind):
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    dilation = dilation if kind == "max" else (1, 1)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(spans[0] <= HEIGHT + 2 * padding[0] and spans[1] <= WIDTH + 2 * padding[1])
    if kind == "max":
        pool: nn.Module = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    else:
        pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode)
    shadow, truth = shadow_and_truth(pool, 1, draws=40)
    assert bool((torch.stack(list(shadow.planes)) <= truth).all())
    if kind == "average":
        assert torch.equal(torch.stack(list(shadow.planes)), truth.float())


@pytest.mark.parametrize("size", [1, (3, 4), (5, 2), (12, 9), (7, 13)])
def test_an_adaptive_pooling_of_any_size(size):
    assert_true(nn.AdaptiveAvgPool2d(size), 2)
    assert_true(nn.AdaptiveMaxPool2d(size), 1, exact=False)


def written_in_part(x: Tensor) -> Tensor:
    y = x * 1.0
    y[:, :2, 2:5] = x[:, 2:, 5:8]
    y[:, 3].add_(x[:, 0].flip(1))
    return y


def written_into_a_constant(x: Tensor) -> Tensor:
    y = x.new_zeros(1, 4, HEIGHT + 2, WIDTH + 1)
    y[:, :, 1:-1, :-1] = x
    y[:, 0].zero_()
    return y


def written_behind_a_view(x: Tensor) -> Tensor:
    y = x + 0.0
    rows = y.view(4, HEIGHT, WIDTH)
    y.mul_(x.roll(1, 2))
    return rows * 2


def masked_attention(x: Tensor) -> Tensor:
    tokens = x[0].permute(1, 2, 0).reshape(HEIGHT * WIDTH, 4)[: 3 * WIDTH]
    scores = tokens @ tokens.T
    near = torch.arange(3 * WIDTH)
    mask = torch.where((near[:, None] - near[None]).abs() > 2, -100.0, 0.0)
    return (scores + mask).softmax(-1) @ tokens


def causal_attention(x: Tensor) -> Tensor:
    tokens = x[0].permute(1, 2, 0).reshape(1, 1, HEIGHT * WIDTH, 4)
    return functional.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)


EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda x: x.flip(2),
    "roll": lambda x: x.roll((2, -3), (2, 3)),
    "pad": lambda x: functional.pad(x, (1, 2, 0, 3)),
    "crop": lambda x: functional.pad(x, (-1, -2, 0, -3)),
    "reflection pad": lambda x: functional.pad(x, (2, 1, 3, 0), mode="reflect"),
    "replication pad": lambda x: functional.pad(x, (2, 1, 3, 0), mode="replicate"),
    "circular pad": lambda x: functional.pad(x, (2, 1, 3, 0), mode="circular"),
    "steps": lambda x: x[:, 1:3, ::2, 1::3],
    "picked": lambda x: x[:, :, torch.tensor([3, 1, 1, 7])],
    "gathered": lambda x: x.gather(2, torch.arange(WIDTH).repeat(1, 4, 1, 1)),
    "repeated": lambda x: x.repeat(1, 1, 2, 1),
    "interleaved": lambda x: x.repeat_interleave(2, 3),
    "shuffled pixels": lambda x: functional.pixel_shuffle(x, 2),
    "unshuffled pixels": lambda x: functional.pixel_unshuffle(x[:, :, :, :8], 2),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2.0),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=0.5, mode="bilinear"),
    "bicubic": lambda x: functional.interpolate(x, size=(5, 4), mode="bicubic"),
    "windows": lambda x: x.view(1, 4, 3, 4, 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(9, 12, 4),
    "unfolded": lambda x: functional.unfold(x, 3, padding=1),
    "folded": lambda x: functional.fold(functional.unfold(x, 3, padding=1), (HEIGHT, WIDTH), 3, padding=1),
    "stacked": lambda x: torch.stack([x, x.flip(3)], 2),
    "joined with constants": lambda x: torch.cat([x.new_ones(1, 1, HEIGHT, WIDTH), x], 1),
    "mean of rows": lambda x: x.mean(2),
    "variance": lambda x: x.var(3, keepdim=True),
    "norm": lambda x: x.norm(dim=1),
    "sum": lambda x: x.sum(),
    "largest": lambda x: x.logsumexp((2, 3)),
    "gated": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
    "softmax": lambda x: x.softmax(2),
    "layer norm": lambda x: functional.layer_norm(x, (WIDTH,)),
    "group norm": lambda x: functional.group_norm(x[:, :, :4], 2),
    "instance norm": lambda x: functional.instance_norm(x),
    "local response norm": lambda x: functional.local_response_norm(x, 3),
    "linear": lambda x: x @ torch.arange(1.0, WIDTH * 2 + 1, dtype=x.dtype).view(WIDTH, 2),
    "from the left": lambda x: torch.arange(1.0, HEIGHT * 2 + 1, dtype=x.dtype).view(2, HEIGHT) @ x,
    "product of two": lambda x: x[:, :2] @ x[:, 2:].mT,
    "einsum": lambda x: torch.einsum("bchw,bchv->bwv", x, x),
    "outer": lambda x: x.mean(2, keepdim=True) * x.mean(3, keepdim=True),
    "chosen": lambda x: torch.where(torch.arange(WIDTH) > 3, x, x.flip(2)),
    "filled": lambda x: x.masked_fill(torch.arange(WIDTH) > 3, 0.0),
    "lower triangle": lambda x: x.tril(),
    "hardswish in place": lambda x: functional.hardswish(x * 1.0, inplace=True),
    "glu": lambda x: functional.glu(x, 1),
    "weights from the image": lambda x: functional.conv2d(x[:, :2, :3, :3], x[:, 2:, -3:, -3:]),
    "written in part": written_in_part,
    "written into a constant": written_into_a_constant,
    "written behind a view": written_behind_a_view,
    "masked attention": masked_attention,
    "causal attention": causal_attention,
}


@pytest.mark.parametrize("name", EXACT)
def test_an_operation_sees_just_what_changes_it(name):
    assert_true(EXACT[name])


BOUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "cumulative sum": lambda x: x.cumsum(2),
    "sorted": lambda x: x.sort(2).values,
    "top": lambda x: x.topk(3, 3).values,
    "maximum of rows": lambda x: x.amax(2),
    "maximum with its place": lambda x: x.max(3).values,
}


@pytest.mark.parametrize("name", BOUNDED)
def test_an_operation_that_picks_may_see_all_it_picks_from(name):
    assert_true(BOUNDED[name], exact=False)


def test_a_recurrent_network_sees_the_steps_before_it_in_its_direction():
    lstm = seeded(nn.LSTM(8, 3, bidirectional=True, batch_first=True)).float()
    image = torch.rand(1, 2, HEIGHT, WIDTH)
    with following(image) as network:
        made = lstm(image.permute(0, 2, 1, 3).flatten(2)[:, :, :8])[0]
        top, bottom, _, _ = network.shadow_of(made).planes
    rows = torch.arange(HEIGHT)
    forth, back = made.shape[2] // 2 - 1, made.shape[2] - 1
    assert torch.equal(-bottom[0, :, forth], rows + 1.0) and not top[0, :, forth].any()
    assert torch.equal(top[0, :, back], rows + 0.0) and bool((bottom[0, :, back] == -HEIGHT).all())


@pytest.mark.parametrize(
    ("function", "note"),
    [
        (torch.linalg.inv, "linalg_inv_ex could not be followed"),
        (lambda x: x[:, :, x[0, 0, 0].argsort()[:3]], "index by numbers from the image could not be followed"),
        (lambda x: x * float(x.mean()), "a number taken from the image by _local_scalar_dense could not be followed"),
    ],
)
def test_what_cannot_be_followed_sees_everything_and_its_note_goes_on_to_what_it_makes(function, note):
    image = torch.rand(1, 3, HEIGHT, HEIGHT)
    with following(image) as network:
        shadow = network.shadow_of(torch.relu(function(image)[:, :1]) + 1)
    assert shadow.note == note
    assert [float(plane.max()) for plane in shadow.planes] == [0, -HEIGHT, 0, -HEIGHT]


def test_memory_that_is_used_again_is_not_mistaken_for_what_lay_there():
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    with following(image) as network:
        for _ in range(20):
            made = image.mean((2, 3))
            del made
            constant = torch.ones(1, 3) * 2
            assert bool(torch.isinf(network.shadow_of(constant).planes[0]).all())
            del constant
