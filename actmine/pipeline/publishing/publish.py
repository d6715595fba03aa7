"""Publishes a run: says what would go out and how much it is, makes it ready, and brings it to its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from actmine.pipeline.atlas.export import estimate
from actmine.pipeline.atlas.extent import Extent, of_run
from actmine.pipeline.atlas.images import topping
from actmine.pipeline.atlas.queries import Queries
from actmine.pipeline.choose import choose_layers
from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress, Silent, in_bytes
from actmine.pipeline.publishing import card as cards
from actmine.pipeline.publishing import prepared, to_hub
from actmine.pipeline.publishing.contents import NEVER, Part, parts, pixels_of_images, tables_of
from actmine.pipeline.publishing.manifest import Manifest
from actmine.pipeline.run import Run
from actmine.pipeline.run_tables import absolute
from actmine.pipeline.storage.files import is_local, remove_files, run_folder, user_cache
from actmine.pipeline.storage.fingerprint import fingerprint
from actmine.pipeline.storage.locks import exclusive
from actmine.pipeline.words import MAPPED

if TYPE_CHECKING:
    from actmine.pipeline.storage.bucket import BucketPath

_OWN_FILES = 3
"""run.json, the card, the list of files."""


SHORT = Extent(exemplars=MAPPED, image_pages=False)
"""The pages of a publication, unless more is asked for: as many exemplars of a unit as have a map."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What is to go out: how much of the run, and what the card says of it."""

    extent: Extent = SHORT
    layers: tuple[str, ...] = ()
    notes: bool = False
    license: str = ""
    title: str = ""
    public: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a publication will be: files and about how many bytes, of its atlas too; its tables; pictures of images."""

    files: int
    nbytes: int
    atlas_files: int
    atlas_nbytes: int
    tables: tuple[str, ...]
    pictures: int
    pictures_nbytes: int


@dataclass(frozen=True, slots=True)
class Published:
    """Where it is; files and bytes of it; how many files were written, were there already, and were removed."""

    place: str
    files: int
    nbytes: int
    written: int
    kept: int
    removed: int


def publish(
    run: Run, to: str, what: Publication, progress: Progress | None = None, plan_only: bool = False
) -> tuple[Plan, Published | None]:
    """Publishes a run into a folder, below `s3://bucket/prefix` or to `hf://datasets/OWNER/NAME`.

    What would go out is said first, and with `plan_only` that is all. A stop at any time leaves what the same call goes
    on from. Raises `UserError` where the place holds something else, has no room, refuses, or a table cannot be read.
    """
    progress = progress or Silent()
    if not of_run(run.record).pictures:
        what = replace(what, extent=replace(what.extent, pictures=False, image_pages=False))
    place = _place(run, to, asked=not plan_only)
    names = choose_layers(run, list(what.layers)) if what.layers else []
    found = parts(run, what.extent.pictures, what.notes)
    card = cards.Card(what.license, what.title, what.extent.pictures, what.extent.exemplars, tuple(names))
    cards.metadata(run, found, card)  # a wrong licence is said before anything is written
    planned = _planned(run, found, what, names)
    _say(planned, what, progress)
    before = prepared.there(place.folder)
    prepared.check_room(place.folder, planned.nbytes, before)
    if plan_only:
        return planned, None
    with _alone(run, place.said, progress):
        written = prepared.prepare(run, place.folder, found, what.extent, names, card, progress)
        counts = place.bring(written.manifest, progress, what.public) if place.bring else None
        done = counts or (written.written, written.kept, written.removed)
        if place.bring:
            remove_files([place.folder])
    return planned, Published(place.said, len(written.manifest.files) + 1, written.manifest.nbytes, *done)


@contextmanager
def _alone(run: Run, to: str, progress: Progress) -> Iterator[None]:
    """Waits for another command of this user that brings the same run to the same place."""
    with ExitStack() as stack:
        lock = _ready(run, to).with_suffix(".lock")
        with suppress(OSError):  # without a folder of the user's there is no lock
            waiting = f"Another command publishes {run.path} to {to}: waiting for its end."
            stack.enter_context(exclusive(lock, lambda: progress.say(waiting)))
        yield


def _ready(run: Run, to: str) -> Path:
    """The folder in which a run is made ready for another place, kept until it is there."""
    return user_cache() / "publish" / fingerprint({"run": absolute(run.path), "to": to})


Bring = Callable[[Manifest, Progress, bool], tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where it goes: the folder in which it is made ready, and what brings it on from there, if anything does."""

    said: str
    folder: Path
    bring: Bring | None = None


