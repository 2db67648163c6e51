"""Energy counters as Linux shows them, in a directory of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ionn_edge.calibration.energy import energy_counter


def zone(root: Path, name: str, label: str, counted_uJ: int | str, most_uJ: int = 999) -> Path:
    directory = root / name
    directory.mkdir()
    (directory / "name").write_text(f"{label}\n")
    (directory / "energy_uj").write_text(f"{counted_uJ}\n")
    (directory / "max_energy_range_uj").write_text(f"{most_uJ}\n")
    return directory / "energy_uj"


def test_counts_all_packages_and_no_part_of_one_twice(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 10)
    zone(tmp_path, "intel-rapl:0:0", "core", 50)
    zone(tmp_path, "intel-rapl:2", "psys", 50)
    counter = energy_counter(tmp_path)
    assert counter is not None
    first.write_text("350")
    second.write_text("40")
    assert counter.lap_J() == pytest.approx(280e-6)
    assert counter.lap_J() == 0


def test_a_counter_that_started_anew(tmp_path: Path) -> None:
    counted = zone(tmp_path, "intel-rapl:0", "package-0", 990)
    counter = energy_counter(tmp_path)
    assert counter is not None
    counted.write_text("15")
    assert counter.lap_J() == pytest.approx(25e-6)


def test_machines_without_counters_or_that_hide_them(tmp_path: Path) -> None:
    assert energy_counter(tmp_path / "nowhere") is None
    assert energy_counter(tmp_path) is None
    counted = zone(tmp_path, "intel-rapl:0", "package-0", "hidden")
    assert energy_counter(tmp_path) is None
    counted.unlink()
    assert energy_counter(tmp_path) is None
