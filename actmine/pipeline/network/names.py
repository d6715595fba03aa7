"""What each call inside a network is called: one name for one call."""

from __future__ import annotations

import re
from collections import Counter

from torch import nn


class Names:
    """Gives names as torchvision does: a module's path, a function's below its caller's, `_1`, `_2` where called again.

    But a path is that of its own module alone, whatever it ends with: the second call of `relu` beside a module
    `relu_1` is `relu_2`.
    """

    def __init__(self, network: nn.Module) -> None:
        self._paths = {name for name, _ in network.named_modules(remove_duplicate=False)}
        self._calls: Counter[str] = Counter()
        self._given: set[str] = set()

    def of_module(self, path: str) -> str:
        """The name of the next call of the module at `path`."""
        return self._next(path, path)

    def of_function(self, caller: str, node: str) -> str:
        """The name of the next function called by the module at `caller`; `node` is what torch.fx calls it."""
        word = re.sub(r"(.)_[0-9]+$", r"\1", node)
        return self._next(f"{caller}.{word}" if caller else word, None)

    def _next(self, base: str, own: str | None) -> str:
        while True:
            name = base if not self._calls[base] else f"{base}_{self._calls[base]}"
            self._calls[base] += 1
            if name not in self._given and (name == own or name not in self._paths):
                self._given.add(name)
                return name
