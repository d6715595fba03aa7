"""Keeps freed memory in the process: the maps of a network come and go with every batch."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
_MOST = 2**31 - 1
_PAD = 64 << 20


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to reuse large blocks instead of giving each back to the system; False without glibc.

    By default a block above 32 MiB is mapped anew every time, and the system clears its pages one by one: on a CPU,
    SqueezeNet 1.1 in batches of 64 spends two thirds of its time on that (`make bench`). The process then keeps the
    memory of its largest batch until it ends, in one arena for all threads: what another arena keeps, none can reuse.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MOST), (_M_TOP_PAD, _PAD), (_M_ARENA_MAX, 1))
    accepted = [mallopt(name, value) for name, value in settings]
    return accepted == [1] * len(settings)
