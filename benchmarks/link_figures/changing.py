"""The emulated link in a process of its own, whose rate follows the lines of its input.

python benchmarks/link_figures/changing.py '{"up_Bps": 1e6, ...}' 127.0.0.1:7431
"""

from __future__ import annotations

import asyncio
import json
import selectors
import subprocess
import sys
from dataclasses import asdict
from types import TracebackType
from typing import Self

from ionn_client.emulate import LinkEmulator, LinkSpec


class ChangingLink:
    """A LinkProcess whose rate can be changed; a context manager."""

    def __init__(self, spec: LinkSpec, target: str) -> None:
        self._command = [sys.executable, __file__, json.dumps(asdict(spec)), target]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # The end of its input is its end.

    def set_rate(self, rate_Bps: float) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{rate_Bps}\n")
        self._process.stdin.flush()


async def _serve(spec: LinkSpec, target: str) -> None:
    async with LinkEmulator(spec, target) as link:
        print(f"{link.host}:{link.port}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await link.set_rate(float(line), float(line))


def _precise_loop() -> asyncio.AbstractEventLoop:
    # select() takes microseconds; epoll rounds every wait up to a millisecond.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_precise_loop) as runner:
        runner.run(_serve(LinkSpec(**json.loads(sys.argv[1])), sys.argv[2]))
