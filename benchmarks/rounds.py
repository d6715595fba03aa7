"""Interleaved rounds: what is compared runs in turn, so that a machine whose speed drifts slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every counted round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, Timing]:
    """Runs every candidate once a round, in turn, after `warmup` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(warmup + rounds):
        # every other round backwards: none profits from always following the same one
        for name in list(candidates) if number % 2 else reversed(list(candidates)):
            start = time.perf_counter()
            candidates[name]()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
