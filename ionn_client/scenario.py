"""IONN's scenario (SoCC'18 section 5.2): 0.5 s of preparation, a query, 0.5 s, a query ..."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from ionn_client.offload import Offload
from wire import PRECISIONS

PREPARATION_S = 0.5
# "Equal" where the two sides compute alike; else within this of the largest element.
TOLERANCE = 1e-4
EXACT = PRECISIONS[-1]


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a scenario. `time_s` since the session began; `difference` from the local
    model's answer: the largest, relative to the answer's largest element; 0 if bitwise equal.
    `same_top`: whether the largest element of the first tensor is where the local model has it.
    `lossy`: activations crossed with loss. `energy_J`: what the device drew, by its power model;
    `battery_J`: what was left then; None without a power, and without a battery."""

    time_s: float
    latency_s: float
    predicted_s: float
    served_by: str
    ranges: tuple[tuple[str, int, int], ...]
    fallback_reason: str | None
    difference: float
    phase: str
    precision: str = EXACT
    same_top: bool = True
    lossy: bool = False
    energy_J: float | None = None
    battery_J: float | None = None

    @property
    def exact(self) -> bool:
        """Whether it claims to be the local model's answer."""
        return self.precision == EXACT and not self.lossy

    @property
    def wrong(self) -> bool:
        """An answer that claims to be exact, and is not."""
        return self.exact and self.difference > TOLERANCE


async def run_scenario(
    net: Offload,
    inputs: Sequence[tuple[Any, ...]],
    references: Sequence[Any],
    stop: Callable[[float, Sequence[Asked]], bool],
    on_query: Callable[[Asked], None] = lambda _: None,
    preparation_s: float = PREPARATION_S,
    deadline_s: float | None = None,
) -> list[Asked]:
    """Query `net` with the inputs in turn until `stop(time_s, asked so far)`.

    references: the local model's answers to `inputs`.
    """
    loop = asyncio.get_running_loop()
    began, asked = loop.time(), list[Asked]()
    while not stop(loop.time() - began, asked):
        await asyncio.sleep(preparation_s)
        index = len(asked) % len(inputs)
        time_s, phase = loop.time() - began, net.status.phase
        result = await net.query(*inputs[index], deadline_s=deadline_s)
        asked.append(
            Asked(
                time_s,
                result.latency_s,
                result.predicted_s,
                result.served_by,
                tuple((part.where, part.start, part.stop) for part in result.ranges),
                result.fallback_reason,
                difference(result.value, references[index]),
                phase,
                result.precision,
                same_top(result.value, references[index]),
                result.lossy,
                result.energy_J,
                net.status.battery_J,
            )
        )
        on_query(asked[-1])
    return asked


def difference(value: Any, reference: Any) -> float:
    """Largest difference of two answers, relative to the reference's largest element.

    0 exactly if they are bitwise equal; infinite if they differ in structure or shape.
    """
    ours, theirs = tree_leaves(value), tree_leaves(reference)
    if len(ours) != len(theirs):
        return float("inf")
    return max((_leaf_difference(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def same_top(value: Any, reference: Any) -> bool:
    """Whether the first tensors of two answers have their largest element at the same place."""
    ours, theirs = map(_first_tensor, (value, reference))
    if ours is None or theirs is None or not theirs.numel():
        return ours is theirs
    return ours.shape == theirs.shape and bool(ours.argmax() == theirs.argmax())


def _first_tensor(tree: Any) -> torch.Tensor | None:
    return next((leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)), None)


def _leaf_difference(ours: Any, theirs: Any) -> float:
    if not isinstance(theirs, torch.Tensor):
        return 0.0 if ours == theirs else float("inf")
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return float("inf")
    if torch.equal(ours, theirs):
        return 0.0
    scale = theirs.abs().max().double().clamp_min(1e-30)
    return float((ours.double() - theirs.double()).abs().max() / scale)


def mean_over_time_s(asked: Sequence[Asked], horizon_s: float) -> float:
    """Mean latency of a query asked at any time in [0, horizon]: what planner.timeline predicts.

    Between two queries the latency is interpolated; queries alone would weigh fast times more,
    because more of them fit in.
    """
    times = np.array([query.time_s for query in asked])
    latencies = np.array([query.latency_s for query in asked])
    inside = (times > 0) & (times < horizon_s)
    grid = np.concatenate([[0.0], times[inside], [horizon_s]])
    return float(np.trapezoid(np.interp(grid, times, latencies), grid) / horizon_s)
