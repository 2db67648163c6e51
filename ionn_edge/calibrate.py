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
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ionn_edge import jobs
from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.engine import EngineError, WorkerGone
from planner.predictor import Predictor, Sample

MEASURE_S = 2.0
TIMEOUT_S = 60.0
# Changes with what is measured and how, so that older results are measured anew.
EDITION = 1
# Launch, operations and bytes of an ordinary processor: better than nothing, and clients
# correct predictions by what they observe.
GENERIC = Predictor({}, (1e-5, 2e-11, 1e-10))
log = logging.getLogger("ionn_edge")


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
    log.info("measuring how fast this machine runs layers, this once (a few seconds) ...")
    plain = (await _measured(box)).to_plain()
    with contextlib.suppress(OSError):
        # Without it the next start measures again, no more.
        path.write_text(json.dumps(plain))
    return plain


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
    except (OSError, ValueError):
        return None


async def _measured(box: Box) -> Predictor:
    worker = await box.nursery.fork()
    try:
        worker.send(jobs.Calibrate(MEASURE_S))
        async with asyncio.timeout(TIMEOUT_S):
            answer = await worker.receive()
    except (WorkerGone, TimeoutError) as error:
        raise EngineError(f"the box cannot be measured ({error}); --calibration off") from error
    finally:
        await worker.close()
    assert isinstance(answer, jobs.Calibrated)
    return Predictor.fit(Sample(*row) for row in answer.samples)
