"""The shards of a finished run, to read images again from where `shards.parquet` says that they are."""

from __future__ import annotations

from actmine.pipeline.datasets.folder_shards import FolderShard
from actmine.pipeline.datasets.live_shards import LiveShard
from actmine.pipeline.datasets.parquet_shards import ParquetShard
from actmine.pipeline.datasets.shards import Shard
from actmine.pipeline.datasets.tar_shards import TarShard

KINDS = (LiveShard, ParquetShard, FolderShard, TarShard)
"""Every kind of shard; the first whose url it may be is taken."""


def reopened(number: int, url: str, barred: str = "") -> Shard:
    """The shard at `url`, of which nothing may be read where `barred` says why."""
    found = (kind.reopened(number, url, barred) for kind in KINDS)
    return next(shard for shard in found if shard is not None)


def is_elsewhere(url: str) -> bool:
    """Whether reading from there asks another machine."""
    return "://" in url
