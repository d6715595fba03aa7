"""What a run is about: a network, its trace and the chosen layers, as one value that can travel to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from actmine.pipeline.network.layers import Layer, Traced

if TYPE_CHECKING:  # ascent alone needs no loader of weights
    from actmine.pipeline.network.models import Network


class Subject:
    """A network with its chosen layers. A trace cannot be pickled: in another process the network is traced anew."""

    def __init__(self, network: Network, traced: Traced, layers: Sequence[Layer]) -> None:
        self.network, self.traced, self.layers = network, traced, tuple(layers)

    def __getstate__(self) -> dict[str, Any]:
        traced = self.traced
        return {
            "network": self.network, "layers": self.layers, "dictionaries": traced.dictionaries,
            "latent_layers": traced.latent_layers,
        }  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = state["network"]
        traced = Traced(network.module, network.input_shape)
        traced.dictionaries, traced.latent_layers = state["dictionaries"], state["latent_layers"]
        self.__init__(network, traced, state["layers"])  # type: ignore[misc]
