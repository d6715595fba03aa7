"""Parts of a benchmark: one that ends well, one that raises, one whose process dies."""

from __future__ import annotations

import os

from benchmarks.gpu.setting import Setting


class TwoWords(Exception):
    """An exception that cannot travel between processes."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


def good(setting: Setting) -> None:
    print("it is measured", setting.judged("good / best", 0.95, 0.9))


def raising(setting: Setting) -> None:
    setting.keep("raising", before=1.5)
    raise TwoWords("no room", "no time")


def dying(setting: Setting) -> None:
    setting.judged("minutes to death", 3.0, 2, "minutes", most=True)
    os._exit(7)
