"""What the kernels become on a card that is not at hand: compiled for it, their registers, spills and instructions.

Needs no GPU: Triton compiles for whatever it is told, and brings NVIDIA's assembler. The times are bounds, not
measurements: what moving a batch's bytes takes, and what issuing the instructions takes if nothing else did.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.kernels import accumulators, chains, taps
from benchmarks.gpu.setting import Setting

CARDS = {"H100": (90, 2.8e12, 132 * 128 * 1.755e9), "A100": (80, 1.7e12, 108 * 128 * 1.41e9)}
"""Compute capability, bytes a second of a large copy, and instructions a second of one lane each."""
_SLOW = re.compile(r"MUFU|REDUX")  # eight times as long as a multiplication of float32; twice: all that is in neither
_FAST = re.compile(r"FFMA|FMUL|FADD|IMAD|MOV|HFMA2|HADD2|HMUL2|LDG|STG|BRA|BAR|SHFL|LDS|STS")


class _Card:
    """Stands for a card of a compute capability where Triton asks which one there is."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel as it would be launched: its `grid`, its constants and what was compiled."""

    name: str
    grid: tuple[int, ...]
    constants: dict[str, Any]
    compiled: Any


@contextmanager
def compiling_only(capability: int) -> Iterator[list[Launch]]:
    """While inside, kernels are compiled for a card of this capability and listed instead of launched."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    launches: list[Launch] = []
    known: list[Any] = []
    run = JITFunction.run
    try:
        card: Any = driver.active
    except RuntimeError:  # there is none
        card = _Card(capability)

    def compiled(self: Any, *arguments: Any, grid: Any, warmup: bool = False, **constants: Any) -> Any:
        if self not in known:  # what it was compiled to for another card
            getattr(self, "device_caches" if hasattr(self, "device_caches") else "cache").clear()
            known.append(self)
        kernel = run(self, *arguments, grid=grid, warmup=True, **constants)
        launches.append(Launch(self.fn.__name__, tuple(grid), constants, kernel))
        return kernel

    JITFunction.run = compiled
    driver.set_active(_Card(capability))
    try:
        yield launches
    finally:
        JITFunction.run = run
        driver.set_active(card)


@dataclass(frozen=True, slots=True)
class Code:
    """`registers` of a thread, bytes that are `spilled`, issue slots of its longest `loop` and of the `rest`."""

    registers: int
    spilled: int
    loop: int
    rest: int

    @classmethod
    def of(cls, compiled: Any) -> Code:
        """Read from the machine code."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.cubin"
            file.write_bytes(compiled.asm["cubin"])
            used = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", _dumped(file, "-res-usage"))
            lines = re.findall(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+ )?([^;]*);", _dumped(file, "-sass"))
        assert used is not None, "cuobjdump says how much a kernel uses"
        code = [(int(at, 16), words) for at, words in lines]
        ends = [
            (int(to.group(1), 16), at) for at, words in code if (to := re.search(r"\bBRA\b.*?0x([0-9a-f]+)", words))
        ]
        begin, end = max(((to, at) for to, at in ends if to < at), key=lambda loop: loop[1] - loop[0], default=(1, 0))
        slots = {at: 8 if _SLOW.match(words) else 1 if _FAST.match(words) else 2 for at, words in code}
        loop = sum(cost for at, cost in slots.items() if begin <= at <= end)
        registers, stack, local = map(int, used.groups())
        return cls(registers, stack + local, loop, sum(slots.values()) - loop)


def _dumped(file: Path, what: str) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, what, file], capture_output=True, text=True, check=True).stdout


def report(setting: Setting) -> None:
    """A line for each kernel of each card; which spill is said at the end."""
    if setting.cuda:
        print("code: compiled on any CPU, say --device cpu")
        return
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise RuntimeError("Triton was begun as an interpreter, which compiles nothing.")
    spilling: list[str] = []
    for card, (capability, bandwidth, rate) in CARDS.items():
        print(f"compiled for {card}, batches of 256: registers, bytes spilled, µs by bytes and by instructions")
        with compiling_only(capability) as launches:
            for part in (chains, taps, accumulators):
                whole = 0.0
                for name, times, size, call in part(256):
                    launches.clear()
                    call()
                    launch = launches[0]
                    code = Code.of(launch.compiled)
                    moving, issuing = 1e6 * size / bandwidth, 1e6 * _slots(launch, code, name) / rate
                    whole += times * max(moving, issuing)
                    print(f"  {name:<44} {code.registers:4} {code.spilled:3}{moving:9.0f}{issuing:9.0f}", flush=True)
                    if code.spilled:
                        spilling.append(f"{card} {name}")
                    figures = {"registers": code.registers, "spilled": code.spilled, "µs by bytes": moving}
                    setting.keep(f"machine code {card}", **{f"{name} {what}": value for what, value in figures.items()})
                print(f"  {part.__name__}: at least {whole / 1e3:.2f} ms", flush=True)
        if setting.small:
            break
    print(f"  spilling: {', '.join(spilling) or 'none'}", flush=True)


def _slots(launch: Launch, code: Code, name: str) -> float:
    """Issue slots of one lane, of all: those of loops as often as they turn."""
    constants = launch.constants
    programs = 1
    for size in launch.grid:
        programs *= size
    turns = 1.0
    if launch.name in ("_sweep", "_chain"):
        words = name.split(" x ")[1].split(",")[0]
        places = int(words.rstrip("²")) ** (2 if words.endswith("²") else 1)
        turns = places / launch.grid[2] / (constants["R"] * constants["W"])
    elif launch.name == "_add_labelled":
        turns = 256 / constants["T"]
    elif "BLOCK_N" in constants and launch.name == "_statistics":
        turns = 256 / constants["BLOCK_N"]
    return float(programs * 32 * constants.get("num_warps", 4) * (turns * code.loop + code.rest))
