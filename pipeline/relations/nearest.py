"""The nearest of many vectors of norm 1 to each of others, by their products: searched here or by faiss, alike.

Either search only proposes: the products of what it found are computed once more in one way and put in a total order,
so that a device, faiss or the number of threads change no byte of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.spoken import install
from pipeline.words import EXACT, FAISS, SEARCHES

_SPARE = 22  # proposals beyond those asked for: room for what a search rounds otherwise
_ROUNDING = 1e-5
_TIED = 1024
_PRODUCTS = 1 << 25  # in memory at once
_GATHERED = 1 << 22  # numbers of proposed vectors in memory at once

Propose = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Of queries `[Q, L]` the places and products of so many of the base, about the nearest: two `[Q, C]`."""


def check_search(search: str) -> None:
    """Raises `UserError` for a search that there is not, and for faiss where it is not installed."""
    if search not in SEARCHES:
        raise UserError(f"--search {search} is none of {', '.join(SEARCHES)}.")
    if search == FAISS:
        _faiss()


def described(search: str) -> str:
    """A search for the record: with its version, and where faiss has GPUs, how many."""
    if search != FAISS:
        return search
    faiss = _faiss()
    gpus = _gpus(faiss)
    return f"faiss {faiss.__version__} (IndexFlatIP{f', {gpus} GPUs' if gpus else ''})"


class Nearest:
    """Finds the nearest rows of `base` `[N, L]`, float32, every row of norm 1."""

    def __init__(self, base: np.ndarray, device: torch.device | str = "cpu", search: str = EXACT) -> None:
        check_search(search)
        self._base = np.ascontiguousarray(base)
        self._on_device = torch.from_numpy(self._base).to(device)
        self._propose: Propose = self._by_products if search == EXACT else _by_faiss(self._base)

    def __call__(self, queries: np.ndarray, count: int, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Of each query `[Q, L]` the places (int64) and products (float32) of the `count` nearest rows, best first.

        Two `[Q, count]`, narrower where the base has fewer rows. Products are those of float64, rounded; ties go to the
        earlier place. `own` `[Q]`: the place of each query in the base, which is never found.
        """
        count = min(count, len(self._base) - (own is not None))
        if count < 1 or not len(queries):
            shape = len(queries), max(count, 0)
            return np.empty(shape, np.int64), np.empty(shape, np.float32)
        proposed = min(count + _SPARE + (own is not None), len(self._base))
        rows = max(1, _PRODUCTS // len(self._base))
        parts = [
            self._settled(queries[at : at + rows], count, proposed, None if own is None else own[at : at + rows])
            for at in range(0, len(queries), rows)
        ]
        return np.concatenate([places for places, _ in parts]), np.concatenate([found for _, found in parts])

    def _settled(
        self, queries: np.ndarray, count: int, proposed: int, own: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        places, rough = self._propose(queries, proposed)
        products = self._products(queries, places)
        if own is not None:
            products[places == own[:, None]] = -np.inf
        kept_places, kept = _best(places, products, count)
        if proposed < len(self._base):  # where as much as the last proposal may be kept, so may others be
            for row in np.flatnonzero(kept[:, -1] <= rough.min(1) + _ROUNDING):
                self_at = None if own is None else own[row]
                kept_places[row], kept[row] = self._tied(queries[row], kept[row, -1], count, self_at)
        return kept_places, kept

    def _tied(self, query: np.ndarray, least: float, count: int, own: int | None) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of all rows that come near `least`: the first thousand of them, where so many tie."""
        rough = (self._on_device @ torch.from_numpy(query).to(self._on_device.device)).cpu().numpy()
        if own is not None:
            rough[own] = -np.inf
        above = np.flatnonzero(rough > least + _ROUNDING)
        near = np.flatnonzero(np.abs(rough - least) <= _ROUNDING)[:_TIED]
        places = np.concatenate([above, near])[None]
        places, products = _best(places, self._products(query[None], places), count)
        return places[0], products[0]

    def _products(self, queries: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Those of each query `[Q, L]` with the rows at its `places` `[Q, C]`: summed in float64, float32 `[Q, C]`."""
        found = np.empty(places.shape, np.float32)
        step = max(1, _GATHERED // (places.shape[1] * queries.shape[1]))
        for at in range(0, len(queries), step):
            some, rows = queries[at : at + step], self._base[places[at : at + step]]
            found[at : at + step] = np.einsum("ql,qcl->qc", some.astype(np.float64), rows.astype(np.float64))
        return found

    def _by_products(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        products = torch.from_numpy(queries).to(self._on_device.device) @ self._on_device.t()
        found, places = products.topk(count, dim=1)
        return places.cpu().numpy(), found.cpu().numpy()


def _best(places: np.ndarray, products: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` of each row by product, then by place."""
    order = np.lexsort((places, -products), axis=1)[:, :count]
    return np.take_along_axis(places, order, 1), np.take_along_axis(products, order, 1)


def _by_faiss(base: np.ndarray) -> Propose:
    faiss = _faiss()
    index: Any = faiss.IndexFlatIP(base.shape[1])
    if _gpus(faiss):
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(base)

    def propose(queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        found, places = index.search(np.ascontiguousarray(queries), count)
        return places, found

    return propose


def _gpus(faiss: ModuleType) -> int:
    """How many GPUs this build of faiss has; those for CPUs know none."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(f"--search faiss needs faiss: {install('index')}, or leave it out.") from error
    return faiss
