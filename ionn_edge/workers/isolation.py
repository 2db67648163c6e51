"""Whether workers are shut in on this machine: seen by having one try to get out.

Imports no torch. What is tried is in `escapes`, what shuts them in, in `sandbox`.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ionn_edge.workers import escapes, jobs
from ionn_edge.workers.engine import EngineError, WorkerGone
from ionn_edge.workers.nursery import Nursery

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a worker was seen to be kept from here, in words: "no network".

    `fails` is what it could do all the same, with how: "no network (netlink)".
    """

    holds: tuple[str, ...]
    fails: tuple[str, ...]

    @property
    def strong(self) -> bool:
        """Whether strangers may send this box graphs."""
        return not self.fails

    def __str__(self) -> str:
        held = ", ".join(self.holds) or "nothing"
        if self.strong:
            return held
        return f"weak, lacking {'; '.join(self.fails)}; held: {held}"


async def isolation(nursery: Nursery, directory: Path) -> Isolation:
    """Fork a worker and have it try to get out of a store in this directory.

    Raises EngineError where no worker can be had, or where one cannot read its own files there,
    OSError where the directory cannot be written to.
    """
    with tempfile.TemporaryDirectory(prefix=".trial-", dir=directory) as trial:
        for name in (escapes.OWN, escapes.OTHERS):
            (Path(trial) / name).mkdir(mode=0o700)
            (Path(trial) / name / escapes.WEIGHT).write_bytes(b"weight")
        answer = await _tried(nursery, Path(trial))
    if not answer.readable:
        raise EngineError(
            f"a worker cannot read files in {directory}: it has no privileges, not even root's;"
            " give the directory to the user that runs the edge"
        )
    return Isolation(answer.holds, answer.fails)


async def _tried(nursery: Nursery, trial: Path) -> jobs.Escapes:
    worker = await nursery.fork()
    try:
        worker.send(jobs.TryEscapes(str(trial), str(trial / escapes.OWN)))
        async with asyncio.timeout(TIMEOUT_S):
            answer = await worker.receive()
    except (WorkerGone, TimeoutError) as error:
        raise EngineError(f"whether workers are shut in cannot be told: {error}") from error
    finally:
        await worker.close()
    assert isinstance(answer, jobs.Escapes)
    return answer
