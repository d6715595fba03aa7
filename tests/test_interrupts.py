"""Signals are held back where an exception would end the process, and are raised right behind it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actmine.pipeline.interrupts import held_back


@pytest.fixture
def handlers() -> Iterator[list[int]]:
    """Numbers of the signals whose handlers were called."""
    called: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: called.append(number))
    yield called
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_handler_is_called_at_the_end_of_the_outermost_block_and_again_as_ever_after_it(number, handlers):
    with held_back():
        with held_back():
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        assert handlers == []
    assert handlers == [number]
    os.kill(os.getpid(), number)
    assert handlers == [number] * 2


def test_ctrl_c_is_raised_behind_the_block_and_one_that_is_ignored_stays_so(handlers):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def stopped() -> None:
        with held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            done.append(True)

    done: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert done and signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_in_another_thread_nothing_is_held_back(handlers):
    def work() -> None:
        with held_back():
            inside.append(signal.getsignal(signal.SIGINT))

    inside, before = [], signal.getsignal(signal.SIGINT)
    other = threading.Thread(target=work)
    other.start()
    other.join()
    assert inside == [before]


STRUCK = """
import itertools, signal
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from actmine.pipeline.network.shapes import tensor_shapes

signal.signal(signal.SIGINT, signal.default_int_handler)
network = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten()).eval())
enter, exit, calls = FakeTensorMode.__enter__, FakeTensorMode.__exit__, itertools.count()


def strike():
    if next(calls) == number:
        signal.raise_signal(signal.SIGINT)


def entered(mode):
    found = enter(mode)
    strike()
    return found


def left(mode, *problem):
    strike()
    return exit(mode, *problem)


FakeTensorMode.__enter__, FakeTensorMode.__exit__ = entered, left
for number in itertools.count():
    calls = itertools.count()
    try:
        tensor_shapes(network, (3, 8, 8))
        break
    except KeyboardInterrupt:
        print(number, flush=True)
"""


def test_a_stop_while_shapes_are_followed_does_not_end_the_process_in_pytorch():
    ran = subprocess.run(
        [sys.executable, "-c", STRUCK], cwd=Path(__file__).parent.parent, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert len(ran.stdout.split()) > 10
