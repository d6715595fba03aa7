"""Damage of every kind to a tar, at seeded places; and which parts of a tar lie where, by Python's tarfile."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

BLOCK = tarfile.BLOCKSIZE


def _flip(data: bytearray, random: np.random.Generator, count: int) -> bytearray:
    for place in random.integers(0, len(data), count):
        data[place] ^= int(random.integers(1, 256))
    return data


def _burst(data: bytearray, random: np.random.Generator, zeros: bool) -> bytearray:
    start, length = int(random.integers(0, len(data))), int(random.integers(2, 1200))
    length = min(length, len(data) - start)
    data[start : start + length] = bytes(length) if zeros else random.bytes(length)
    return data


def _two_blocks(data: bytearray, random: np.random.Generator) -> tuple[int, int]:
    one, other = random.choice(len(data) // BLOCK, 2, replace=False) * BLOCK
    return int(one), int(other)


def _swapped(data: bytearray, random: np.random.Generator) -> bytearray:
    one, other = _two_blocks(data, random)
    data[one : one + BLOCK], data[other : other + BLOCK] = data[other : other + BLOCK], data[one : one + BLOCK]
    return data


def _doubled(data: bytearray, random: np.random.Generator) -> bytearray:
    one, other = _two_blocks(data, random)
    return data[:other] + data[one : one + BLOCK] + data[other:]


def _written_over(data: bytearray, random: np.random.Generator) -> bytearray:
    one, other = _two_blocks(data, random)
    data[other : other + BLOCK] = data[one : one + BLOCK]
    return data


def _deleted(data: bytearray, random: np.random.Generator) -> bytearray:
    one, _ = _two_blocks(data, random)
    return data[:one] + data[one + BLOCK :]


def _repeated(data: bytearray, random: np.random.Generator) -> bytearray:
    one, _ = _two_blocks(data, random)
    return data[: one + BLOCK] + data[one:]


def _taken_out(data: bytearray, random: np.random.Generator) -> bytearray:
    start, length = int(random.integers(0, len(data))), int(random.integers(1, 2000))
    return data[:start] + data[start + length :]


KINDS: dict[str, Callable[[bytearray, np.random.Generator], bytearray]] = {
    "one byte": lambda data, random: _flip(data, random, 1),
    "some bytes": lambda data, random: _flip(data, random, int(random.integers(2, 9))),
    "many bytes": lambda data, random: _flip(data, random, 60),
    "a burst": lambda data, random: _burst(data, random, zeros=False),
    "zeros": lambda data, random: _burst(data, random, zeros=True),
    "the end cut off": lambda data, random: data[: int(random.integers(0, len(data)))],
    "bytes taken out": _taken_out,
    "two blocks swapped": _swapped,
    "a block doubled elsewhere": _doubled,
    "a block doubled in place": _repeated,
    "a block over another": _written_over,
    "a block deleted": _deleted,
}


def damaged(data: bytes, trials: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`trials` damaged copies, of every kind in turn, none of them equal to `data`."""
    random = np.random.default_rng(seed)
    for number in range(trials):
        kind = list(KINDS)[number % len(KINDS)]
        copy = bytes(KINDS[kind](bytearray(data), random))
        if copy != data:
            yield kind, copy


def header_blocks(path: Path) -> tuple[list[int], list[int]]:
    """Where the headers of a whole tar begin, those of extended ones too; and where the contents of those lie."""
    headers, contents = [], []
    with tarfile.open(path) as tar:
        for info in tar:
            own = info.offset_data - BLOCK
            headers.append(own)
            if info.offset != own:
                headers.append(info.offset)
                contents += list(range(info.offset + BLOCK, own, BLOCK))
    return headers, contents


def has_right_sum(block: bytes) -> bool:
    """Whether a header's checksum is right: a sum of its bytes, or of signed ones, as some old tars have it."""
    covered = block[:148] + b" " * 8 + block[156:]
    sums = {sum(covered), sum(byte - 256 * (byte > 127) for byte in covered)}
    try:
        return int(block[148:156].split(b"\0")[0].strip() or b"0", 8) in sums
    except ValueError:
        return False
