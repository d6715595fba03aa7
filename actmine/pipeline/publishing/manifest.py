"""The list of a publication's files, with which it is resumed, checked, and told from other folders."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

from actmine.pipeline.errors import UserError

FILE = "actmine-publish.json"
_KIND = "a run published by actmine"
_PIECE = 1 << 20
Sum = tuple[int, str]
"""Bytes of a file, and their SHA-256."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files by name with their sums; None for one under way. `atlas` names what its pages were made from."""

    files: dict[str, Sum | None] = field(default_factory=dict)
    complete: bool = False
    atlas: str = ""

    def text(self) -> bytes:
        """As it is written: the same bytes for the same files."""
        files = {name: list(found) if found else None for name, found in sorted(self.files.items())}
        about = {"what": _KIND, "version": 1, "complete": self.complete, "atlas": self.atlas, "files": files}
        return json.dumps(about, indent=0, ensure_ascii=True).encode() + b"\n"

    @classmethod
    def of(cls, data: bytes, where: str) -> Self:
        """What was written. Raises `UserError` where that is no list of ours."""
        try:
            about: Any = json.loads(data)
            if about["what"] != _KIND or about["version"] != 1:
                raise ValueError("it says something else")
            files: dict[str, Sum | None] = {}
            for name, found in about["files"].items():
                if not is_safe(name):
                    raise ValueError(f"{name!r} is no name of a file below it")
                files[name] = (int(found[0]), str(found[1])) if found else None
            return cls(files, about["complete"] is True, str(about["atlas"]))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise UserError(f"{where} is damaged or none of ours ({error}): say another TO.") from error

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(found[0] for found in self.files.values() if found)


def is_safe(name: str) -> bool:
    """Whether a name is that of a file below a folder, and of nothing else."""
    parts = name.split("/")
    return (
        bool(name)
        and "\\" not in name
        and "\0" not in name
        and not {"", ".", ".."} & {*parts}
        and str(PurePosixPath(name)) == name
        and name != FILE
    )


def sum_of(path: Path) -> Sum:
    """Bytes of a file of this machine, and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def is_same(path: Path, wanted: Sum | None) -> bool:
    """Whether a file of this machine is there with a sum."""
    try:
        return (
            wanted is not None and not path.is_symlink() and path.stat().st_size == wanted[0] and sum_of(path) == wanted
        )
    except OSError:
        return False
