"""Reads a tar to its true end: where Python's `tarfile` would take damage for the end, it is an error here."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from actmine.pipeline.datasets.remote import Changed, RemoteError, RemoteFile, open_stream
from actmine.pipeline.errors import GO_ON, UserError

_START = 512  # bytes that tell one kind of file from another
_BUFFER = 1 << 16  # what is left of one is copied at every read of a stream
_END_MARKER: type[Exception] = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_NOTHING: type[Exception] = tarfile.EmptyHeaderError  # type: ignore[attr-defined]
_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip",
}  # fmt: skip
_OTHERS = {
    b"PAR1": "a Parquet file", b"ARROW1": "an Arrow file", b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy array",
    b"SQLite format 3": "an SQLite database", b"%PDF": "a PDF", b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image", b"GIF8": "a GIF image", b"RIFF": "a WebP image", b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7-Zip archive",
}  # fmt: skip


_EXTENDED = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_MOST_EXTENDED = 1 << 20  # bytes

KEPT = f"What was done is kept: once it can be read again, {GO_ON}"


class ShardError(UserError):
    """A shard is damaged or gone: names the shard, the byte and the way on."""


def read_tar(
    source: str | RemoteFile, wanted: Callable[[tarfile.TarInfo], bool]
) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every member with its bytes if it is `wanted`; the others are passed over, but have to be there.

    `source` is a path or a file elsewhere, which is streamed. Raises `ShardError` if it is gone, is compressed, ends
    early, has a header that cannot be read, or goes on behind its end marker.

    What no tar can tell, for its checksums cover nothing but headers, and those by a sum: other bytes inside a file
    or inside an extended header (which holds long names), a header changed so that its sum stays, headers that
    changed places, an empty file that was taken out or doubled. An index beside the shard tells all of it.
    """
    url = source if isinstance(source, str) else source.url
    offset, start = None, b""
    try:
        with _opened(source) as stream:
            start = stream.peek(_START)[:_START]
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER, tarinfo=_StrictTarInfo) as tar:
                for member in tar:
                    offset = member.offset
                    tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has read
                    data = b""
                    if wanted(member):
                        opened = tar.extractfile(member)
                        data = opened.read() if opened is not None else b""
                        if len(data) != member.size:
                            raise tarfile.StreamError(f"{member.name} has {len(data)} of its {member.size} bytes")
                    yield member, data
                _only_zeros_remain(tar)
    except RemoteError as error:
        raise shard_error(error) from error
    except OSError as error:
        raise ShardError(f"Shard {url} cannot be read ({error.strerror or error}). {KEPT}") from error
    except (tarfile.TarError, EOFError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        # Beside its own errors, tarfile raises what its parsers raise on an extended header with odd contents.
        if offset is None and (other := _another_kind(start)):
            raise ShardError(f"Shard {url} is {other}") from error
        where = "at its very start" if offset is None else f"after byte {offset}"
        raise ShardError(
            f"Shard {url} is damaged {where}, or not a tar: {readable(str(error))}. "
            "Fetch it again, or leave it out of DATASET."
        ) from error


def shard_error(error: RemoteError) -> ShardError:
    """The same, of a shard: says that the work so far is kept."""
    return ShardError(f"Shard {error}" if isinstance(error, Changed) else f"Shard {error} {KEPT}")


def readable(text: str) -> str:
    """The same text as valid Unicode; what is not, as in a file name that is not UTF-8, gets written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class _StrictTarInfo(tarfile.TarInfo):
    """A header that cannot be read is an error: `tarfile` itself takes it for the end of the archive.

    So is an extended one that no name or set of attributes needs: `tarfile` would read all of it.
    """

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tar)
        except _END_MARKER:
            raise
        except _NOTHING:
            raise tarfile.StreamError("it stops without the end marker of a tar") from None
        except tarfile.HeaderError as error:
            raise tarfile.StreamError(f"bad header ({error})") from None

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _EXTENDED and not 0 <= self.size <= _MOST_EXTENDED:
            raise tarfile.StreamError(f"an extended header of {self.size:,} bytes, more than {_MOST_EXTENDED:,}")
        found: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return found

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, *_: object) -> None:
        following.sparse = b""  # its map, of any length, is of no use: it is not mined


def _opened(source: str | RemoteFile) -> io.BufferedReader:
    return open_stream(source) if isinstance(source, RemoteFile) else Path(source).open("rb")


def _another_kind(start: bytes) -> str:
    """What a file is that begins with these bytes and no header of a tar, and what to do; empty if that is unknown."""
    for magic, packer in _COMPRESSED.items():
        if start.startswith(magic):
            return (
                f"compressed ({packer}), so that no image could be read again by its place. "
                "Unpack it to a plain tar first."
            )
    kind = next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), "")
    if kind or _is_text(start):
        return f"no tar but {kind or 'a text file'}. DATASET reads tars, and images that lie in a folder as files."
    return ""


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", "replace")[:-1]  # whose last character may be cut
    return bool(text.strip()) and "\N{REPLACEMENT CHARACTER}" not in text and all(map(_is_shown, text))


def _is_shown(character: str) -> bool:
    return character.isprintable() or character in "\t\r\n"


def _only_zeros_remain(tar: tarfile.TarFile) -> None:
    rest = tar.fileobj
    while block := rest.read(_BUFFER):
        if block.strip(b"\0"):
            raise tarfile.StreamError("data follow its end marker (a zeroed header?)")
