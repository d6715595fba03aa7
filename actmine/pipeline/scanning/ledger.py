"""The ledger of a run: which work is done, under which settings; commits are atomic and idempotent."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from actmine.pipeline.errors import Damaged, UserError, first_line
from actmine.pipeline.readings.accumulators import ACCUMULATORS
from actmine.pipeline.readings.maxima import Maxima, Stored, store, sum_of
from actmine.pipeline.scanning.scan import BlockState
from actmine.pipeline.storage.files import is_local, local_copy, remove_files, write_bytes, written_aside
from actmine.pipeline.storage.fingerprint import canonical, fingerprint
from actmine.pipeline.storage.tensors import read_tensors, write_tensors

STATE_VERSION = 5
_TABLES = ("members", "shards", "skipped", "names")


class StateLost(UserError):
    """The state of a block is damaged or gone: says which file, and what becomes of it."""

    def __init__(self, what: str, block: int = -1) -> None:
        super().__init__(f"{what} The same command scans its block again.")
        self.block = block


class Ledger:
    """The folder `state` of a run. `identity` is everything that the result of the scan depends on.

    Raises `UserError` if the run was begun with another identity, naming what differs.
    """

    def __init__(self, run: Path, identity: dict[str, Any]) -> None:
        self.folder = run / "state"
        self.identity = identity | {"state_version": STATE_VERSION}
        self.fingerprint = fingerprint(self.identity)
        self.contents: dict[int, str] = {}
        """What tells the files of each block from others of the same names and sizes; a state is of those alone."""
        begun = self.folder / "identity.json"
        before = _identity(begun)
        if before is None:
            write_bytes(begun, canonical(self.identity))
        else:
            _refuse_other(run, before, json.loads(canonical(self.identity)))

    def missing(self, blocks: Iterable[int]) -> list[int]:
        """The blocks that have no committed state yet."""
        there = {path.name for path in self.folder.glob("block-*")}
        return [block for block in blocks if self._path(block).name not in there]

    def commit(self, state: BlockState) -> None:
        """Writes the state of a block: whole or not at all, and the same bytes however often."""
        about = {"fingerprint": self.fingerprint}
        tensors = {
            f"{name}.{part}": tensor.cpu().contiguous()
            for name, accumulator in state.accumulators.items()
            for part, tensor in accumulator.state().items()
        }
        for name in _TABLES:
            tensors[f"table.{name}"] = _to_tensor(getattr(state, name))
        if isinstance(state.maxima, Maxima):
            about["maxima"] = store(self._maxima(state.block), state.maxima.values)  # first: the state says its sum
            tensors["maxima.numbers"] = torch.from_numpy(state.maxima.numbers.copy())
            tensors["maxima.labels"] = torch.from_numpy(state.maxima.labels.copy())
        with written_aside(self._path(state.block)) as aside:
            write_tensors(aside, tensors, about)

    def load(self, block: int) -> BlockState:
        """A committed state again, mapped into memory. Raises `StateLost` if a file of it is damaged or gone."""
        path = self._path(block)
        try:
            with local_copy(path) as file:
                tensors, about = read_tensors(file)
            if about.get("fingerprint") != self.fingerprint:
                raise Damaged("it is that of another run")
            tables = {name: _to_table(tensors.pop(f"table.{name}")) for name in _TABLES}
            accumulators = {
                name: kind.from_state(part) for name, kind in ACCUMULATORS.items() if (part := _below(name, tensors))
            }
            maxima, kept = None, _below("maxima", tensors)
            if kept:
                path = self._maxima(block)
                if is_local(path) and sum_of(path) != about.get("maxima"):  # S3's store keeps sums itself
                    raise Damaged("its checksum is another")
                maxima = Stored(path, kept["numbers"].numpy(), kept["labels"].numpy(), about.get("maxima", ""))
        except FileNotFoundError as error:
            raise StateLost(f"The state file {path} has gone.", block) from error
        except (Damaged, KeyError, OSError, pa.ArrowException) as error:
            raise StateLost(f"The state file {path} is damaged ({first_line(error)}).", block) from error
        return BlockState(block, accumulators, **tables, maxima=maxima)

    def forget(self, block: int) -> None:
        """Removes the state of a block, which is scanned again then."""
        remove_files([self._path(block)])

    def clear(self, pattern: str) -> None:
        """Removes state that the finished tables made needless; `identity.json` stays."""
        remove_files(self.folder.glob(pattern))

    def _maxima(self, block: int) -> Path:
        """Of a block: in the run where they are to stay, else with its state."""
        if self.identity.get("maxima") in ("float16", "float32"):
            return self.folder.parent / "maxima" / f"block-{block:06d}.npy"
        return self.folder / f"maxima-{block:06d}-{self.fingerprint}.npy"

    @property
    def scanned(self) -> str:
        """What names the state that follows from the whole scan: the settings, and the files of all blocks."""
        return self._named(self.contents)

    def _named(self, contents: object) -> str:
        return fingerprint({"identity": self.fingerprint, "contents": contents}) if contents else self.fingerprint

    def _path(self, block: int) -> Path:
        return self.folder / f"block-{block:06d}-{self._named(self.contents.get(block))}.safetensors"


def begun(run: Path) -> dict[str, Any] | None:
    """The identity that a run was begun with; None where none was. Raises `UserError` if it cannot be read."""
    return _identity(run / "state" / "identity.json")


def _identity(path: Path) -> dict[str, Any] | None:
    """What a run was begun with; None where none was begun."""
    try:
        before = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            return None  # writing says so, with the advice that fits
        raise UserError(
            f"{path} cannot be read ({first_line(error)}). Choose another RUN, or delete its folder."
        ) from error
    if not isinstance(before, dict):
        raise UserError(f"{path} is not the identity of a run. Choose another RUN, or delete its folder.")
    return before


def _refuse_other(run: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    theirs = before.get("state_version")
    if theirs != STATE_VERSION:
        other = "a newer" if isinstance(theirs, int) and theirs > STATE_VERSION else "an older"
        raise UserError(
            f"{run} was begun by {other} version of actmine, whose state this one cannot read. "
            "Go on with that version, choose another RUN, or delete that folder."
        )
    differing = [key for key in sorted(before | now) if before.get(key) != now.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}" for key in differing)
        raise UserError(f"{run} was begun with other settings: {changes}. Choose another RUN, or delete that folder.")


def _short(value: Any, most: int = 80) -> str:
    text = json.dumps(value)
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 4 :]}"


def _below(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _to_tensor(rows: pa.Table) -> Tensor:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return torch.frombuffer(bytearray(sink.getvalue()), dtype=torch.uint8)


def _to_table(data: Tensor) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(data.numpy())).read_all()
