"""Writes a publication into a folder: tables, run.json, the atlas, the card; what is there already stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actmine.pipeline.atlas import export as pages
from actmine.pipeline.atlas.extent import Extent
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.datasets.tar_shards import TarShard
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.progress import Progress, in_bytes
from actmine.pipeline.publishing import card as cards
from actmine.pipeline.publishing import card_check, told_elsewhere
from actmine.pipeline.publishing.contents import Part
from actmine.pipeline.publishing.manifest import FILE, Manifest, Sum, is_same, sum_of
from actmine.pipeline.run import Run
from actmine.pipeline.storage.files import local_copy, remove_files, write_bytes
from actmine.pipeline.storage.locks import claimed

ATLAS = "atlas"
_ASIDE = ".atlas.making"
_UNREAD = "Of a published run only what it holds is shown."


@dataclass(frozen=True, slots=True)
class Written:
    """What was done in a folder: its list of files, and how many were written, left as they were, and removed."""

    manifest: Manifest
    written: int
    kept: int
    removed: int


def prepare(
    run: Run, folder: Path, found: list[Part], extent: Extent, layers: list[str], card: cards.Card, progress: Progress
) -> Written:
    """Makes `folder` hold the publication and nothing of one before. A stop at any time leaves what goes on.

    Raises `UserError` where the folder holds something else, cannot be written, or a table cannot be read.
    """
    before = there(folder)
    try:
        return _Preparing(run, folder, before or Manifest(), progress).all(found, extent, layers, card)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or first_line(error)}). Free the disk, make it "
                        "writable, or choose another TO; what is there is gone on from.") from error  # fmt: skip


def there(folder: Path) -> Manifest | None:
    """The list of a folder's files; None where it is new or empty. Raises `UserError` where it holds something else."""
    if folder.is_file():
        raise UserError(f"TO={folder} is a file. Say a new or an empty folder.")
    if (folder / FILE).is_file():
        return Manifest.of((folder / FILE).read_bytes(), str(folder / FILE))
    if folder.is_dir() and any(each.name != FILE and not _is_aside(each.name) for each in folder.iterdir()):
        raise UserError(f"{folder} holds other things than a publication. Say a new or an empty folder as TO.")
    return None


def _is_aside(name: str) -> bool:
    return name.startswith(f".{FILE}.") and name.endswith(".part")


