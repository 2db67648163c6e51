"""Layers that took unexpectedly long get a second turn."""

from __future__ import annotations

from itertools import islice

import pytest

from ionn_edge.calibration.disturbed import MOST_AGAIN, remeasured
from ionn_edge.calibration.measure import Measured
from ionn_edge.calibration.probes import Probe
from ionn_edge.calibration.spread import spread
from layergraph.work import NodeWork

PROBES = [probe for some in islice(spread(), 1) for probe in some][:60]


def layer(size: float, seconds: float) -> Measured:
    return Measured("ReLU", (NodeWork("elementwise", size, 4 * size, 0.0, 4 * size),), seconds)


def calm(index: int) -> Measured:
    return layer(1000.0 * (index + 1), 2e-6 + 1e-8 * (index + 1))


CALM = [calm(index) for index in range(len(PROBES))]


def again(layers: list[Measured], anew: dict[Probe, Measured]) -> tuple[list[Measured], list[int]]:
    """What is kept, and which were measured again."""
    asked: list[int] = []

    def measured(probe: Probe) -> Measured:
        asked.append(PROBES.index(probe))
        return anew[probe]

    return remeasured(list(zip(PROBES, layers, strict=True)), measured), sorted(asked)


def test_what_was_disturbed_is_measured_again_and_the_shorter_time_kept() -> None:
    disturbed = {7: 3.0, 20: 1.8, 41: 40.0}
    layers = [
        layer(each.work[0].flops, disturbed.get(index, 1.0) * each.seconds)
        for index, each in enumerate(CALM)
    ]
    kept, asked = again(layers, dict(zip(PROBES, CALM, strict=True)))
    assert asked == sorted(disturbed)
    assert kept == CALM


def test_a_second_time_that_is_longer_changes_nothing() -> None:
    layers = [*CALM[:-1], layer(60e3, 5e-6)]
    longer = {probe: layer(60e3, 9e-6) for probe in PROBES}
    kept, asked = again(layers, longer)
    assert asked == [59]
    assert kept == layers


def test_calm_layers_are_left_alone() -> None:
    assert again(CALM, {}) == (CALM, [])


def test_where_many_are_slow_only_the_slowest_fifth_has_a_second_turn() -> None:
    layers = [
        layer(each.work[0].flops, (2.0 if index % 2 else 1.0) * each.seconds)
        for index, each in enumerate(CALM)
    ]
    _, asked = again(layers, dict(zip(PROBES, CALM, strict=True)))
    assert 0 < len(asked) <= MOST_AGAIN * len(layers)
    assert all(index % 2 for index in asked)


def test_of_a_few_layers_only_the_slowest_has_a_second_turn() -> None:
    layers = [layer(1000.0, seconds * 1e-6) for seconds in (1.0, 1.0, 2.0, 3.0)]
    asked: list[Probe] = []

    def measured(probe: Probe) -> Measured:
        asked.append(probe)
        return layers[0]

    kept = remeasured(list(zip(PROBES[:4], layers, strict=True)), measured)
    assert asked == [PROBES[3]]
    assert kept == [*layers[:3], layers[0]]


def test_layers_are_one_at_least() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        remeasured([], lambda _: CALM[0])