def _place(run: Run, to: str, asked: bool) -> _Place:
    """What TO means, and whether it is free, if it is to be `asked`.

    Raises `UserError` for what is no place, for one that holds something else, and one within the run or around it.
    """
    word = to.strip()
    if not word:
        raise UserError(f"TO is empty: say a folder, s3://bucket/prefix or {to_hub.BEGINS}OWNER/NAME.")
    ready = _ready(run, word)
    if word.startswith("hf:"):
        name = to_hub.repository(word)
        if not asked:
            return _Place(word, ready)
        hub = to_hub.Hub(name)
        hub.before(hub.files())
        return _Place(
            word, ready, lambda listed, progress, public: to_hub.upload(ready, listed, hub, not public, progress)
        )
    if word.lower().startswith("s3:"):
        bring = _bucket(word, ready, asked)
        if not is_local(run.path) and _within(PurePosixPath(word[5:]), PurePosixPath(str(run.path)[5:])):
            raise UserError(f"TO={word} and RUN={run.path} lie within each other: choose another place for TO.")
        return _Place(word, ready, bring)
    if "://" in word:
        raise UserError(
            f"TO={word} is no place for a run: say a folder, s3://bucket/prefix or {to_hub.BEGINS}OWNER/NAME."
        )
    folder = Path(word)
    if is_local(run.path) and _within(PurePosixPath(folder.resolve()), PurePosixPath(run.path.resolve())):
        raise UserError(f"TO={word} and RUN={run.path} lie within each other: choose another folder for TO.")
    return _Place(word, folder)


def _within(one: PurePosixPath, other: PurePosixPath) -> bool:
    return one == other or one in other.parents or other in one.parents


def _bucket(word: str, ready: Path, asked: bool) -> Bring:
    try:
        bucket: BucketPath = run_folder(word)  # type: ignore[assignment]
    except UserError as error:
        error.args = tuple(str(each).replace("RUN", "TO").replace("for a run", "for it") for each in error.args)
        raise
    from actmine.pipeline.publishing.to_bucket import before_at, upload

    if asked:
        before_at(bucket)
    return lambda listed, progress, public: upload(ready, listed, bucket, progress)


def _planned(run: Run, found: list[Part], what: Publication, names: Sequence[str]) -> Plan:
    queries = Queries(run, names or None)
    who = topping(run.path, queries.reading, list(queries.layers), queries.end)
    pages, size = estimate(queries, who, what.extent)
    tables = sum(part.nbytes for part in found)
    pictures, of_pictures = pixels_of_images(found) if what.extent.pictures else (0, 0)
    count = len(found) + pages + _OWN_FILES
    return Plan(count, tables + size, pages, size, tuple(tables_of(found)), pictures, of_pictures)


def _say(plan: Plan, what: Publication, progress: Progress) -> None:
    progress.say(
        f"Planned: about {plan.files:,} files of together {in_bytes(plan.nbytes)}, {plan.atlas_files:,} of them "
        f"({in_bytes(plan.atlas_nbytes)}) the atlas."
    )
    progress.say(f"In it: the tables {', '.join(plan.tables)}; the atlas; a card.")
    notes = "" if what.notes else ", notes (--notes)"
    progress.say(f"Not in it: {NEVER}{notes}; folders of this machine and passwords of addresses are left out of all.")
    progress.say("Names, labels and sizes of the images are in it: the tables name what they are about.")
    if what.notes:
        progress.say("Notes go out with the names of their authors and their times.")
    if plan.pictures:
        progress.say(
            f"{plan.pictures:,} pictures of images of the dataset ({in_bytes(plan.pictures_nbytes)}) are in it, and in "
            "the atlas: does the dataset's licence allow that? --no-pictures leaves them out."
        )
    elif not what.extent.pictures:
        progress.say("No picture of the dataset is in it: the atlas names images, and shows what gradient ascent drew.")
    if not what.license:
        progress.say("No licence is said (--license): the card says that none was stated.")
