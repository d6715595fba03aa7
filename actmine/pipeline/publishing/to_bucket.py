"""A publication on its way from a folder of this machine to S3: only what is not there, and nothing of one before."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from actmine.pipeline.errors import UserError
from actmine.pipeline.progress import Progress
from actmine.pipeline.publishing.manifest import FILE, Manifest
from actmine.pipeline.storage.bucket import PART_BYTES, BucketPath

AT_ONCE = 8


def before_at(place: BucketPath) -> Manifest | None:
    """The list of the files below a place; None where there is nothing. Raises `UserError` where something else is."""
    objects = place.objects()
    if not objects:
        return None
    if FILE not in objects:
        raise UserError(f"{place} holds other things than a publication. Say an empty prefix as TO.")
    return Manifest.of((place / FILE).read_bytes(), f"{place / FILE}")


def upload(folder: Path, manifest: Manifest, place: BucketPath, progress: Progress) -> tuple[int, int, int]:
    """Makes the objects below a place those of a folder: how many were put, were there already, and were removed.

    The list of files goes first, as under way, and last, as whole: so a stop leaves what the same command goes on from.
    An object is the same if it has a file's size and the ETag that S3 gives to its bytes. Raises `UserError` as
    `BucketPath` does.
    """
    before = before_at(place)
    there = place.objects()
    listed = {**(before.files if before else {}), **manifest.files}
    gone = [name for name in listed if name not in manifest.files and name in there]
    missing = [name for name in manifest.files if not _same(folder / name, there.get(name))]
    sizes = {name: found[0] for name, found in manifest.files.items() if found}
    whole = manifest.text()
    if missing or gone or there.get(FILE, (0, ""))[1] != hashlib.md5(whole, usedforsecurity=False).hexdigest():
        (place / FILE).write_bytes(Manifest(listed, False, manifest.atlas).text())
    done = sum(size for name, size in sizes.items() if name not in {*missing}) // 1000
    with progress.stage(f"Uploading to {place}", sum(sizes.values()) // 1000, "kB", done) as advance:
        pool = ThreadPoolExecutor(AT_ONCE, "upload")
        try:
            sent = {pool.submit((place / name).upload, folder / name): name for name in missing}
            for each in as_completed(sent):
                each.result()
                advance(sizes[sent[each]] // 1000, sent[each])
        finally:
            pool.shutdown(cancel_futures=True)
    place.remove_below(gone)
    if (place / FILE).read_bytes() != whole:
        (place / FILE).write_bytes(whole)
    return len(missing), len(manifest.files) - len(missing), len(gone)


def _same(path: Path, there: tuple[int, str] | None) -> bool:
    """Whether an object, by its size and ETag, is a file."""
    return there is not None and path.stat().st_size == there[0] and etag(path) == there[1]


def etag(path: Path) -> str:
    """What S3 calls the bytes of a file that `BucketPath.upload` put there, unless it was encrypted with a key."""
    parts = []
    single = path.stat().st_size < 2 * PART_BYTES
    with path.open("rb") as stream:
        while data := stream.read(1 << 20 if single else PART_BYTES):
            parts.append(data) if single else parts.append(hashlib.md5(data, usedforsecurity=False).digest())
    digest = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return digest if single else f"{digest}-{len(parts)}"
