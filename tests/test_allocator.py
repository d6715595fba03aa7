"""Freed memory stays in the process: the system is not asked for it page by page again."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import resource, sys, torch
from actmine.pipeline.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
network = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 1) for _ in range(3)))
images = torch.rand(16, 16, 256, 256)  # 64 MiB, like every map of the network
with torch.inference_mode():
    for _ in range(2):
        network(images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        network(images)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(word: str) -> int:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", PROGRAM, word], cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's malloc")
def test_large_blocks_are_reused_instead_of_mapped_anew():
    assert page_faults("keep") < page_faults("as it comes") / 10
