"""The slowdown that clients are told."""

from __future__ import annotations

import pytest

from ionn_edge.load import LoadMeter


def test_an_idle_box_is_not_slow() -> None:
    assert LoadMeter().slowdown(100.0) == 1.0


def test_ranges_that_take_what_they_took_are_not_slow() -> None:
    meter = LoadMeter()
    for now in range(10):
        meter.ran("m", 0, 3, 0.1, float(now))
        meter.ran("m", 3, 9, 0.4, float(now))
    assert meter.slowdown(10.0) == pytest.approx(1.0)


def test_the_slowdown_is_recent_time_over_the_best_of_the_same_range() -> None:
    meter = LoadMeter()
    meter.ran("m", 0, 3, 0.1, 0.0)
    meter.ran("m", 3, 9, 1.0, 0.0)
    for step in range(40):
        meter.ran("m", 0, 3, 0.3, 100.0 + step)
    assert meter.slowdown(139.0) == pytest.approx(3.0, rel=0.05)
    assert meter.slowdown(139.0 + 60.0) == pytest.approx(1.0, rel=0.05)


def test_jitter_of_tiny_ranges_is_not_a_slowdown() -> None:
    meter = LoadMeter()
    meter.ran("m", 0, 1, 20e-6, 0.0)
    for _ in range(20):
        meter.ran("m", 0, 1, 100e-6, 0.0)
    assert meter.slowdown(0.0) < 1.1


def test_clients_are_told_once_of_each_large_change() -> None:
    meter = LoadMeter()
    meter.ran("m", 0, 3, 0.1, 0.0)
    assert not meter.changed_much(0.0)
    for _ in range(20):
        meter.ran("m", 0, 3, 0.2, 1.0)
    assert meter.changed_much(1.0)
    assert not meter.changed_much(1.0)
    assert meter.changed_much(100.0)


def test_only_so_many_ranges_are_remembered() -> None:
    meter = LoadMeter()
    for start in range(5000):
        meter.ran("m", start, start + 1, 0.1, 0.0)
    assert len(meter._best_s) == 4096


def test_what_is_forgotten_is_not_compared_with() -> None:
    meter = LoadMeter()
    for model in ("glasses m", "watch m"):
        meter.ran(model, 0, 3, 0.1, 0.0)
    meter.forget("glasses")
    meter.ran("glasses m", 0, 3, 0.9, 0.0)
    assert meter.slowdown(0.0) == pytest.approx(1.0)
    meter.ran("watch m", 0, 3, 0.9, 0.0)
    assert meter.slowdown(0.0) > 1.4
