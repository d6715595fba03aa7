"""Reaches a Ray cluster or starts one here, and finds the places for workers on its nodes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.errors import UserError, first_line
from actmine.pipeline.spoken import install

WORKER_CORES = 4
_REACH_SECONDS = 20.0
_SAME = ("actmine", "torch", "torchvision", "numpy", "pillow")  # versions that have a say in the bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one worker: the `number`-th on a node, with so many cores and so much of a GPU."""

    node: str
    address: str
    number: int
    cores: int
    gpus: float


def slots(nodes: Iterable[dict[str, Any]], device: str, worker_cores: int) -> list[Slot]:
    """The places for workers on the living among `ray.nodes()`.

    On `cuda` one for each GPU with its share of the node's cores, or several that share it where `worker_cores` are
    fewer (one process decodes some thousand images a second, however many cores it has). On `cpu` one for every
    `worker_cores` cores (0: 4), or a single one where a node has fewer.
    """
    found = []
    for node in nodes:
        cpus, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
        if not node["Alive"]:
            continue
        if device == "cuda":
            share = cpus // max(gpus, 1)
            cores = min(share, worker_cores or share)
            together = share // cores if cores else 1
            count, part = gpus * together, 1 / together
        else:
            cores = min(worker_cores or WORKER_CORES, cpus)
            count, part = cpus // cores if cores else 0, 0.0
        address = node["NodeManagerAddress"]
        found += [Slot(node["NodeID"], address, number, cores, part) for number in range(count)]
    return found


def connect() -> tuple[Any, bool]:
    """The ray package, connected, and whether we did that."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers run in the environment that is there
    try:
        import ray
    except ImportError as error:
        raise UserError(f"ENGINE=ray needs the package ray: {install('ray')}.") from error
    if ray.is_initialized():
        return ray, False
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS={address} is a Ray client's: start the command on a node of the cluster (RAY_ADDRESS=auto), "
            "or hand it in with `ray job submit`."
        )
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if ":" in address:
            host, _, port = address.rpartition(":")
            socket.create_connection(
                (host.strip("[]"), int(port)), timeout=_REACH_SECONDS
            ).close()  # Ray would abort us
        if address:
            ray.init(address=address, **quiet)
        else:
            try:
                ray.init(address="auto", **quiet)
            except ConnectionError:
                ray.init(address="local", num_cpus=usable_cores(), include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
        where = f"the cluster at RAY_ADDRESS={address}" if address else "a Ray cluster on this machine"
        raise UserError(
            f"ENGINE=ray cannot use {where}: {first_line(error)} "
            "Is it up, with this same Python and Ray? Unset RAY_ADDRESS to use this machine alone."
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)  # Ray puts its own, which says nothing
    return ray, True


def other_versions(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """What differs between two installations and can change results, in a sentence; nothing if it is the same."""
    other = [name for name in _SAME if theirs[name] != ours[name]]
    if not other:
        return ""
    what = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in other)
    return f"it has {what}, which could change results. Install the same on every node."
