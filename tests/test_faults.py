"""A run survives what machines do to it: kills, full and read-only disks, stops, damage, a twin of the same command."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import STAGES, Command, start
from tests.making import image_tar

pytestmark = pytest.mark.slow
SLOW = 0.03  # seconds by which each write is slower, so that a strike can fall into it
SOON = 20.0  # seconds; a stopped command takes well under one


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    for number in range(8):
        image_tar(root / f"{number}.tar", 10 + number)
    return root


def words(dataset: Path, run: Path, *more: str) -> list[str]:
    return [
        "mine", "--dataset", str(dataset), "--model", "demo", "--layers", "stem.*,block1.*,block2.*", "--topk", "6",
        "--workers", "1", "--device", "cpu", "--check-crops", "9", "--run", str(run), *more,
    ]  # fmt: skip


def finish(dataset: Path, run: Path, notes: Path, *more: str) -> Command:
    command = start(words(dataset, run, *more), notes)
    assert command.end() == 0, command.said
    return command


def tables(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing has disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(shards, run, run.parent / "notes")
    return run


def assert_as_if_nothing_had_been(run: Path, whole: Path) -> None:
    """The same tables and pictures, and nothing left over."""
    assert tables(run) == tables(whole)
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files == {str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()}
    assert sorted(path.name for path in (run / "state").iterdir()) == ["identity.json", "lock"]
    assert not [name for name in files if name.endswith(".part")]


def strike(command: Command, stage: str, number: int, random: random.Random) -> str | None:
    """Sends a signal some time after `stage` has begun; the stage it fell in, or None if the command had ended."""
    if not command.wait_for(stage):
        return None
    time.sleep(random.uniform(0, 0.15 if stage != "Start" else 0.5))
    os.kill(command.process.pid, number)
    return command.stage


def test_a_run_killed_over_and_over_in_every_stage_ends_with_the_same_bytes(shards, whole, tmp_path):
    dice, hit, parts = random.Random(1), Counter[str](), 0
    run = tmp_path / "run"
    for stage in [each for each in STAGES for _ in range(3 if each in ("Scanning", "Drawing") else 2)] * 2:
        if (run / "run.json").exists() and STAGES.index(stage) < STAGES.index("Finding units alike"):
            continue
        command = start(words(shards, run), tmp_path / "notes", SLOW)
        strike(command, stage, signal.SIGKILL, dice)
        if command.end() == -signal.SIGKILL:
            hit[command.stage] += 1
            parts += len(list(run.rglob(".*.part")))
    assert sum(hit.values()) >= 20 and set(hit) == set(STAGES), hit
    assert parts > 0
    finish(shards, run, tmp_path / "notes")
    assert_as_if_nothing_had_been(run, whole)


def test_a_run_killed_at_every_rename_ends_with_the_same_bytes(shards, whole, tmp_path):
    run, struck, hit, parts = tmp_path / "run", tmp_path / "struck", Counter[str](), 0
    while True:
        command = start(words(shards, run), tmp_path / "notes", struck=struck)
        if command.end() == 0:
            break
        assert command.process.exitcode == -signal.SIGKILL, command.said
        hit[command.stage] += 1
        parts += bool(list(run.rglob(".*.part")))
    lines = struck.read_text().splitlines()
    assert len(lines) == sum(hit.values()) > 100 and parts == sum(str(run) in line for line in lines)
    assert set(hit) == set(STAGES), hit
    assert_as_if_nothing_had_been(run, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_in_any_stage_is_quick_says_how_to_go_on_and_loses_nothing(number, shards, whole, tmp_path):
    dice, run = random.Random(2), tmp_path / "run"
    for stage in STAGES:
        command = start(words(shards, run), tmp_path / "notes", SLOW)
        strike(command, stage, number, dice)
        assert command.end(SOON) == 130, (stage, command.said)
        assert "interrupted. What was done is kept: the same command goes on from there." in command.said
        assert "Traceback" not in command.said
    finish(shards, run, tmp_path / "notes")
    assert_as_if_nothing_had_been(run, whole)


def await_file(command: Command, folder: Path, pattern: str) -> None:
    """Waits until a command under way has made a file; fails if it ends before."""
    command.wait_until(lambda: any(folder.glob(pattern)))
    assert list(folder.glob(pattern)), command.said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_stop_while_a_read_hangs_is_quick(number, shards, tmp_path):
    shutil.copytree(shards, tmp_path / "shards")
    os.mkfifo(tmp_path / "hanging")  # opening it waits for a writer that never comes
    command = start(words(tmp_path / "shards", tmp_path / "run"), tmp_path / "notes")
    await_file(command, tmp_path / "run" / "state", "identity.json")  # the shards have been found
    (tmp_path / "hanging").replace(tmp_path / "shards" / "5.tar")
    assert command.wait_for("Scanning"), command.said
    time.sleep(1.0)  # it is far ahead of the network by now, and waits
    assert command.stage == "Scanning" and command.process.is_alive(), command.said
    os.kill(command.process.pid, number)
    assert command.end(SOON) == 130 and "the same command goes on" in command.said


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of our own, at first of 32 KiB; gone afterwards whatever happens."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root, to mount a small disk")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


def test_a_disk_that_fills_up_in_any_stage_is_one_sentence_and_more_room_is_enough(disk, shards, whole, tmp_path):
    run, full = disk / "run", Counter[str]()

    def fill(size: int, *further: str) -> None:
        while True:
            command = start(words(shards, run, *further), tmp_path / "notes")
            if command.end() == 0:
                break
            full[command.stage] += 1
            assert command.process.exitcode == 1, (command.stage, command.said)
            assert "No space left on device" in command.said and "Free the disk" in command.said, command.said
            assert "Traceback" not in command.said, command.said
            assert sum("error:" in line for line in command.said.splitlines()) == 1, command.said
            assert not list(run.rglob(".*.part"))
            size = round(size * 1.25)
            remount(disk, f"size={size}k")

    fill(32, "--no-visualize", "--no-sheets")
    left = shutil.disk_usage(disk).used // 1024 + 8  # what the scan kept meanwhile was more than all that follows needs
    remount(disk, f"size={left}k")
    fill(left)
    assert {"Scanning", "Drawing"} <= set(full) and {"overviews", "sheets"} & set(full), full
    assert {"Keeping pictures", "Writing tables"} & set(full), full
    assert_as_if_nothing_had_been(run, whole)


def test_a_read_only_disk_is_one_sentence_and_what_lies_there_can_be_used(disk, shards, whole, tmp_path):
    remount(disk, "size=64m")
    shutil.copytree(whole, disk / "run")
    remount(disk, "ro")
    refused = start(words(shards, disk / "other"), tmp_path / "notes")
    assert refused.end() == 1
    assert "Read-only file system" in refused.said and "choose another RUN" in refused.said
    again = start(words(shards, disk / "run", "--no-sheets"), tmp_path / "notes")
    assert again.end() == 0 and "already mined" in again.said, again.said
    sheets = start(["sheets", "--run", str(disk / "run")], tmp_path / "notes")
    assert sheets.end() == 1 and "Read-only file system" in sheets.said and "Traceback" not in sheets.said


def test_two_commands_on_one_run_end_with_the_right_tables(shards, whole, tmp_path):
    run = tmp_path / "run"
    twins = [start(words(shards, run), tmp_path / f"notes-{number}", SLOW / 3) for number in range(2)]
    assert [twin.end() for twin in twins] == [0, 0], [twin.said for twin in twins]
    assert any("Another command is at work" in twin.said for twin in twins)
    assert_as_if_nothing_had_been(run, whole)


def test_the_twin_of_a_killed_command_takes_over(shards, whole, tmp_path):
    run = tmp_path / "run"
    first = start(words(shards, run), tmp_path / "first", SLOW)
    assert first.wait_for("Scanning")
    second = start(words(shards, run), tmp_path / "second")
    second.wait_until(lambda: "Another command is at work" in second.said)
    first.process.kill()
    assert second.end() == 0
    assert_as_if_nothing_had_been(run, whole)


def test_other_settings_at_the_same_time_are_refused(shards, whole, tmp_path):
    run = tmp_path / "run"
    first = start(words(shards, run), tmp_path / "first", SLOW)
    assert first.wait_for("Scanning")
    second = start([*words(shards, run), "--topk", "7"], tmp_path / "second")
    assert second.end() == 1 and "topk was 6, now 7" in second.said
    assert first.end() == 0
    assert_as_if_nothing_had_been(run, whole)


@pytest.mark.parametrize(
    ("stage", "pattern"), [("Merging", "block-*"), ("Writing tables", "pictures-*"), ("Drawing", "ascent-*/[!.]*")]
)
def test_a_damaged_state_file_is_made_anew(stage, pattern, shards, whole, tmp_path):
    run = tmp_path / "run"
    command = start(words(shards, run), tmp_path / "notes", SLOW)
    assert command.wait_for(stage)
    await_file(command, run / "state", pattern)
    command.process.kill()
    command.end()
    damaged = sorted((run / "state").glob(pattern))[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    finish(shards, run, tmp_path / "notes")
    assert_as_if_nothing_had_been(run, whole)


def test_a_run_of_a_newer_version_is_refused_and_left_alone(shards, tmp_path):
    identity = tmp_path / "run" / "state" / "identity.json"
    identity.parent.mkdir(parents=True)
    identity.write_text(json.dumps({"state_version": 99}))
    command = start(words(shards, tmp_path / "run"), tmp_path / "notes")
    assert command.end() == 1 and "begun by a newer version of actmine" in command.said
    assert json.loads(identity.read_text()) == {"state_version": 99}
    assert [path.name for path in (tmp_path / "run").rglob("*")] == ["state", "identity.json"]
