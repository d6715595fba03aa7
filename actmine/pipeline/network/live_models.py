"""Placeholder until branch models lands."""

from typing import Any

from actmine.pipeline.network.models import Network


def network_of(module: Any, transform: Any = None, wishes: Any = None, name: str = "") -> Network:
    raise NotImplementedError
