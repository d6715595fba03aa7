"""Writes the demo dataset: WebDataset shards of rendered images, the same bytes at every rendering."""

from __future__ import annotations

import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.demo.concepts import CONCEPTS
from actmine.pipeline.demo.scene import RENDERER_VERSION, picture_key, render
from actmine.pipeline.processes import Processes
from actmine.pipeline.progress import Progress, Silent

IMAGES_PER_SHARD = 256
MARKER = "demo.json"
LEFTOVER_SECONDS = 60.0  # a partial file this old belongs to nobody: writing one takes milliseconds


@dataclass(frozen=True, slots=True)
class Sample:
    """The files of one image as they go into a shard."""

    key: str
    jpeg: bytes
    label: int
    description: str


@dataclass(frozen=True, slots=True)
class _Shard:
    """One shard to render: everything a worker needs, and small enough to send."""

    path: Path
    seed: int
    split: str
    indices: tuple[int, ...]


def render_dataset(
    directory: Path,
    *,
    images_per_concept: int = 128,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = Silent(),
) -> list[Path]:
    """Renders the held-out demo images into tar shards in `directory`; returns their paths in order.

    Shards that are already complete are kept, so an interrupted rendering goes on where it stopped, and a
    directory written by another version or seed is rendered anew. `workers` processes (default: one per
    usable core) change nothing but the time. Raises ValueError for fewer than one image per concept.
    """
    return render_split(
        directory,
        "held-out",
        images_per_concept=images_per_concept,
        seed=seed,
        workers=workers,
        progress=progress,
    )


def render_split(
    directory: Path,
    split: str,
    *,
    images_per_concept: int,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress = Silent(),
) -> list[Path]:
    """As `render_dataset`, for a named split: "held-out" is what gets mined, "train" what the network saw."""
    if images_per_concept < 1:
        raise ValueError(f"images_per_concept must be at least 1, not {images_per_concept}")
    shards = _plan(Path(directory), split, images_per_concept, seed)
    paths = [shard.path for shard in shards]
    marker = Path(directory) / MARKER
    account = _account(split, images_per_concept, seed)
    if _already_done(marker, account, paths):
        return paths
    marker.unlink(missing_ok=True)
    marker.parent.mkdir(parents=True, exist_ok=True)
    _sweep(marker.parent, paths)
    missing = [shard for shard in shards if not _is_complete(shard)]
    total = sum(len(shard.indices) for shard in shards)
    done = total - sum(len(shard.indices) for shard in missing)
    with progress.stage("Rendering the demo images", total, "images", done) as advance:
        for shard, samples in _rendered(missing, workers):
            _write_aside(shard.path, _tar(samples))
            advance(len(samples))
    account["shards"] = {path.name: path.stat().st_size for path in paths}
    _write_aside(marker, json.dumps(account, indent=1).encode() + b"\n")
    return paths


def _plan(directory: Path, split: str, images_per_concept: int, seed: int) -> list[_Shard]:
    """Every shard with its images, the concepts shuffled across all of them."""
    images = images_per_concept * len(CONCEPTS)
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, images]))).permutation(images)
    return [
        _Shard(
            directory / f"demo-{number:06d}.tar",
            seed,
            split,
            tuple(int(i) for i in order[start : start + IMAGES_PER_SHARD]),
        )
        for number, start in enumerate(range(0, images, IMAGES_PER_SHARD))
    ]


def _account(split: str, images_per_concept: int, seed: int) -> dict[str, Any]:
    return {
        "renderer": RENDERER_VERSION,
        "seed": seed,
        "split": split,
        "images": images_per_concept * len(CONCEPTS),
        "images_per_concept": images_per_concept,
        "concepts": list(CONCEPTS),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def _already_done(marker: Path, account: dict[str, Any], paths: list[Path]) -> bool:
    """True if the marker tells of this very dataset and every shard still has the size it had then."""
    try:
        written = json.loads(marker.read_bytes())
        sizes = {path.name: path.stat().st_size for path in paths}
    except (OSError, ValueError):
        return False
    drop = ("numpy", "pillow")  # a newer library does not make the pictures on disk any worse
    expected = {name: value for name, value in account.items() if name not in drop} | {"shards": sizes}
    return isinstance(written, dict) and all(written.get(name) == value for name, value in expected.items())


def _sweep(directory: Path, wanted: list[Path]) -> None:
    """Removes what earlier renderings left behind: abandoned partial files and shards beyond the last."""
    for path in directory.glob("demo-*.tar"):
        if path.stem.removeprefix("demo-").isdigit() and path not in wanted:
            path.unlink()
    for path in directory.glob(".demo*.partial"):
        try:
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue  # another rendering of the same directory was quicker


def _is_complete(shard: _Shard) -> bool:
    """True if the file holds exactly the members of this shard, written by this renderer from this seed."""
    expected = [f"{picture_key(index)}.{extension}" for index in shard.indices for extension in ("cls", "jpg", "json")]
    try:
        with tarfile.open(shard.path) as tar:
            if tar.getnames() != expected:
                return False
            member = tar.extractfile(expected[2])
            description = json.loads(member.read()) if member else {}
    except (OSError, tarfile.TarError, ValueError):
        return False
    return [description.get(name) for name in ("renderer", "seed", "split")] == [
        RENDERER_VERSION,
        shard.seed,
        shard.split,
    ]


def _rendered(shards: list[_Shard], workers: int | None) -> Iterator[tuple[_Shard, list[Sample]]]:
    """Each shard with its samples, in order, rendered by as many processes as there is use for."""
    workers = min(len(shards), workers or usable_cores())
    if workers <= 1:
        yield from ((shard, _render_shard(shard)) for shard in shards)
        return
    yield from zip(shards, Processes(_render_shard, workers).map(shards), strict=True)


def _render_shard(shard: _Shard) -> list[Sample]:
    samples = []
    for index in shard.indices:
        picture = render(shard.seed, shard.split, index)
        description = {
            "label_name": picture.label_name,
            "index": index,
            "split": shard.split,
            "seed": shard.seed,
            "renderer": RENDERER_VERSION,
            "pose": picture.pose,
        }
        samples.append(Sample(picture.key, picture.jpeg(), picture.label, json.dumps(description)))
    return samples


def _tar(samples: list[Sample]) -> bytes:
    """The bytes of a shard; names, times and owners are fixed so that equal samples give equal bytes."""
    from webdataset import TarWriter  # imports torch, which the rendering processes can do without

    file = io.BytesIO()
    with TarWriter(file, user="demo", group="demo", mtime=0) as tar:
        for sample in samples:
            tar.write(
                {
                    "__key__": sample.key,
                    "jpg": sample.jpeg,
                    "cls": str(sample.label).encode(),
                    "json": sample.description.encode(),
                }
            )
    return file.getvalue()


def _write_aside(path: Path, data: bytes) -> None:
    """Puts a whole file in place or none: written under another name, flushed to disk, renamed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
