"""What one seed's run is, and what became of it: simulate(seed)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

import ionn_client.coding
import ionn_client.machine.queries
import ionn_edge.box
import ionn_edge.config
import ionn_edge.link
import ionn_edge.served
import ionn_edge.storage.admission
import ionn_edge.storage.writing
import wire.segments
from tests.simulation.edge import disks_that_fill
from tests.simulation.loop import Stuck
from tests.simulation.models import NAMES, model
from tests.simulation.scenario import Scenario
from tests.simulation.world import World, line

# Those that count seconds of processor time.
_TIMED = (
    ionn_client.coding,
    ionn_edge.box,
    ionn_edge.link,
    ionn_edge.served,
    ionn_edge.storage.admission,
)


@dataclass(slots=True)
class Outcome:
    """What became of a seed. `problem` is None where everything held."""

    seed: int
    faults: tuple[str, ...]
    problem: str | None
    events: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    virtual_s: float = 0.0


class _Ticks:
    """What seconds of processor time are: the real ones would differ in each run."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    def __call__(self) -> float:
        return next(self._ticks) * 1e-5


@contextlib.contextmanager
def _sizes(scenario: Scenario) -> Iterator[None]:
    """Short segments, tensors coded beside and uploads soon taken over, in times as short."""
    ticks = _Ticks()
    clocks = SimpleNamespace(thread_time=ticks, perf_counter=ticks)
    changes = (
        (wire.segments, "_WHOLE_SEGMENT_BYTES", scenario.segment_bytes),
        (wire.segments, "_PLANE_SEGMENT_ELEMENTS", scenario.segment_bytes // 2),
        (ionn_client.machine.queries, "INLINE_BYTES", scenario.coded_apart_bytes),
        (ionn_edge.box, "TAKEOVER_S", scenario.takeover_s),
        (ionn_edge.storage.writing, "MAX_UNSTORED_BYTES", scenario.unstored_bytes),
        (ionn_edge.storage.writing, "TOGETHER_BYTES", scenario.unstored_bytes),
        (ionn_edge.config, "usable_threads", lambda: scenario.edge_processors),
        *((module, "time", clocks) for module in _TIMED),
    )
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


@contextlib.contextmanager
def _quiet_operator() -> Iterator[None]:
    """What the edge tells its operator about: nothing of it is unexpected here."""
    log = logging.getLogger("ionn_edge")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


def settle_memory() -> None:
    """For a process that runs many seeds: what all of them share is made, and collected no more.

    What a seed leaves is collected seldom, and together.
    """
    for name in (*NAMES, "wide"):
        for variant in range(3):
            model(name, variant)
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 10, 10)


def simulate(seed: int, trace: bool = False, faults: Sequence[str] | None = None) -> Outcome:
    """One seed's world, from its start to its rest; with these faults instead of its own."""
    torch.set_num_threads(1)
    scenario = Scenario.draw(seed)
    if faults is not None:
        scenario = replace(scenario, faults=tuple(faults))
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="ionn-", dir=memory if memory.is_dir() else None))
    try:
        with _sizes(scenario), disks_that_fill(), _quiet_operator():
            return _simulated(scenario, root, trace)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _simulated(scenario: Scenario, root: Path, trace: bool) -> Outcome:
    world = World(scenario, root, trace)
    loop = world.loop
    loop.set_exception_handler(lambda _, context: world.violated(*_of(context)))
    asyncio.set_event_loop(loop)
    before, sys.unraisablehook = sys.unraisablehook, lambda each: world.violated(*_of_end(each))
    try:
        with warnings.catch_warnings():
            # A coroutine that nobody awaits is work that nobody does.
            warnings.simplefilter("error", RuntimeWarning)
            loop.run_until_complete(world.run())
    except Stuck as stuck:
        world.violated(str(stuck))
    except Exception as error:
        world.violated(f"the simulation itself failed: {error!r}", error)
    finally:
        asyncio.set_event_loop(None)
        loop.close()
        sys.unraisablehook = before
    events = [] if world.problem is None else [line(event) for event in world.events]
    return Outcome(scenario.seed, scenario.faults, world.problem, events, world.counts, loop.time())


def _of_end(each: Any) -> tuple[str, BaseException | None]:
    return f"at the end of {each.object!r}: {each.exc_value}", each.exc_value


def _of(context: dict[str, Any]) -> tuple[str, BaseException | None]:
    return f"in a callback: {context.get('message')}", context.get("exception")
