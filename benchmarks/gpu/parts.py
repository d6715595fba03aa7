"""Runs a part in a process of its own: one that fails, or breaks the device for its process, loses no other."""

from __future__ import annotations

import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from multiprocessing import get_context

from actmine.pipeline.errors import first_line
from benchmarks.gpu.setting import BARS, Setting, table_line


def run_part(name: str, module: str, function: str, setting: Setting) -> bool:
    """Whether it ended well. What it kept that has a bar is printed as lines of a table, also where it failed."""
    before = setting.found().get(BARS, {})
    start = time.perf_counter()
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            failed = pool.submit(_measured, module, function, setting).result()
    except BrokenProcessPool as error:
        failed = f"its process died: {first_line(error)}", ""
    for what, judged in setting.found().get(BARS, {}).items():
        if judged != before.get(what):
            print(f"  {table_line(what, judged)}")
    seconds = time.perf_counter() - start
    if failed is None:
        print(f"  ({name}: {seconds:.0f} s)", flush=True)
        return True
    reason, told = failed
    setting.keep("failed", **{name: reason})
    print(f"  ({name} failed after {seconds:.0f} s: {reason}{_kept(name, told, setting)})", flush=True)
    return False


def _measured(module: str, function: str, setting: Setting) -> tuple[str, str] | None:
    """Nothing, or what was raised: in a line, and whole. As text, since not every exception can travel."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    try:
        getattr(import_module(module), function)(setting)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}", traceback.format_exc()
    return None


def _kept(name: str, told: str, setting: Setting) -> str:
    """Where the traceback is: in a file, or without a folder for it on stderr."""
    if not told:
        return ""
    if setting.out is None:
        print(told, file=sys.stderr, flush=True)
        return ""
    path = setting.out / f"failed-{name}.txt"
    path.write_text(told)
    return f"; all of it: {path}"
