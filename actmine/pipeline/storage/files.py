"""Files that are either whole or not there, in a folder or on S3: written aside, flushed, renamed or put."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from actmine.pipeline.errors import GO_ON, UserError, first_line
from actmine.pipeline.spoken import install
from actmine.pipeline.storage.locks import claimed, exclusive

NO_FILE = "a device or pipe, not a file"
_PLAIN = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,179}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_folder(word: str | Path) -> Path:
    """The folder that RUN means: of this machine, or `s3://bucket/prefix` with pathlib's interface.

    Raises `UserError` for any other scheme, and for S3 where its packages are not installed.
    """
    if not isinstance(word, str):
        return word
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", word)
    if not scheme:
        return Path(word)
    if scheme[1].lower() != "s3":
        raise UserError(f"RUN={word} cannot hold a run: only folders and s3://bucket/prefix can, not {scheme[1]}:.")
    place = PurePosixPath(word[len("s3://") :].strip("/"))
    if not word.lower().startswith("s3://") or len(place.parts) < 2 or ".." in place.parts:
        raise UserError(f"RUN={word} names no place for a run. Write s3://bucket/prefix.")
    try:
        from actmine.pipeline.storage.bucket import BucketPath
    except ImportError as error:
        raise UserError(f"A RUN on S3 needs {error.name}: {install('s3')}.") from error
    return cast(Path, BucketPath(place))


def user_cache() -> Path:
    """The folder of what this user's calls of actmine keep for later ones; perhaps not there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "actmine")


def holds_run(folder: Path) -> bool:
    """Whether a folder of this machine is that of a run, finished or under way."""
    return (folder / "state" / "identity.json").is_file()


def is_local(path: Path) -> bool:
    """Whether `path` is a file of this machine, which can be mapped into memory."""
    return isinstance(path, Path)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yields a local path to write to; on leaving without an error its bytes become `path`, durably.

    What a killed process left aside goes when the folder is next written to. Raises `UserError` where the folder
    cannot be written or the disk is full.
    """
    try:
        folder = path.parent if is_local(path) else _scratch()
        with claimed(folder, path.name) as aside:
            yield aside
            if not is_local(path):
                path.upload(aside)  # type: ignore[attr-defined]
                return
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
            aside.replace(path)
            _flush_names(folder)
    except OSError as error:
        raise UserError(_unwritable(path if is_local(path) else _temporary(), error)) from error


def open_regular(path: str | Path) -> BinaryIO:
    """A file of this machine to read from. Raises `OSError`, for a pipe or a device too: reading one may never end."""
    stream = open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, NO_FILE, str(path))
    return stream


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a small file whole or not at all. Raises `UserError` as `written_aside` does."""
    if not is_local(path):
        path.write_bytes(data)
        return
    with written_aside(path) as aside:
        aside.write_bytes(data)


@contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """`path` itself, or a download that is gone after leaving; what was mapped into memory by then stays readable.

    Raises `FileNotFoundError` where there is no such file, `UserError` where a download finds no room.
    """
    if is_local(path):
        yield path
        return
    with claimed(_scratch(), path.name) as copy:
        try:
            path.download(copy)  # type: ignore[attr-defined]
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UserError(_unwritable(_temporary(), error)) from error
        yield copy


def remove_files(paths: Iterable[Path]) -> None:
    """Deletes files, and folders with all they hold; one that is not there is fine. Raises `UserError`."""
    for path in paths:
        try:
            if not is_local(path):
                path.remove()  # type: ignore[attr-defined]
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            continue  # another command was quicker
        except OSError as error:
            raise UserError(f"{path} cannot be deleted ({first_line(error)}). Make its folder writable.") from error


@contextmanager
def alone(run: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds a run while inside: another command that means to write to it waits here until we end, however we end.

    On S3 there is no such lock. Raises `UserError` where the folder cannot be written.
    """
    if not is_local(run):
        yield
        return
    waiting = f"Another command is at work on {run}: waiting for its end."
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive(run / "state" / "lock", lambda: say(waiting)))
        except OSError as error:
            raise UserError(_unwritable(run, error)) from error
        yield


def table_file(run: Path, table: str, layer: str, new: bool = False) -> Path:
    """The file of one layer in the `table` folder (`units`, `exemplars`) of a run.

    Unless a `new` one is to be written, that may be the one by the name that versions before gave it.
    """
    path = run / table / f"{safe_name(layer)}.parquet"
    if new or _PLAIN.fullmatch(layer) or path.is_file():
        return path
    before = run / table / f"{readable_name(layer)}.parquet"
    return before if before.is_file() else path


def safe_name(name: str) -> str:
    """A layer's name as a file name: no separators, never hidden; different ones for different names, case aside.

    Names in lower case of up to 180 ASCII letters, digits, `.`, `_` and `-` stay as they are. Others get a hash behind
    a `~`, which is none of these.
    """
    if _PLAIN.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable_name(name).encode('ascii', 'replace').decode().replace('?', '_')[:180]}~{digest[:10]}"


def readable_name(name: str) -> str:
    """A name as a file name; several names may have the same."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name).lstrip(".") or "_"


def _unwritable(place: Path, error: OSError) -> str:
    fix = "Free the disk" if error.errno in _FULL else "Make it writable"
    other = "choose another RUN" if place != _temporary() else "set TMPDIR to another folder"
    return f"{place} cannot be written ({error.strerror or error}). {fix} or {other}; {GO_ON}"


def _flush_names(folder: Path) -> None:
    names = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot, and keep names safe in their own way
            os.fsync(names)
    finally:
        os.close(names)


def _temporary() -> Path:
    return Path(tempfile.gettempdir(), f"actmine-{os.getuid()}")


def _scratch() -> Path:
    """The folder of this user for what is on its way to or from S3."""
    folder = _temporary()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or not folder.is_dir():
        raise UserError(f"{folder} belongs to someone else. Set TMPDIR to a folder of yours.")
    return folder
