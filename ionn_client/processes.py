"""Starts an edge box as its own process, for the demo and the benchmarks.

It runs whatever `python -m ionn_edge` is installed; this package never imports the edge.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

STOP_TIMEOUT_S = 10.0


class EdgeProcess:
    """An edge box on a free loopback port that knows no model; a context manager.

    store: directory for its weights; a temporary one, deleted afterwards, if None.
    """

    def __init__(
        self, store: str | None = None, threads: int = 1, port: int = 0, options: Sequence[str] = ()
    ) -> None:
        self._store = store
        self._threads = threads
        self._port = port
        self._options = tuple(options)

    def __enter__(self) -> Self:
        self._temporary = None if self._store else tempfile.TemporaryDirectory(prefix="ionn-edge-")
        store = self._store or (self._temporary.name if self._temporary else "")
        command = [
            sys.executable, "-m", "ionn_edge", "serve", "--json", "--unpaired",
            "--bind", "127.0.0.1", "--port", str(self._port), "--threads", str(self._threads),
            "--store", store, *self._options,
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._stop()
            code = self.process.returncode
            raise OSError(f"the edge did not start (exit code {code}); its error is above")
        self.banner: dict[str, Any] = json.loads(line)
        return self

    @property
    def address(self) -> str:
        """host:port where it listens."""
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
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
