"""A network is another one if it computes something else of the same weights: it is not mixed with what was mined."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from actmine.pipeline.datasets.sources import find_dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.mined_network import mined_network
from actmine.pipeline.network.computation import alike, digest, probe
from actmine.pipeline.network.layers import Traced
from actmine.pipeline.network.models import Network, load_network
from actmine.pipeline.readings.statistics_options import StatisticsOptions
from actmine.pipeline.run import open_run
from actmine.pipeline.scanning.ledger import Ledger
from actmine.pipeline.stages.mine import MineSettings, mine
from tests.making import SMALL, jpeg, write_folder, write_tar

SHAPE = (3, 16, 16)
CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.first(x)
        {branch}x = torch.relu({sign}x)
        return self.second(x)
"""
TRACED, UNTRACED = "", "if x.sum() != 12345: "


def code(folder: Path, branch: str, sign: str, comment: str = "") -> nn.Module:
    """The network of a module of one's own, as a new process finds it."""
    (folder / "made_anew.py").write_text(CODE.format(branch=branch, sign=sign) + comment)
    sys.modules.pop("made_anew", None)
    importlib.invalidate_caches()
    torch.manual_seed(0)
    return importlib.import_module("made_anew").Net().eval()  # type: ignore[no-any-return]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("branch", [TRACED, UNTRACED], ids=["traced", "by its modules"])
def test_other_code_is_another_computation_and_a_comment_is_not(folder, branch):
    plain = digest(Traced(code(folder, branch, ""), SHAPE))
    assert digest(Traced(code(folder, branch, "", "# that was it"), SHAPE)) == plain
    assert digest(Traced(code(folder, branch, "-"), SHAPE)) != plain


def test_constants_and_settings_count():
    class Scaled(nn.Module):
        def __init__(self, scale: float, shift: torch.Tensor) -> None:
            super().__init__()
            self.convolution, self.scale, self.shift = nn.Conv2d(3, 4, 3), scale, shift

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(self.convolution(x) * self.scale + self.shift)

    one, two = torch.ones(1), torch.tensor([2.0])
    made = [digest(Traced(Scaled(*words).eval(), SHAPE)) for words in ((1.0, one), (1.5, one), (1.0, two), (1.0, one))]
    assert made[0] == made[3] and len(set(made)) == 3


def test_a_probe_is_the_same_up_to_rounding_and_none_where_chance_has_a_say():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)).eval()
    wanted = probe(plain, SHAPE)
    assert wanted and probe(plain, SHAPE) == wanted
    assert alike(wanted, [value * (1 + 1e-5) for value in wanted])
    assert not alike(wanted, [-value for value in wanted]) and not alike(wanted, wanted[1:])
    by_chance, small = nn.Sequential(plain, nn.Dropout().train()), nn.Linear(5, 5)
    state = torch.random.get_rng_state()
    assert probe(by_chance, SHAPE) is None and probe(small, SHAPE) is None
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("branch", [TRACED, UNTRACED], ids=["traced", "by its modules"])
def test_a_run_under_way_is_not_gone_on_with_by_another_computation(folder, branch, monkeypatch):
    """Killed after one of three blocks, then `forward` is edited: the same command is refused."""
    for number in range(3):
        write_tar(folder / "in" / f"{number}.tar", [(f"{number}{n}.jpg", jpeg(5 * number + n)) for n in range(3)])

    def command(sign: str) -> None:
        network = Network("net", code(folder, branch, sign), SMALL, "random", "the same")
        traced = Traced(network.module, network.input_shape)
        cpu, settings = torch.device("cpu"), MineSettings(StatisticsOptions(3), workers=1)
        mine(find_dataset("in"), network, traced, traced.choose(""), folder / "run", cpu, settings)

    commit = Ledger.commit

    def committed_once(self: Ledger, state: object) -> None:
        if state.block:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        commit(self, state)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "commit", committed_once)
        with pytest.raises(KeyboardInterrupt):
            command("")
    assert len(list((folder / "run" / "state").glob("block-*"))) == 1
    with pytest.raises(UserError, match=r"begun with other settings: computes was"):
        command("-")
    command("")
    with pytest.raises(UserError, match=r"begun with other settings: computes was"):
        command("-")


def test_a_finished_run_is_not_added_to_by_another_computation(folder):
    write_folder(folder / "in", {f"{n}.jpg": jpeg(n) for n in range(3)})
    code(folder, TRACED, "")
    network = load_network("made_anew:Net")
    traced = Traced(network.module, network.input_shape)
    mine(find_dataset("in"), network, traced, traced.choose(""), folder / "run", torch.device("cpu"),
         MineSettings(StatisticsOptions(3), workers=1))  # fmt: skip
    assert mined_network(open_run("run")).weights_hash == network.weights_hash
    code(folder, TRACED, "-")
    with pytest.raises(UserError, match=r"made_anew:Net computes something else"):
        mined_network(open_run("run"))
