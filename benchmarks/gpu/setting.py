"""Where and how large the parts are measured, how their time is taken, and the figures they leave."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from actmine.pipeline.storage.files import write_bytes
from benchmarks.rounds import Timing, interleaved

BARS = "bars"


@dataclass(frozen=True, slots=True)
class Setting:
    """`batch_size` in images; `small` tries a part itself. The file `figures` holds a figure as soon as it is kept.

    `out` is a folder for what else the parts leave, if that is wanted.
    """

    device: torch.device
    small: bool
    rounds: int
    batch_size: int
    figures: Path
    out: Path | None = None

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU of NVIDIA's."""
        return self.device.type == "cuda"

    def found(self) -> dict[str, Any]:
        """All figures so far, by part and name; below `BARS` those that have a bar."""
        found: dict[str, Any] = json.loads(self.figures.read_bytes()) if self.figures.exists() else {}
        return found

    def keep(self, part: str, **values: Any) -> None:
        """Keeps figures of a part."""
        found = self.found()
        found.setdefault(part, {}).update(values)
        write_bytes(self.figures, json.dumps(found, indent=1).encode())

    def judged(self, what: str, value: float, bar: float, unit: str = "", most: bool = False) -> str:
        """Keeps a figure that is to be at least `bar`, or at `most` that; returns the bar and whether it is reached."""
        reached = value <= bar if most else value >= bar
        self.keep(BARS, **{what: {"value": value, "bar": bar, "unit": unit, "most": most, "reached": reached}})
        return f"(bar {bar:g}: {_word(reached)})"

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


def table_line(what: str, judged: dict[str, Any]) -> str:
    """A line of a table in Markdown for a figure that has a bar."""
    unit = f" {judged['unit']}" if judged["unit"] else ""
    sign = "≤" if judged["most"] else "≥"
    return f"| {what} | {judged['value']:.3g}{unit} | {sign} {judged['bar']:g}{unit} | {_word(judged['reached'])} |"


def _word(reached: bool) -> str:
    return "reached" if reached else "missed"
