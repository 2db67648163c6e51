"""Schedules that are solved once for many conditions, kept in a file, and looked up afterwards.

What `ionn plan --cache` does. The file is JSON, a schedule cache's plain form; it holds for one
network, device and edge, and is never overwritten.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from ionn_client.reports.places import check_folder_of, check_writable
from planner import Cached, LayerCosts, Link, Objective, Region, ScheduleCache

MOST_BYTES = 8 << 20
# What is solved for, round the conditions at hand.
_RATES = 10.0  # from a tenth of each rate to ten times
_LEAST_RTT_S = 0.1  # up to this round trip at least
_LEAST_LOAD = 10.0
REGRET, _MOST_CELLS = 0.01, 1024


@dataclass(frozen=True)
class Schedules:
    """A cache, the file it is in, and what is looked up.

    solved_s: processor time that solving took; None where the file was there. `link`,
    `server_load` and `s_per_J`: the conditions at hand.
    """

    cache: ScheduleCache
    path: Path
    solved_s: float | None
    link: Link
    server_load: float
    s_per_J: float

    def lookup(self) -> Cached:
        """The schedule for the conditions at hand."""
        return self.cache.lookup(self.link, self.server_load, self.s_per_J)


def check_cache(path: Path, objective: Objective) -> None:
    """ValueError unless schedules can be in that file, and for an objective of joules alone."""
    if not objective.s_weight:
        raise ValueError("--cache has schedules by seconds: choose --objective latency or mix")
    if path.exists() and not path.is_file():
        raise ValueError(f"--cache: {path} is not a file")
    folder = check_folder_of("--cache", path)
    if not path.exists():
        check_writable("--cache", folder)


def cached_schedules(
    path: Path, costs: LayerCosts, link: Link, server_load: float, objective: Objective
) -> Schedules:
    """What is in the file, or what is solved now for conditions round these, and saved there.

    costs: with the edge idle. Raises ValueError that names the file where it is damaged, of other
    costs, or not for these conditions.
    """
    s_per_J = objective.J_weight / objective.s_weight
    power = objective.power if s_per_J else None
    solved_s = None
    try:
        if path.exists():
            cache = ScheduleCache.from_plain(_read(path), costs, power)
        else:
            began = time.process_time()
            region = _region(link, server_load, s_per_J)
            cache = ScheduleCache.solve(costs, region, power, regret=REGRET, most_cells=_MOST_CELLS)
            solved_s = time.process_time() - began
            _write(path, cache)
        found = Schedules(cache, path, solved_s, link, server_load, s_per_J)
        found.lookup()
    except ValueError as error:
        raise ValueError(
            f"--cache {path}: {error}. Name another file, or remove it, to solve anew"
        ) from None
    return found


def _region(link: Link, server_load: float, s_per_J: float) -> Region:
    return Region(
        (link.up_Bps / _RATES, link.up_Bps * _RATES),
        (link.down_Bps / _RATES, link.down_Bps * _RATES),
        (0.0, max(_LEAST_RTT_S, 2 * link.rtt_s)),
        (1.0, max(_LEAST_LOAD, 2 * server_load)),
        (s_per_J, s_per_J),
    )


def _read(path: Path) -> object:
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes are no schedule cache")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON, or only a part of it ({error})") from None


def _write(path: Path, cache: ScheduleCache) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(cache.to_plain()), encoding="utf-8")
    part.replace(path)
