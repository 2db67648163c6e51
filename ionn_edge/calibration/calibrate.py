"""The box's own cost predictor: measured once per machine, kept beside the weights.

The measuring is `measure`'s, in a worker process; here is what is kept, and for how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.workers import jobs
from ionn_edge.workers.engine import EngineError, WorkerGone
from ionn_edge.workers.nursery import Nursery
from planner.accuracy import FOLDS, Accuracy, by_type, cross_validated
from planner.predictor import Predictor, Sample, Unit
from planner.roofline import TERMS
from planner.work import OperatorWork

# Before the first start; `ionn edge calibrate` takes longer and is better.
MEASURE_S = 8.0
TIMEOUT_S = 60.0
# Changes with what is measured and how, so that older results are measured anew.
EDITION = 10
# Launch, operations and bytes of an ordinary processor: better than nothing, and clients
# correct predictions by what they observe.
_ORDINARY = {
    "launch": 5e-6,
    "operations": 2e-11,
    "bytes read": 1e-10,
    "bytes of weights": 1e-10,
    "bytes made": 1e-10,
}
_EXACT = Predictor({}, tuple(_ORDINARY.get(term, 0.0) for term in TERMS))
GENERIC = Predictor.from_plain(_EXACT.to_plain())
log = logging.getLogger("ionn_edge")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What measuring gave: samples in seconds, and in joules where the machine counts them."""

    seconds: tuple[Sample, ...]
    joules: tuple[Sample, ...]
    entry_s: float

    def predictor(self, unit: Unit = "s") -> Predictor:
        """The regression of the samples in this unit. Raises ValueError where there are none."""
        if unit == "s":
            return Predictor.fit(self.seconds, self.entry_s)
        return Predictor.fit(self.joules, unit="J")

    def accuracies(self, unit: Unit = "s") -> list[Accuracy]:
        """Per type of layer, of layers that the regression has not seen."""
        samples = self.seconds if unit == "s" else self.joules
        if len(samples) < FOLDS:
            return []
        guesses = iter(cross_validated(samples, lambda some: _cost_of(some, unit)))
        return by_type(samples, lambda _: next(guesses))


def _cost_of(samples: Sequence[Sample], unit: Unit) -> Any:
    predictor = Predictor.fit(samples, unit=unit)
    return lambda sample: predictor.cost(sample.work)


async def calibrated(box: Box) -> dict[str, Any]:
    """The predictor in plain form, from the store directory or measured now.

    Raises EngineError where no worker can measure.
    """
    config = box.config
    if config.calibration == "off":
        return GENERIC.to_plain()
    path = cache_path(config)
    cached = _read(path) if config.calibration == "auto" else None
    if cached is not None:
        return cached.to_plain()
    log.info("measuring how fast this machine runs layers, this once (ten seconds) ...")
    predictor = (await _measured(box.nursery, MEASURE_S, energy=False)).predictor()
    with contextlib.suppress(OSError):
        # Without it the next start measures again, no more.
        _write(path, predictor)
    return predictor.to_plain()


async def calibrate(config: Config, seconds: float) -> Calibration:
    """Measure now, for about so long, and keep the result for boxes with this store.

    Raises EngineError where no worker can measure, OSError where it cannot be kept.
    """
    config.store.mkdir(parents=True, exist_ok=True)
    nursery = Nursery(config.workers)
    try:
        measured = await _measured(nursery, seconds, energy=True)
    finally:
        await nursery.close()
    _write(cache_path(config), measured.predictor())
    return measured


def cache_path(config: Config) -> Path:
    """One file per machine, torch, device and number of threads."""
    identity = [
        EDITION, platform.node(), platform.machine(), _processor(), os.cpu_count(),
        version("torch"), config.device, config.threads,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return config.store / f"calibration-{key}.json"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line
    return platform.processor()


def _read(path: Path) -> Predictor | None:
    try:
        return Predictor.from_plain(json.loads(path.read_text()))
    except (OSError, ValueError, RecursionError):
        return None


def _write(path: Path, predictor: Predictor) -> None:
    """Whole or not at all, also beside a box that starts."""
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(predictor.to_plain()))
    unfinished.replace(path)


async def _measured(nursery: Nursery, seconds: float, energy: bool) -> Calibration:
    worker, timeout_s = await nursery.fork(), TIMEOUT_S + 3 * seconds
    try:
        worker.send(jobs.Calibrate(seconds, energy))
        async with asyncio.timeout(timeout_s):
            answer = await worker.receive()
    except (WorkerGone, TimeoutError) as error:
        busy = f"it took more than {timeout_s:.0f} s, so others keep it busy"
        why = busy if isinstance(error, TimeoutError) else error
        advice = "`ionn edge serve --calibration off` does without"
        raise EngineError(f"this machine cannot be measured: {why}; {advice}") from error
    finally:
        await worker.close()
    assert isinstance(answer, jobs.Calibrated)
    return calibration(answer)


def calibration(answer: jobs.Calibrated) -> Calibration:
    """A worker's rows as samples."""
    timed, powered = [], []
    for type, operators, seconds, joules in answer.samples:
        work = tuple(OperatorWork(*operator) for operator in operators)
        timed.append(Sample(work, seconds, type))
        if joules is not None:
            powered.append(Sample(work, joules, type))
    return Calibration(tuple(timed), tuple(powered), answer.entry_s)
