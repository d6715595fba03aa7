"""The nearest of many vectors of norm 1 to each of others, by their products: searched here or by faiss, alike.

Either search only proposes: the products of what it found are computed once more in one way and put in a total order,
so that a device, faiss or the number of threads change no byte of a table.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import torch

from actmine.pipeline.cores import usable_cores
from actmine.pipeline.errors import UserError
from actmine.pipeline.relations.proposals import Proposals
from actmine.pipeline.spoken import install
from actmine.pipeline.words import EXACT, FAISS, SEARCHES

_SPARE = 6  # proposals beyond those asked for: room for what a search rounds otherwise
_ROUNDING = 1e-5
_TIED = 1024
_TILE = 2048  # rows and columns of products in memory at once: 16 MiB
_GATHERED = 1 << 19  # numbers of proposed vectors in memory at once, on each core

Advance = Callable[[int], object]


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
    """Finds the nearest rows of `base` `[N, L]`, float32, every row of norm 1.

    Beside the vectors it takes 16 MiB for products, 8 MiB for each core, and 12 bytes for each proposal: of every query
    six more than are asked for.
    """

    def __init__(self, base: np.ndarray, device: torch.device | str = "cpu", search: str = EXACT) -> None:
        check_search(search)
        self._base = np.ascontiguousarray(base)
        self._on_device = torch.from_numpy(self._base).to(device)
        self._index = _flat_index(self._base) if search == FAISS else None

    def __call__(
        self, queries: np.ndarray, count: int, advance: Advance = lambda done: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of each query `[Q, L]` the places (int64) and products (float32) of the `count` nearest rows, best first.

        Two `[Q, count]`, narrower where the base has fewer rows. Products are those of float64, rounded; ties go to the
        earlier place. `advance` hears of how many queries are done.
        """
        return self._found(queries, count, advance, among=False)

    def among(self, count: int, advance: Advance = lambda done: None) -> tuple[np.ndarray, np.ndarray]:
        """As if each row of the base were a query, which is never found itself."""
        return self._found(self._base, count, advance, among=True)

    def _found(self, queries: np.ndarray, count: int, advance: Advance, among: bool) -> tuple[np.ndarray, np.ndarray]:
        count = min(count, len(self._base) - among)
        if count < 1 or not len(queries):
            shape = len(queries), max(count, 0)
            return np.empty(shape, np.int64), np.empty(shape, np.float32)
        proposed = min(count + _SPARE, len(self._base) - among)
        if self._index is not None:
            places, rough = _by_faiss(self._index, queries, proposed, among, advance)
        elif among:
            places, rough = self._by_pairs(proposed, advance)
        else:
            places, rough = self._by_products(queries, proposed, advance)
        places, products = _best(places, self._products(queries, places), count)
        if proposed < len(self._base) - among:  # where as much as the last proposal may be kept, so may others be
            for row in np.flatnonzero(products[:, -1] <= rough.min(1) + _ROUNDING):
                own = int(row) if among else None
                places[row], products[row] = self._tied(queries[row], products[row, -1], count, own)
        return places, products

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

        def compute(at: int) -> None:
            some, rows = queries[at : at + step], self._base[places[at : at + step]]
            found[at : at + step] = np.einsum("ql,qcl->qc", some.astype(np.float64), rows.astype(np.float64))

        with ThreadPoolExecutor(usable_cores(), "products") as pool:
            list(pool.map(compute, range(0, len(queries), step)))
        return found

    def _by_products(self, queries: np.ndarray, count: int, advance: Advance) -> tuple[np.ndarray, np.ndarray]:
        """Of each query the places and products of so many of the base, about the nearest: two `[Q, count]`."""
        parts = []
        for at in range(0, len(queries), _TILE):
            some = torch.from_numpy(queries[at : at + _TILE]).to(self._on_device.device)
            proposals = Proposals(len(some), count, some.device)
            for begin in range(0, len(self._base), _TILE):
                proposals.take(some @ self._on_device[begin : begin + _TILE].t(), begin)
            parts.append(proposals.found())
            advance(len(some))
        return np.concatenate([places for places, _ in parts]), np.concatenate([values for _, values in parts])

    def _by_pairs(self, count: int, advance: Advance) -> tuple[np.ndarray, np.ndarray]:
        """The same of each row of the base, without itself: each pair's product is computed once, for both."""
        starts = range(0, len(self._base), _TILE)
        parts = [self._on_device[at : at + _TILE] for at in starts]
        proposals = [Proposals(len(part), count, part.device) for part in parts]
        for one, (begin, ours) in enumerate(zip(starts, parts, strict=True)):
            for two in range(one, len(parts)):
                products = ours @ parts[two].t()
                if one == two:
                    products.fill_diagonal_(-torch.inf)
                else:
                    proposals[two].take(products.t(), begin)
                proposals[one].take(products, starts[two])
            advance(len(ours))
        found = [each.found() for each in proposals]
        return np.concatenate([places for places, _ in found]), np.concatenate([values for _, values in found])


def _best(places: np.ndarray, products: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` of each row by product, then by place."""
    order = np.lexsort((places, -products), axis=1)[:, :count]
    return np.take_along_axis(places, order, 1), np.take_along_axis(products, order, 1)


def _by_faiss(
    index: Any, queries: np.ndarray, count: int, among: bool, advance: Advance
) -> tuple[np.ndarray, np.ndarray]:
    """The same by faiss; a row of the base is struck out of what is found for itself."""
    parts = []
    for at in range(0, len(queries), _TILE):
        values, places = index.search(np.ascontiguousarray(queries[at : at + _TILE]), count + among)
        if among:
            own = places == np.arange(at, at + len(places))[:, None]
            own[~own.any(1), -1] = True  # it was not found, so the last goes
            values, places = (each[~own].reshape(-1, count) for each in (values, places))
        parts.append((places, values))
        advance(len(places))
    return np.concatenate([places for places, _ in parts]), np.concatenate([values for _, values in parts])


def _flat_index(base: np.ndarray) -> Any:
    faiss = _faiss()
    index = faiss.IndexFlatIP(base.shape[1])
    if _gpus(faiss):
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(base)
    return index


def _gpus(faiss: ModuleType) -> int:
    """How many GPUs this build of faiss has; those for CPUs know none."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(f"--search faiss needs faiss: {install('index')}, or leave it out.") from error
    return faiss