class _Preparing:
    """One folder on its way from `before` to what is to be there."""

    def __init__(self, run: Run, folder: Path, before: Manifest, progress: Progress) -> None:
        self._run, self._folder, self._before, self._progress = run, folder, before, progress
        self._files: dict[str, Sum | None] = {}
        self._count = 0
        self._atlas = ""

    def all(self, found: list[Part], extent: Extent, layers: list[str], card: cards.Card) -> Written:
        """Everything in turn; the list of files is written before any of them, and whole at last."""
        for name in (*(part.name for part in found), "run.json", cards.FILE):
            self._expect(name)
        self._note()
        with self._progress.stage("Writing tables", sum(part.nbytes for part in found) // 1000, "kB") as advance:
            for part in found:
                self._table(part, extent.pictures)
                advance(part.nbytes // 1000, part.name)
        published = self._record(extent)
        stale = [name for name in self._before.files if name not in self._files]
        self._remove(
            [name for name in stale if not name.startswith(f"{ATLAS}/")]
        )  # or pages would show what is in them
        self._pages(published, extent, layers)
        fields = cards.metadata(published, found, card)
        if wrong := card_check.problems(fields):
            raise UserError(f"The card would not be taken: {'; '.join(wrong)}.")
        self._put(cards.FILE, cards.text(published, found, card).encode("utf-8", "replace"))
        gone = [name for name in self._before.files if name not in self._files]
        self._remove([name for name in gone if name.startswith(f"{ATLAS}/")])
        whole = Manifest(self._files, True, self._atlas)
        write_bytes(self._folder / FILE, whole.text())
        return Written(whole, self._count, len(self._files) - self._count, len(gone))

    def _expect(self, name: str) -> None:
        """A file that will be written. Raises `UserError` where one is that is not of a publication."""
        path = self._folder / name
        if name not in self._before.files and (path.exists() or path.is_symlink()):
            raise UserError(f"{path} is no file of the publication before. Move it away, or choose another TO.")
        self._files[name] = None

    def _note(self, new_pages: bool = False) -> None:
        """The list as far as it is known, with all files of the publication before; its pages are told no more if there
        are `new_pages`."""
        before = {
            name: None if new_pages and name.startswith(f"{ATLAS}/") else found
            for name, found in self._before.files.items()
        }
        known = {name: found or before.get(name) for name, found in self._files.items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        atlas = self._atlas if new_pages else self._before.atlas
        write_bytes(self._folder / FILE, Manifest(before | known, False, atlas).text())

    def _table(self, part: Part, pictures: bool) -> None:
        change = told_elsewhere.change_of(part, pictures)
        with local_copy(part.source) as source:
            if change is None and is_same(self._folder / part.name, sum_of(source)):
                self._files[part.name] = sum_of(self._folder / part.name)
                return
            with self._aside(part.name) as aside:
                if change is None:
                    shutil.copyfile(source, aside)
                else:
                    told_elsewhere.rewrite(source, aside, change)

    @contextmanager
    def _aside(self, name: str) -> Iterator[Path]:
        """A path to write to, whose bytes then become a file's, unless that has them already."""
        path = self._folder / name
        self._safe_parent(path)
        with claimed(path.parent, path.name) as aside:
            yield aside
            self._files[name] = sum_of(aside)
            if is_same(path, self._files[name]):
                return
            with aside.open("rb") as stream:
                os.fsync(stream.fileno())
            aside.replace(path)
            self._count += 1

    def _safe(self, path: Path) -> None:
        if not path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise OSError(f"{path.parent} is a link that leads out of it")

    def _put(self, name: str, data: bytes) -> None:
        with self._aside(name) as aside:
            aside.write_bytes(data)

    def _record(self, extent: Extent) -> Run:
        """Writes run.json; the run as it is published, of which no image is read again from where it was mined."""
        finished = Queries(self._run).finished
        told = told_elsewhere.record(self._run.record, extent.pictures, finished)
        self._put("run.json", json.dumps(told, indent=1).encode() + b"\n")
        shards = {int(number): TarShard(int(number), "", barred=_UNREAD) for number in self._run.shards["shard"]}
        return Run(self._folder, shards)

    def _pages(self, published: Run, extent: Extent, layers: list[str]) -> None:
        """Writes the atlas aside and moves in what is new, unless the one that is there is what it would be."""
        aside = self._folder / _ASIDE
        remove_files([aside])  # of one that was ended by force
        made_of = {name: found for name, found in self._files.items() if found}
        key = [made_of, [extent.exemplars, extent.image_pages, extent.pictures], layers, _code()]
        self._atlas = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        listed = {name: found for name, found in self._before.files.items() if name.startswith(f"{ATLAS}/")}
        if self._before.atlas == self._atlas and listed and all(
            is_same(self._folder / name, found) for name, found in listed.items()
        ):  # fmt: skip
            self._files |= listed
            return
        try:
            pages.export(published, str(aside), layers, _Unsaid(self._progress), extent)
            made = sorted(path for path in aside.rglob("*") if path.is_file())
            names = {f"{ATLAS}/{path.relative_to(aside).as_posix()}": path for path in made}
            for name, path in names.items():
                self._expect(name)
                self._files[name] = sum_of(path)
            self._note(new_pages=True)
            for name, path in names.items():
                target = self._folder / name
                if not is_same(target, self._files[name]):
                    self._safe_parent(target)
                    os.replace(path, target)
                    self._count += 1
        finally:
            remove_files([aside])

    def _safe_parent(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._safe(path)

    def _remove(self, names: list[str]) -> None:
        """Removes files that the publication before names, and folders that are then empty."""
        folders = set()
        for name in names:
            path = self._folder / name
            self._safe(path)
            path.unlink(missing_ok=True)
            folders |= {each for each in path.parents if self._folder in each.parents}
        for each in sorted(folders, key=lambda each: -len(each.parts)):
            if each.is_dir() and not any(each.iterdir()):
                each.rmdir()


class _Unsaid:
    """A progress whose stages are shown; what the export says of itself was said before."""

    def __init__(self, progress: Progress) -> None:
        self.stage = progress.stage

    def say(self, sentence: str) -> None:
        """Nothing."""


def _code() -> str:
    """A digest of what makes pages: another one, other pages."""
    here = Path(pages.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(each for kind in ("*.py", "templates/*", "static/*") for each in here.glob(kind)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def check_room(folder: Path, nbytes: int, before: Manifest | None) -> None:
    """Raises `UserError` where a disk has less room than a publication needs, what is there already counted as free."""
    at = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(at).free + (before.nbytes if before else 0)
    if nbytes > free:
        raise UserError(f"{folder} has room for {in_bytes(free)}, and about {in_bytes(nbytes)} are needed: free some, "
                        "choose fewer LAYERS or EXEMPLARS, or another TO.")  # fmt: skip
