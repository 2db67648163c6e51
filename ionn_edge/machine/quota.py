"""What one device may ask of the box: open queries, queries per second, and turns to run them.

No clock of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from ionn_edge.config import Config


class Asker(Protocol):
    """What a quota needs of a session."""

    @property
    def running(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def could_run(self) -> bool: ...


class Quota:
    """One device's share, over all of its connections.

    sessions: those of its connections. Queries per second are a token bucket: it holds
    `device_burst` at most, fills by `device_queries_per_s`, and each query takes one.

    devices: how many are connected. Where one is alone, all of its connections may run a range at
    once; otherwise so many as are its part of the processors, and the others stand in line.
    everybody: all devices' quotas. Once too many queries are open together, each may have one.
    """

    def __init__(
        self,
        config: Config,
        devices: Callable[[], int] = lambda: 1,
        everybody: Callable[[], Iterable[Quota]] = tuple,
    ) -> None:
        self.sessions: set[Asker] = set()
        self._config = config
        self._devices = devices
        self._everybody = everybody
        # From who has waited longest for a turn to run.
        self._line: dict[Asker, None] = {}
        self._tokens = float(config.device_burst)
        self._filled_at = 0.0

    @property
    def open_queries(self) -> int:
        """Of all of the device's connections."""
        return sum(session.running + session.queued for session in self.sessions)

    @property
    def waiting_bytes(self) -> int:
        """Tensors of the queries that wait."""
        return sum(session.waiting_bytes for session in self.sessions)

    def refusal(self, now: float, tensor_bytes: int = 0) -> str | None:
        """Why no further query is taken now; None, and one is counted, if it is.

        tensor_bytes: of the query's tensors. One alone may be any size that a message takes.
        """
        config = self._config
        waiting_bytes = self.waiting_bytes
        if waiting_bytes and waiting_bytes + tensor_bytes > config.max_waiting_bytes:
            return f"this device's open queries hold {waiting_bytes} bytes of tensors already"
        if self.open_queries >= config.device_queries:
            return (
                f"this device has {config.device_queries} queries open already;"
                " wait for their answers"
            )
        if self.open_queries and (full := self._box_is_full(tensor_bytes)) is not None:
            return full
        since_s = max(now - self._filled_at, 0.0)
        filled = self._tokens + since_s * config.device_queries_per_s
        self._tokens, self._filled_at = min(filled, float(config.device_burst)), now
        if self._tokens < 1:
            wait_s = (1 - self._tokens) / config.device_queries_per_s
            return (
                f"this device may ask {config.device_queries_per_s:g} queries a second;"
                f" ask again in {wait_s:.3f} s"
            )
        self._tokens -= 1
        return None

    def _box_is_full(self, tensor_bytes: int) -> str | None:
        config, everybody = self._config, list(self._everybody())
        if sum(quota.open_queries for quota in everybody) >= config.box_queries:
            return (
                f"this edge has {config.box_queries} queries open already; wait for their answers"
            )
        waiting_bytes = sum(quota.waiting_bytes for quota in everybody)
        if waiting_bytes + tensor_bytes > config.box_waiting_bytes:
            return f"this edge's open queries hold {waiting_bytes} bytes of tensors already"
        return None

    def may_run(self, asker: Asker) -> bool:
        """Whether one that could run a range has its turn; if not, it keeps its place in line.

        Its queries go on waiting meanwhile: their deadlines pass, and no range's time.
        """
        self._line.setdefault(asker)
        if asker not in self.next_to_run():
            return False
        del self._line[asker]
        return True

    def next_to_run(self) -> list[Asker]:
        """Those in line that have their turn now."""
        if not self._line:
            return []
        for asker in [asker for asker in self._line if not self._stands(asker)]:
            del self._line[asker]
        if (devices := self._devices()) <= 1:
            return list(self._line)
        most = max(self._config.ranges_at_once // devices, 1)
        free = most - sum(session.running for session in self.sessions)
        return list(self._line)[: max(free, 0)]

    def _stands(self, asker: Asker) -> bool:
        return asker in self.sessions and asker.could_run
