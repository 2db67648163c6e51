"""Starts the emulated link as its own process, away from the event loops that it is between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from ionn_client.emulate.link import LinkSpec
from ionn_client.emulate.relay import LinkCounters, address


class LinkProcess:
    """A `LinkEmulator` in a process of its own, for figures that are to be believed.

        with LinkProcess(spec, "127.0.0.1:7431") as link:
            connect to (link.host, link.port) instead of the edge

    ValueError or OSError if it does not start. `counters()` blocks for about a millisecond.
    """

    def __init__(self, spec: LinkSpec, target: str | tuple[str, int]) -> None:
        self.spec = spec
        self._target = address(target)
        self.cpu_s = 0.0

    def __enter__(self) -> Self:
        host, port = self._target
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "ionn_client.emulate", "--json"),
                *("--to", f"{host}:{port}", "--rtt", f"{self.spec.rtt_s:.9f}s"),
                *("--up", f"{self.spec.up_Bps:.6f}B/s", "--down", f"{self.spec.down_Bps:.6f}B/s"),
                *("--queue", str(self.spec.queue_bytes)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for whoever started us; we end it then.
        )
        self.pid = self._process.pid
        try:
            ready = self._read()
        except BaseException:
            self._stop()
            raise
        self.host, self.port = str(ready["host"]), int(ready["port"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def counters(self) -> LinkCounters:
        """What the link has carried so far; also refreshes `cpu_s`, its processor time."""
        self._process.send_signal(signal.SIGUSR1)
        line = self._read()
        self.cpu_s = float(line.pop("cpu_s"))
        del line["event"]
        return LinkCounters(**line)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise OSError("the emulated link's process ended; its error is above")
        return dict(json.loads(line))

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
