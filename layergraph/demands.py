"""How an operator's check refuses: what arguments are called, and what is demanded of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layergraph.nodes import TensorSpec

# By schema name, tensors as TensorSpec.
Arguments = Mapping[str, Any]


def demand(condition: bool, message: str) -> None:
    """Raises ValueError with the message where the condition does not hold."""
    if not condition:
        raise ValueError(message)


def demand_shape(name: str, spec: TensorSpec | None, *expected: int) -> None:
    """Raises ValueError where a tensor that is there has another shape."""
    if spec is not None:
        demand(spec.shape == expected, f"{name} is {spec}, not of shape {list(expected)}")
