"""In which order to upload the weights: one entry for every algorithm.

The algorithms themselves live in a file each; a plan is only an order, grouped in partitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from planner.costs import LayerCosts, Link
from planner.efficiency import efficiency_partitions
from planner.emdl import emdl_partitions
from planner.exact import exact_order
from planner.ionn import ionn_partitions

Algorithm: TypeAlias = Literal[
    "efficiency", "ionn", "emdl", "all-at-once", "front-to-back", "exact"
]
Partitions: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """Layers in the order in which to upload their weights, grouped into partitions."""

    algorithm: str
    partitions: Partitions

    @property
    def layers(self) -> tuple[int, ...]:
        """All layers of the plan in upload order."""
        return tuple(layer for partition in self.partitions for layer in partition)


def upload_plan(
    costs: LayerCosts, link: Link, algorithm: Algorithm = "efficiency", k: float = 0.5
) -> UploadPlan:
    """The order in which to upload the weights of `costs` over `link`.

    Partitions hold layers that have weights, each once. Algorithms:

    - "efficiency" (default): the contiguous block with the largest latency reduction per byte
      first, again and again, each block's layers in the order that pays soonest; then improved
      by exact windows (`planner.efficiency`). Layers that pay nothing on this link come last.
    - "ionn": SoCC'18 Algorithm 1 with its K = `k`, 0 < k < 1 (`planner.ionn`). Layers that it
      never picks are not in the plan, as published.
    - "emdl": EMDL'19's blocks by efficiency (`planner.emdl`), to be acknowledged block by block.
      Layers that pay nothing are not in the plan.
    - "all-at-once": one partition, front to back. "front-to-back": a partition per layer.
    - "exact": the least mean latency of all orders, when each layer counts as soon as it is
      acknowledged (`planner.exact`); at most 20 layers with weights.

    Raises ValueError for an unknown algorithm, for `k` outside (0, 1) with "ionn", and for more
    than 20 weighted layers with "exact".
    """
    if not (isinstance(algorithm, str) and algorithm in _ALGORITHMS):
        known = ", ".join(_ALGORITHMS)
        raise ValueError(f"no upload algorithm {algorithm!r}; there are {known}")
    return UploadPlan(algorithm, _ALGORITHMS[algorithm](costs, link, k))


def _one_by_one(layers: tuple[int, ...]) -> Partitions:
    return tuple((layer,) for layer in layers)


_ALGORITHMS: dict[str, Callable[[LayerCosts, Link, float], Partitions]] = {
    "efficiency": lambda costs, link, _: efficiency_partitions(costs, link),
    "ionn": ionn_partitions,
    "emdl": lambda costs, link, _: emdl_partitions(costs, link),
    "all-at-once": lambda costs, _, __: (costs.weighted,) if costs.weighted else (),
    "front-to-back": lambda costs, _, __: _one_by_one(costs.weighted),
    "exact": lambda costs, link, _: _one_by_one(exact_order(costs, link)),
}
