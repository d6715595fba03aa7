"""Where and how large the parts are measured, how their time is taken, and the figures they leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.rounds import Timing, interleaved


@dataclass
class Setting:
    """`batch_size` in images; `small` tries a part itself; `figures` are kept by part and name."""

    device: torch.device
    small: bool
    rounds: int
    batch_size: int
    out: Path | None = None
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU of NVIDIA's."""
        return self.device.type == "cuda"

    def keep(self, part: str, **values: float) -> None:
        """Keeps figures of a part."""
        self.figures.setdefault(part, {}).update(values)

    def finish(self) -> None:
        """Waits for what the device has been given to do."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def timed(self, ways: dict[str, Callable[[], object]], times: int = 1, warmup: int = 2) -> dict[str, Timing]:
        """Each way so many times a round, in turns, waiting for the last."""

        def repeated(way: Callable[[], object]) -> Callable[[], None]:
            @torch.inference_mode()
            def run() -> None:
                for _ in range(times):
                    way()
                self.finish()

            return run

        return interleaved({name: repeated(way) for name, way in ways.items()}, self.rounds, warmup)


def verdict(value: float, bar: float) -> str:
    """A bar and whether it is reached."""
    return f"(bar {bar:g}: {'reached' if value >= bar else 'missed'})"
