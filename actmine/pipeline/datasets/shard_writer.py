"""Any dataset to WebDataset shards with the original bytes: in its order, resumable, each with an index beside it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from actmine.pipeline.datasets.batches import map_in_order
from actmine.pipeline.datasets.range_requests import public
from actmine.pipeline.datasets.shard_file import ShardFile
from actmine.pipeline.datasets.shard_index import index_name, read_note
from actmine.pipeline.datasets.shards import Rejected, Sample, Shard
from actmine.pipeline.datasets.sources import Dataset
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent
from actmine.pipeline.storage.files import is_local, run_folder, write_bytes
from actmine.pipeline.storage.parquet import write_rows
from actmine.schemas.shard_index import SOURCE_SKIPPED

ACCOUNT = "shards.json"
FORMAT = 1
WORKERS = 8
"""Threads that read and that finish shards: what they wait for is disks and networks."""
_GROUPS_A_PIECE = 32


@dataclass(frozen=True, slots=True)
class Written:
    """What came of it: how many shards, images in them, samples left out, and images whose key had to change."""

    folder: Path
    shards: int
    samples: int
    skipped: int
    renamed: int


def out_folder(word: str) -> Path:
    """The folder that OUT means: of this machine, or `s3://bucket/folder`. Raises `UserError` for anything else."""
    if not word.strip():
        raise UserError("OUT is empty: say where the shards go, OUT=shards/photos or OUT=s3://bucket/photos.")
    scheme, mark, rest = word.partition("://")
    if mark and (scheme.lower() != "s3" or "/" not in rest.strip("/")):
        raise UserError(f"OUT={public(word)} can hold no shards: say a folder, or s3://bucket/folder.")
    return run_folder(word)


def write_shards(
    dataset: Dataset,
    out: Path,
    samples_per_shard: int = 1000,
    name: str = "",
    workers: int = 0,
    progress: Progress = Silent(),
) -> Written:
    """Writes `out/NAME-000000.tar` and so on, `samples_per_shard` images each, with `.cls` and `.json` where labelled.

    Images keep their order and their bytes; each shard is read back before it counts, and gets an index. Shards that
    an earlier, interrupted call has finished are kept. What could not be read is a row of `out/skipped.parquet`.
    Other files of a sample (captions, masks) stay behind. `workers` threads (0: eight) change nothing but the time.

    Raises `UserError` where `out` was begun with another source or size, or holds other tars; `ShardError` for a
    source that cannot be read to its end.
    """
    name = name or dataset.name
    _refuse_inside(dataset, out)
    begun = {
        "format": FORMAT, "source": dataset.name, "source_fingerprint": dataset.fingerprint,
        "samples_per_shard": samples_per_shard, "name": name,
    }  # fmt: skip
    account = _begin(out, begun)
    done = _Writing(dataset, out, samples_per_shard, name, progress)
    done.keep_finished()
    if account.get("finished") and account["shards"] == done.shards and (out / "skipped.parquet").is_file():
        progress.say(f"{out} is already written.")
        return Written(out, *(account[word] for word in ("shards", "samples", "skipped", "renamed")))
    with _threads(workers or WORKERS) as readers, _threads(workers or WORKERS) as finishers:
        done.go(readers, finishers, workers or WORKERS)
    write_rows(out / "skipped.parquet", SOURCE_SKIPPED, done.skipped)
    if not done.samples:
        raise UserError(f"No image of {dataset.name} could be read; see {out / 'skipped.parquet'}.")
    counts = {
        "shards": done.shards, "samples": done.samples, "skipped": len(done.skipped), "renamed": done.renamed,
    }  # fmt: skip
    _write_account(out, begun | counts | {"finished": True})
    return Written(out, *counts.values())


class _Writing:
    """One writing under way: the shards so far, and what was left out since the last one began."""

    def __init__(self, dataset: Dataset, out: Path, samples_per_shard: int, name: str, progress: Progress) -> None:
        self.dataset, self.out, self.most, self.name, self.progress = dataset, out, samples_per_shard, name, progress
        self.words = _words(dataset)
        self.shards = self.samples = self.renamed = 0
        self.skipped: list[dict[str, object]] = []
        self.told = 0  # rows of `skipped` that are written down beside a shard
        self.next = (0, 0)  # shard of the source and position in it

    def go(self, readers: ThreadPoolExecutor, finishers: ThreadPoolExecutor, workers: int) -> None:
        """All shards that are not there yet, one after the other; up to `workers` are being finished meanwhile."""
        if self.shards:
            self.progress.say(f"Going on: {self.shards} shards are done.")
        finishing: deque[Future[None]] = deque()
        before = self.samples + len(self.skipped)
        current: ShardFile | None = None
        with self.progress.stage("Writing shards", self.dataset.samples, "images", before) as advance:
            try:
                for shard, sample in self._source(readers, workers):
                    if isinstance(sample, Rejected):
                        self._skip(shard, sample)
                    else:
                        current = current or ShardFile(self._path(self.shards))
                        current.add(sample, self._word(sample), shard.number)
                    self.next = (shard.number, sample.position + 1)
                    if current is not None and len(current) == self.most:
                        finishing.append(self._finish(current, finishers))
                        current = None
                    if len(finishing) >= workers:
                        finishing.popleft().result()
                    advance(1, note=f"{len(self.skipped)} skipped" if self.skipped else "")
                if current is not None:
                    finishing.append(self._finish(current, finishers))
                    current = None
                while finishing:
                    finishing.popleft().result()
            finally:
                if current is not None:
                    current.abandon()

    def _finish(self, file: ShardFile, finishers: ThreadPoolExecutor) -> Future[None]:
        note = {"next": self.next, "renamed": file.renamed, "skipped": self.skipped[self.told :]}
        self.told = len(self.skipped)
        self.shards += 1
        self.samples += len(file)
        self.renamed += file.renamed
        return finishers.submit(file.finish, note)

    def keep_finished(self) -> None:
        """Takes over the shards that an earlier call has finished, up to the first that is not whole."""
        while note := self._finished(self._path(self.shards)):
            self.shards += 1
            self.samples += note["samples"]
            self.renamed += note["renamed"]
            self.skipped += note["skipped"]
            self.next = (note["next"][0], note["next"][1])
        self.told = len(self.skipped)

    def _finished(self, path: Path) -> dict[str, Any]:
        """What is noted of a shard that is whole; nothing where it is not."""
        index = path.with_name(index_name(path.name))
        if not (path.is_file() and index.is_file()):
            return {}
        note = read_note(index)
        return {} if is_local(path) and note and path.stat().st_size != note["nbytes"] else note

    def _source(self, readers: ThreadPoolExecutor, workers: int) -> Iterator[tuple[Shard, Sample | Rejected]]:
        """Every sample that is not written yet, with its shard."""
        first, position = self.next
        for shard in self.dataset.shards[first:]:
            samples = _read(shard, readers, workers)
            for sample in samples:
                if shard.number > first or sample.position >= position:
                    yield shard, sample

    def _skip(self, shard: Shard, lost: Rejected) -> None:
        row = {
            "shard": shard.number, "url": shard.url, "position": lost.position, "key": lost.key, "error": lost.error,
        }  # fmt: skip
        self.skipped.append(dict(row))

    def _word(self, sample: Sample) -> str | None:
        if sample.label_name is not None or sample.label is None:
            return sample.label_name
        return self.words[sample.label] if 0 <= sample.label < len(self.words) else None

    def _path(self, number: int) -> Path:
        return self.out / f"{self.name}-{number:06d}.tar"


def _read(shard: Shard, readers: ThreadPoolExecutor, workers: int) -> Iterator[Sample | Rejected]:
    """The samples of a shard, its pieces read by several threads."""
    pieces = shard.pieces()
    if len(pieces) == 1:
        yield from shard.samples()
        return
    position = count()
    for samples in map_in_order(lambda piece: list(piece.samples()), pieces, readers, 2 * workers):
        for sample in samples:
            yield replace(sample, position=next(position))


def _words(dataset: Dataset) -> tuple[str, ...]:
    """The labels in words; ImageNet's synsets as torchvision's networks name them."""
    from torchvision.models import ResNet18_Weights

    return dataset.label_words(ResNet18_Weights.DEFAULT.meta["categories"]) or ()


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads are waited for, but not after an interruption: one may sit in a long upload."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="shards")
    try:
        yield pool
    except BaseException as error:
        pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
        raise
    pool.shutdown()


# the account of a folder of shards


def _begin(out: Path, begun: dict[str, Any]) -> dict[str, Any]:
    """The account of `out`, written if there is none yet."""
    path = out / ACCOUNT
    if path.is_file():
        try:
            account = json.loads(path.read_bytes())
            different = [word for word in begun if account.get(word) != begun[word]]
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}). Choose another OUT, or delete that folder.") from error
        if different:
            changes = "; ".join(f"{word} was {account.get(word)}, now {begun[word]}" for word in different)
            raise UserError(f"{out} was begun differently: {changes}. Choose another OUT, or delete that folder.")
        return dict(account)
    strange = next(iter(out.glob("*.tar")), None) if out.is_dir() else None
    if strange is not None:
        raise UserError(f"{out} holds tars of another origin ({strange.name}). Choose another OUT.")
    _write_account(out, begun)
    return begun


def _write_account(out: Path, account: dict[str, Any]) -> None:
    write_bytes(out / ACCOUNT, json.dumps(account, indent=1).encode() + b"\n")


def _refuse_inside(dataset: Dataset, out: Path) -> None:
    source = Path(dataset.shards[0].url).resolve()
    if not is_local(out) or not source.is_dir():
        return
    if out.resolve().is_relative_to(source):
        raise UserError(f"OUT={out} lies inside SOURCE {source}, which would then hold its own shards. Choose another.")
