"""What callers from Python have in hand, where a command line has only names: a network, its transform, a dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actmine.pipeline.errors import UserError

if TYPE_CHECKING:  # a finished run is read without them
    from torch import nn

    from actmine.pipeline.datasets.sources import Dataset
    from actmine.pipeline.network.dictionary_layers import Asked
    from actmine.pipeline.network.models import Network
    from actmine.pipeline.preprocessing.options import PreprocessingOptions
    from actmine.pipeline.progress import Progress


@dataclass(frozen=True, slots=True)
class Live:
    """A `module` in place of MODEL, the `transform` that makes its input of an image, a `dataset` in place of DATASET.

    None where the options name them. `dictionaries` are those by `LAYER` or `LAYER:NAME`: paths and objects.
    """

    module: nn.Module | None = None
    transform: Callable[..., Any] | None = None
    dataset: Dataset | None = None
    dictionaries: Mapping[str, Any] | None = None

    def latents(self, word: str = "", tokens: str = "", pool: str = "max") -> list[Asked]:
        """The live dictionaries, or those that DICTIONARY names. Raises `UserError` for words that name none."""
        from actmine.pipeline.network.dictionary_layers import of_objects, parse_dictionaries

        if self.dictionaries is None:
            return parse_dictionaries(word, tokens, pool)
        return of_objects(self.dictionaries, tokens, pool)

    def network(self, name: str, weights: str, overrides: PreprocessingOptions | None = None) -> Network:
        """The live network, or the one that is called `name`. Raises `UserError` for what cannot be one."""
        from actmine.pipeline.network.live_models import network_of
        from actmine.pipeline.network.models import load_network
        from actmine.pipeline.preprocessing.options import PreprocessingOptions

        overrides = overrides or PreprocessingOptions()
        if self.module is not None:
            if weights not in ("", "random"):
                raise UserError(f"WEIGHTS={weights!r}: a module has its weights. Load them into it, or leave it out.")
            return network_of(self.module, self.transform, overrides, name)
        if self.transform is not None:
            raise UserError(
                f"A transform goes with a module of your own; {name} has one. The words resize, crop, "
                "interpolation, mean and std change it."
            )
        return load_network(name, weights, overrides)

    def source(self, word: str, root: Path, progress: Progress) -> Dataset:
        """The live dataset, or the one that DATASET names. Raises `UserError` for what cannot be one."""
        from actmine.pipeline.datasets.sources import find_dataset

        return find_dataset(word, root, progress) if self.dataset is None else self.dataset


NOTHING_LIVE = Live()
