"""One shard while it is written: samples in, a tar with fixed times and owners and its index out, read back first."""

from __future__ import annotations

import json
import re
import zlib
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from webdataset import TarWriter

from actmine.pipeline.datasets.samples import extension
from actmine.pipeline.datasets.shard_index import index_name, write_index
from actmine.pipeline.datasets.shards import Sample, read_samples
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.errors import UserError
from actmine.pipeline.storage.files import written_aside


def shard_key(key: str) -> str:
    """A key that a tar can hold: WebDataset ends it at the first dot of its last part, so dots are written `%2E`.

    Different keys stay different, and a key without a dot stays as it is (a `%2E` of its own becomes `%252E`).
    """
    folder, slash, last = key.rpartition("/")
    last = re.sub("%(?=2E|25)", "%25", last).replace(".", "%2E")
    return f"{folder}{slash}{last or '_'}"


class ShardFile:
    """The tar at `path` from its first sample on; `finish` or `abandon` ends it. Raises `UserError` if it fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.renamed = 0
        self._rows: dict[str, dict[str, Any]] = {}
        self._open = ExitStack()
        self._aside = self._open.enter_context(written_aside(path))
        self._stream = self._open.enter_context(self._aside.open("wb"))
        self._tar = TarWriter(self._stream, user="", group="", mode=0o644, mtime=0, encoder=False, format="PAX_FORMAT")
        self._open.callback(self._tar.close)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, sample: Sample, word: str | None, source_shard: int) -> None:
        """One more sample, its label in words if `word` says."""
        key = self._free(shard_key(sample.key))
        self.renamed += key != sample.key
        files: dict[str, Any] = {"__key__": key, extension(sample.place.path): sample.data}
        if sample.label is not None:
            files["cls"] = str(sample.label).encode()
        if word is not None:
            label = {} if sample.label is None else {"label": sample.label}
            files["json"] = json.dumps(label | {"label_name": word}).encode()
        try:
            self._tar.write(files)
        except OSError as error:
            with self._open:
                raise error
        self._rows[key] = {
            "key": key, "crc32": zlib.crc32(sample.data), "label": sample.label, "label_name": word,
            "source_shard": source_shard, "source_key": sample.key, "source_path": sample.place.path,
        }  # fmt: skip

    def finish(self, note: dict[str, Any]) -> None:
        """Closes the tar, reads it back, puts it in place, then its index with `note` in it.

        Raises `UserError` where what was read back is not what was written.
        """
        with self._open:
            self._tar.close()
            self._stream.close()
            nbytes = self._aside.stat().st_size
            self._read_back()
        rows = list(self._rows.values())
        note = note | {"samples": len(rows), "nbytes": nbytes}
        write_index(self.path.with_name(index_name(self.path.name)), rows, note)

    def abandon(self) -> None:
        """Leaves nothing behind."""
        try:
            with self._open:
                raise _Abandoned
        except _Abandoned:
            return

    def _free(self, key: str) -> str:
        if key not in self._rows:
            return key
        return next(name for name in (f"{key}~{number}" for number in count(2)) if name not in self._rows)

    def _read_back(self) -> None:
        expected = iter(self._rows.values())
        for sample in read_samples(TarShard(0, str(self._aside))):
            row = next(expected, {})
            same = isinstance(sample, Sample) and (
                sample.key, zlib.crc32(sample.data), sample.label, sample.label_name,
            ) == (row.get("key"), row.get("crc32"), row.get("label"), row.get("label_name"))  # fmt: skip
            if not same or not isinstance(sample, Sample):
                raise UserError(f"{self.path} reads back other than it was written, at {sample.key}. Check the disk.")
            row |= {"path": sample.place.path, "offset": sample.place.offset, "nbytes": sample.place.nbytes}
        if next(expected, None) is not None:
            raise UserError(f"{self.path} reads back shorter than it was written. Check the disk.")


class _Abandoned(Exception):
    """Ends a file that is not wanted any more."""
