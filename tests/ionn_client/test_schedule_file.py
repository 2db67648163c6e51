"""Schedules in a file: solved once, read again, and never believed when they cannot be right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ionn_client.reports.schedule_file import (
    MOST_BYTES,
    REGRET,
    Schedules,
    cached_schedules,
    check_cache,
)
from planner import LATENCY, RADIOS, LayerCosts, Link, Objective, Power, route
from planner.objective import mobile_energy

LINK = Link(1e6, 4e6, 0.004)
POWER = Power(8.0, 2.0, RADIOS["wifi"])
COSTS = LayerCosts(
    [0.001, 0.080, 0.020, 0.120],
    [0.0001, 0.004, 0.001, 0.006],
    [0, 1e5, 2e5, 9e6],
    [150e3, 150e3, 60e3, 20e3, 4e3],
    [150e3, 150e3, 60e3, 20e3, 4e3],
)
OTHER = LayerCosts([0.1], [0.001], [1e5], [1e3, 1e3], [1e3, 1e3])


def at(path: Path, link: Link = LINK, load: float = 1.0) -> Schedules:
    return cached_schedules(path, COSTS, link, load, LATENCY)


@pytest.fixture(scope="module")
def solved_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("solved") / "schedules.json"
    at(path)
    return path.read_text()


@pytest.fixture
def path(tmp_path: Path, solved_text: str) -> Path:
    """A file of schedules that were solved for `at`'s costs."""
    path = tmp_path / "schedules.json"
    path.write_text(solved_text)
    return path


def test_solved_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    solved = at(path)
    text = path.read_bytes()
    found = at(path)
    assert solved.solved_s is not None
    assert found.solved_s is None
    assert found.lookup() == solved.lookup()
    assert found.cache.regret <= REGRET
    assert path.read_bytes() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("load", [1.0, 8.0])
def test_other_conditions_are_looked_up_within_the_regret(
    path: Path, factor: float, load: float
) -> None:
    link = Link(factor * LINK.up_Bps, LINK.down_Bps, 0.05)
    loaded = LayerCosts(
        COSTS.client_s, load * COSTS.edge_s, COSTS.weight_bytes, COSTS.cut_up_bytes,
        COSTS.cut_down_bytes,
    )  # fmt: skip
    best_s = route(loaded, link, range(4)).latency_s
    assert best_s <= at(path, link, load).lookup().price * (1 + 1e-12)
    assert at(path, link, load).lookup().price <= best_s * (1 + REGRET)


def test_a_worth_of_joules_is_one_of_the_conditions(tmp_path: Path) -> None:
    path, mix = tmp_path / "mix.json", Objective(2.0, 1.0, POWER)
    found = cached_schedules(path, COSTS, LINK, 1.0, mix)
    assert found.s_per_J == 0.5
    best = route(COSTS, LINK, range(4), mix)
    assert best.energy_J is not None
    assert found.lookup().price <= (best.latency_s + 0.5 * best.energy_J) * (1 + REGRET)
    with pytest.raises(ValueError, match="s_per_J is 1; schedules are cached"):
        cached_schedules(path, COSTS, LINK, 1.0, Objective(1.0, 1.0, POWER))


def test_conditions_outside_are_refused_by_name(path: Path) -> None:
    with pytest.raises(ValueError, match=r"schedules\.json: up_Bps is .*Name another file"):
        at(path, Link(1e9, 4e6, 0.004))


def test_schedules_of_another_network_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "schedules.json"
    cached_schedules(path, OTHER, LINK, 1.0, LATENCY)
    text = path.read_bytes()
    with pytest.raises(ValueError, match="solved for other costs"):
        at(path)
    assert path.read_bytes() == text


def _cut(text: str) -> str:
    return text[: len(text) // 2]


def _changed(change: Callable[[Any], object]) -> Callable[[str], str]:
    def changed(text: str) -> str:
        plain = json.loads(text)
        change(plain)
        return json.dumps(plain)

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        lambda _: "",
        lambda _: "[" * 100_000,
        lambda _: "9" * 10_000,
        lambda _: "\udcff",
        lambda _: "null",
        lambda text: text + " " * MOST_BYTES,
        _changed(lambda plain: plain.update(fingerprint="0" * 64)),
        _changed(lambda plain: plain.update(format=2)),
        _changed(lambda plain: plain.pop("region")),
        _changed(lambda plain: plain["region"].update(up_Bps=[float("nan")] * 2)),
        _changed(lambda plain: plain["nodes"].pop()),
        _changed(lambda plain: plain["nodes"].append(plain["nodes"][-1])),
        _changed(lambda plain: plain.update(nodes=[["up_Bps", 0.5]] * 200_000)),
        _changed(lambda plain: plain.update(schedules=[[7]])),
    ],
)
def test_damaged_files_are_refused_and_kept(path: Path, damage: Callable[[str], str]) -> None:
    damaged = damage(path.read_text()).encode(errors="surrogateescape")
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"--cache .*schedules\.json: .*Name another file"):
        at(path)
    assert path.read_bytes() == damaged


def test_where_no_schedules_can_be(tmp_path: Path) -> None:
    check_cache(tmp_path / "new.json", LATENCY)
    with pytest.raises(ValueError, match="no folder"):
        check_cache(tmp_path / "none" / "new.json", LATENCY)
    with pytest.raises(ValueError, match="not a file"):
        check_cache(tmp_path, LATENCY)
    with pytest.raises(ValueError, match="--objective latency or mix"):
        check_cache(tmp_path / "new.json", mobile_energy(POWER))
