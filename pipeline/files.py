"""Files that are either whole or not there: written aside, flushed, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import UserError


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` to write to; on leaving without an error it becomes `path`, durably.

    Raises `UserError` where the folder cannot be written or the disk is full.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}). Free the disk or choose another RUN; "
            "the same command then goes on where it stopped."
        ) from error
    finally:
        with suppress(OSError):  # gone already, or never made: the error above says why
            aside.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a small file whole or not at all. Raises `UserError` as `written_aside` does."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def table_file(run: Path, table: str, layer: str) -> Path:
    """The file of one layer in the `table` folder (`units`, `exemplars`) of a run."""
    return run / table / f"{safe_name(layer)}.parquet"


def safe_name(name: str) -> str:
    """A layer's name as a file name: no separators, never hidden."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "_"
