"""Joules that the processor has used, from the counters that Linux shows of RAPL.

/sys/class/powercap (kernel documentation, "Power Capping Framework") has a directory for each
processor package, whose `energy_uj` counts microjoules and starts anew at `max_energy_range_uj`.
A package's joules are of everything that runs on it. Virtual machines have none, and since 2020
only the superuser may read them.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/class/powercap")
# Counters move about every millisecond: what is measured lasts many of these.
LEAST_S = 0.02


@dataclass(frozen=True, slots=True)
class _Zone:
    counter: Path
    range_uJ: int

    def read_uJ(self) -> int:
        return int(self.counter.read_text())


class EnergyCounter:
    """Joules between readings, of all processor packages."""

    def __init__(self, zones: list[_Zone]) -> None:
        self._zones = zones
        self._last_uJ = [zone.read_uJ() for zone in zones]

    def lap_J(self) -> float:
        """Joules since the last call, or since the counter was made. Raises OSError, ValueError."""
        now_uJ = [zone.read_uJ() for zone in self._zones]
        used_uJ = sum(
            (now - last) % (zone.range_uJ + 1)
            for zone, now, last in zip(self._zones, now_uJ, self._last_uJ, strict=True)
        )
        self._last_uJ = now_uJ
        return used_uJ * 1e-6


def energy_counter(root: Path = ROOT) -> EnergyCounter | None:
    """The counter of this machine's packages; None where it has none, or hides it."""
    zones = []
    with contextlib.suppress(OSError, ValueError):
        for directory in sorted(root.glob("*-rapl:*")):
            # "intel-rapl:0" is a package (AMD's too); "intel-rapl:0:1" a part of it.
            if directory.name.count(":") != 1:
                continue
            if (directory / "name").read_text().startswith("package"):
                most_uJ = int((directory / "max_energy_range_uj").read_text())
                zones.append(_Zone(directory / "energy_uj", most_uJ))
        return EnergyCounter(zones) if zones else None
    return None
