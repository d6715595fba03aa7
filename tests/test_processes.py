"""Processes of our own: the same results in order, errors as they are, nobody left behind whatever happens to us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from actmine.pipeline.errors import UserError
from actmine.pipeline.processes import Process, Processes, end


def squared(number: int) -> tuple[int, int]:
    """What is called there: a square, and by whom."""
    print("what is printed is no answer")
    if number < 0:
        raise UserError(f"{number} is below zero.")
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return number * number, os.getpid()


def alive(process: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(processes: set[int], seconds: float = 10) -> bool:
    """Whether none of them is there any more, soon."""
    until = time.monotonic() + seconds
    while any(alive(each) for each in processes) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(alive(each) for each in processes)


@pytest.fixture
def two():
    processes = Processes(squared, 2)
    yield processes
    processes.close()


def test_results_come_in_order_from_processes_that_stay(two):
    found = list(two.map(range(12)))
    again = list(two.map(range(5)))
    assert [square for square, _ in found] == [number * number for number in range(12)]
    workers = {worker for _, worker in found}
    assert 1 <= len(workers) <= 2 and os.getpid() not in workers
    assert {worker for _, worker in again} <= workers


def test_an_error_is_raised_here_and_the_process_goes_on(two):
    with pytest.raises(UserError, match="-3 is below zero"):
        list(two.map([1, -3, 2]))
    assert [square for square, _ in two.map([4])] == [16]


def test_a_process_that_is_killed_is_a_sentence_and_not_a_short_list(two):
    with pytest.raises(UserError, match=r"exit status -9.*goes on where it stopped"):
        list(two.map([99]))
    assert [square for square, _ in two.map([3, 4])] == [9, 16]


def test_processes_end_with_what_began_them():
    processes = Processes(squared, 2)
    workers = {worker for _, worker in processes.map(range(4))}
    assert not gone(workers, 0)
    del processes
    assert gone(workers)


def test_a_function_that_is_not_there_is_an_error_here(monkeypatch):
    def elsewhere() -> None: ...

    elsewhere.__qualname__ = "not_there"
    monkeypatch.setattr(sys.modules[__name__], "not_there", elsewhere, raising=False)
    process = Process(elsewhere)
    with pytest.raises(AttributeError, match="not_there"):
        process.ready()
    end([process])


def test_several_items_wait_for_a_process_and_what_it_says_of_each_is_received_in_order():
    process = Process(squared)
    process.ready()
    for number in (2, -1, 4):
        process.send(number)
    assert process.receive()[0] == 4
    with pytest.raises(UserError, match="-1 is below zero"):
        process.receive()
    assert process.receive()[0] == 16
    process.kill()
    with pytest.raises(UserError, match="exit status -9"):
        process.receive()
    end([process])


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="asks /proc who is there")
def test_processes_end_when_we_are_killed():
    code = (
        "import time; from actmine.pipeline.processes import Processes; from tests.test_processes import squared\n"
        "one = Processes(squared, 1); print(next(one.map([2]))[1], flush=True); time.sleep(60)"
    )
    begun = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert begun.stdout is not None
    worker = int(begun.stdout.readline())
    assert alive(worker)
    begun.kill()
    begun.wait()
    assert gone({worker})
