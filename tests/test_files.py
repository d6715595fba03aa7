"""Files are whole or not there; leftovers of the dead go, those of the living stay; words of RUN are understood."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import actmine.pipeline.storage.locks
from actmine.pipeline.errors import Damaged, UserError
from actmine.pipeline.storage.files import alone, local_copy, remove_files, run_folder, write_bytes, written_aside
from actmine.pipeline.storage.tensors import read_tensors, write_tensors

SPAWN = multiprocessing.get_context("spawn")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def begin_and_wait(path: str, connection: Connection) -> None:
    """In a process of its own: writes half a file and then waits for its end."""
    with written_aside(Path(path)) as aside:
        aside.write_bytes(b"half")
        connection.send(aside.name)
        threading.Event().wait()


def hold_and_wait(run: str, connection: Connection) -> None:
    """In a process of its own: holds a run until it is killed."""
    with alone(Path(run), lambda sentence: None):
        connection.send("held")
        threading.Event().wait()


def other_process(target: object, place: Path) -> tuple[multiprocessing.process.BaseProcess, str]:
    """A process that has come to its waiting point, and what it said there."""
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=target, args=(str(place), theirs), daemon=True)  # type: ignore[arg-type]
    process.start()
    assert ours.poll(60)
    return process, ours.recv()


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "file"
    with written_aside(path) as aside:
        aside.write_bytes(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    with suppress(KeyError), written_aside(path) as aside:
        aside.write_bytes(b"ha")
        raise KeyError
    assert path.read_bytes() == b"whole" and names(path.parent) == ["file"]


def test_two_threads_write_one_file_and_one_of_them_wins_whole(tmp_path):
    path = tmp_path / "file"
    with written_aside(path) as one, written_aside(path) as other:
        assert one != other
        one.write_bytes(b"1" * 9)
        other.write_bytes(b"2" * 9)
    assert path.read_bytes() == b"1" * 9 and names(tmp_path) == ["file"]


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    dead, dead_part = other_process(begin_and_wait, tmp_path / "dead")
    living, living_part = other_process(begin_and_wait, tmp_path / "living")
    dead.kill()
    dead.join()
    assert {dead_part, living_part} <= set(names(tmp_path))
    write_bytes(tmp_path / "ours", b"1")
    assert names(tmp_path) == sorted([living_part, "ours"])
    living.kill()
    living.join()


def test_a_part_file_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    real, taken = actmine.pipeline.storage.locks._try, []

    def taken_once(file):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        return real(file)

    monkeypatch.setattr(actmine.pipeline.storage.locks, "_try", taken_once)
    write_bytes(tmp_path / "file", b"whole")
    assert taken and names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_will_do(number, tmp_path, monkeypatch):
    (tmp_path / ".other.1.part").write_bytes(b"perhaps of a living process")

    def without(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(actmine.pipeline.storage.locks.fcntl, "flock", without)
    write_bytes(tmp_path / "file", b"whole")
    with alone(tmp_path, print):
        assert (tmp_path / "file").read_bytes() == b"whole"
    assert (tmp_path / ".other.1.part").exists()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "No space left on device.*Free the disk or choose another RUN"),
        (errno.EDQUOT, "quota exceeded.*Free the disk or choose another RUN"),
        (errno.EROFS, "Read-only file system.*Make it writable or choose another RUN"),
        (errno.EIO, "error.*the same command then goes on"),
    ],
)
def test_a_disk_that_fails_is_one_sentence_with_the_fix(number, sentence, tmp_path):
    with pytest.raises(UserError, match=f"(?i){tmp_path / 'file'} cannot be written.*{sentence}"):  # noqa: SIM117
        with written_aside(tmp_path / "file"):
            raise OSError(number, os.strerror(number))
    assert not names(tmp_path)


def test_a_held_run_is_waited_for_until_its_holder_ends_however_it_ends(tmp_path):
    holder, _ = other_process(hold_and_wait, tmp_path)
    said: list[str] = []
    entered = threading.Event()

    def enter() -> None:
        with alone(tmp_path, said.append):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    while not said:
        waiting.join(0.01)
    assert "Another command is at work" in said[0] and not entered.is_set()
    holder.kill()
    waiting.join(60)
    assert entered.is_set()


def test_removing_what_is_not_there_is_fine_and_what_cannot_be_removed_is_said(tmp_path):
    write_bytes(tmp_path / "folder" / "file", b"1")
    remove_files([tmp_path / "folder", tmp_path / "nothing"])
    assert not names(tmp_path)
    if Path("/proc/self/status").exists():
        with pytest.raises(UserError, match="/proc/self/status cannot be deleted"):
            remove_files([Path("/proc/self/status")])


def test_the_words_of_run(tmp_path):
    assert run_folder("runs/a") == Path("runs/a") and run_folder(tmp_path) is tmp_path
    assert run_folder("C:odd") == Path("C:odd")
    for word in ("gs://bucket/run", "https://host/run", "file:///run", "hdfs://x/y", "s3a://bucket/run"):
        with pytest.raises(UserError, match=f"RUN={word} cannot hold a run.*not {word.split(':')[0]}:"):
            run_folder(word)
    for word in ("s3://", "s3://bucket", "s3://bucket/", "s3:/bucket/run", "s3://bucket/../run"):
        with pytest.raises(UserError, match="Write s3://bucket/prefix"):
            run_folder(word)


def test_a_local_file_is_its_own_copy(tmp_path):
    with local_copy(tmp_path / "file") as file:
        assert file == tmp_path / "file"


TENSORS = {
    "bytes": torch.arange(7, dtype=torch.uint8),
    "keys": torch.tensor([[2**62, -(2**62)], [0, -1]]),
    "empty": torch.zeros((0, 5), dtype=torch.int32),
    "sums": torch.tensor([0.1, torch.nan], dtype=torch.float64),
    "one": torch.tensor(3.5),
}


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].shape == wanted[name].shape and torch.equal(found[name].nan_to_num(), wanted[name].nan_to_num())
        for name in wanted
    )


def test_tensors_come_back_and_the_library_reads_them_too(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"of": "a test"})
    found, about = read_tensors(path)
    assert about == {"of": "a test"}
    for back in (found, load_file(path)):
        assert same(back, TENSORS)
    before = path.read_bytes()
    write_tensors(path, dict(reversed(TENSORS.items())), {"of": "a test"})
    assert path.read_bytes() == before


def test_every_damaged_byte_of_tensors_is_noticed(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found, _ = read_tensors(path)
        except Damaged:
            continue
        assert same(found, TENSORS), place
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            read_tensors(path)


def test_tensors_are_mapped_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.zeros(4)}, {})
    found, _ = read_tensors(path)
    path.unlink()
    found["a"] += 1
    assert found["a"].tolist() == [1, 1, 1, 1]
