"""Starts an edge box as its own process, for the demo and the benchmarks.

It runs whatever `python -m ionn_edge` is installed; this package never imports the edge.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ionn_client.boxes.known_boxes import KnownBoxes
from ionn_client.boxes.pair import Attempt, pair
from pairing.uri import PairingUri

STOP_TIMEOUT_S = 10.0


class EdgeProcess:
    """An edge box on a free loopback port that knows no model; a context manager.

    state: inside, the client's state directory that knows the box; None for an unpaired one.

    store: directory for its weights; a temporary one, deleted afterwards, if None.
    paired: whether it is paired with, and reached encrypted; else it is used unpaired, in the
        clear. pairings: directory for what both sides then know of each other; likewise.
    """

    def __init__(
        self,
        store: str | None = None,
        threads: int = 1,
        port: int = 0,
        options: Sequence[str] = (),
        *,
        paired: bool = False,
        pairings: str | None = None,
    ) -> None:
        self._store = store
        self._paired = paired
        self._pairings = pairings
        self._threads = threads
        self._port = port
        self._options = tuple(options)

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="ionn-edge-")
        kept = Path(self._pairings or self._temporary.name)
        self.state = kept / "client" if self._paired else None
        store = self._store or f"{self._temporary.name}/store"
        # The names of what is in the store are secret: they stay what they are with it.
        doors = ["--unpaired", "--state", f"{store}/state"]
        if self._paired:
            doors = ["--state", str(kept / "edge"), "--no-announce"]
        command = [
            sys.executable, "-m", "ionn_edge", "serve", "--json", *doors,
            "--bind", "127.0.0.1", "--port", str(self._port), "--threads", str(self._threads),
            "--store", store, *self._options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever started it, who ends it then.
        )
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def _start(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._stop()
            code = self.process.returncode
            raise OSError(f"the edge did not start (exit code {code}); its error is above")
        self.banner: dict[str, Any] = json.loads(line)
        if self.state is not None:
            _pair(self.banner, self.state)

    @property
    def address(self) -> str:
        """host:port where it listens. A paired one is found there with `state` in the options."""
        return f"127.0.0.1:{self.banner['port']}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self._stop()

    def _stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._temporary.cleanup()


def _pair(banner: dict[str, Any], state: Path) -> None:
    """Unless these two know each other already, on another port perhaps."""
    known = KnownBoxes(state)
    if known.get(banner["fingerprint"]) is not None:
        known.moved(banner["fingerprint"], f"ionn://{banner['address']}")
        return
    attempt = Attempt.by_uri(PairingUri.parse(banner["pairing"]["uri"]))
    # In a thread of its own: this one may have an event loop that runs.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, pair(attempt, state)).result()
