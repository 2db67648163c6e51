"""What one device may ask of the box: open queries, and queries per second. No clock of its own."""

from __future__ import annotations

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


class Quota:
    """One device's share, over all of its connections.

    sessions: those of its connections. Queries per second are a token bucket: it holds
    `device_burst` at most, fills by `device_queries_per_s`, and each query takes one.
    """

    def __init__(self, config: Config) -> None:
        self.sessions: set[Asker] = set()
        self._config = config
        self._tokens = float(config.device_burst)
        self._filled_at = 0.0

    @property
    def open_queries(self) -> int:
        """Of all of the device's connections."""
        return sum(session.running + session.queued for session in self.sessions)

    def refusal(self, now: float, tensor_bytes: int = 0) -> str | None:
        """Why no further query is taken now; None, and one is counted, if it is.

        tensor_bytes: of the query's tensors. One alone may be any size that a message takes.
        """
        config = self._config
        waiting_bytes = sum(session.waiting_bytes for session in self.sessions)
        if waiting_bytes and waiting_bytes + tensor_bytes > config.max_waiting_bytes:
            return f"this device's open queries hold {waiting_bytes} bytes of tensors already"
        if self.open_queries >= config.device_queries:
            return (
                f"this device has {config.device_queries} queries open already;"
                " wait for their answers"
            )
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
