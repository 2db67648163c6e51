"""What each device may ask of the box over all of its connections, read from what they do.

Independent of the box's own counts (Quota), which it is there to check. Times are the world's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ionn_edge.doors.devices import LOOPBACK
from ionn_edge.machine import events
from tests.simulation.wakes import ROUNDED_S
from wire import messages

if TYPE_CHECKING:
    from ionn_edge.link import Link
    from tests.simulation.edge import Life

# Of a turn that is free, until who waits for it has it.
TURN_S = 0.01
TOO_OFTEN = "queries a second"


class _Bucket:
    """A device's queries per second, and at once."""

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst, self._per_s = burst, per_s
        self._tokens, self._at = burst, 0.0

    def has_one(self, now: float) -> float:
        """How many there are."""
        self._tokens = min(self._tokens + (now - self._at) * self._per_s, self._burst)
        self._at = now
        return self._tokens

    def take(self) -> None:
        self._tokens -= 1


class Shares:
    """Those of one process of the edge."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._config = life.box.config
        self._buckets: dict[str, _Bucket] = {}
        # Since when a query of a device could run, and does not.
        self._free_since: dict[str, float] = {}

    def step(self, link: Link, event: Any, commands: list[Any], now: float) -> Iterator[str]:
        """What is wrong with doing this upon that; `now` by the edge's clock."""
        if link.device is LOOPBACK:
            return
        if isinstance(event, events.Received) and isinstance(event.message, messages.Execute):
            refused = (
                each.message.text
                for each in commands
                if isinstance(each, events.Send)
                and isinstance(each.message, messages.Error)
                and each.message.query in (None, event.message.query)
            )
            yield from self._asked(link, next(refused, None), now)
        if any(isinstance(each, events.RunRange) for each in commands):
            yield from self._runs(link)
        yield from self._stands_idle(link)

    def _links(self, device: str | None = None) -> list[Link]:
        """Of one device, or of all that are paired."""
        return [
            link
            for link in self._life.links
            if link.device is not LOOPBACK and device in (None, link.device.id)
        ]

    def _asked(self, link: Link, refused: str | None, now: float) -> Iterator[str]:
        config, device = self._config, link.device.id
        if device not in self._buckets:
            burst = float(config.device_burst)
            self._buckets[device] = _Bucket(burst, config.device_queries_per_s)
        bucket = self._buckets[device]
        tokens = bucket.has_one(now)
        if refused is not None:
            if TOO_OFTEN in refused and tokens >= 1 + ROUNDED_S:
                yield f"it refuses a query, of which {tokens:.3f} may come: {refused}"
            return
        if tokens < 1 - ROUNDED_S:
            yield f"it takes more queries than {config.device_queries_per_s:g} a second"
        bucket.take()
        yield from self._open_queries(link)

    def _open_queries(self, link: Link) -> Iterator[str]:
        """What a query that is taken finds."""
        config, own, everybody = self._config, self._links(link.device.id), self._links()
        number, waiting = _open(own), sum(each.session.queued for each in own)
        if number > config.device_queries:
            yield f"{number} queries of one device are open"
        if waiting > 1 and _waiting_bytes(own) > config.max_waiting_bytes:
            yield f"queries of one device hold {_waiting_bytes(own)} bytes"
        if number > 1 and _open(everybody) > config.box_queries:
            yield f"{_open(everybody)} queries are open, {number} of them of one device"

    def _most_at_once(self) -> int | None:
        """Ranges of a device that run at once where it is not alone."""
        devices = len({link.device.id for link in self._links()})
        return None if devices <= 1 else max(self._config.ranges_at_once // devices, 1)

    def _runs(self, link: Link) -> Iterator[str]:
        most = self._most_at_once()
        running = sum(each.session.running for each in self._links(link.device.id))
        if most is not None and running > most:
            yield f"{running} ranges of one device run at once, where it is not alone"

    def _stands_idle(self, link: Link) -> Iterator[str]:
        """A turn that a device has is taken by one of its connections that has use for it."""
        device, now, own = link.device.id, self._life.world.loop.time(), self._links(link.device.id)
        ready, most = sum(each.session.could_run for each in own), self._most_at_once()
        running = sum(each.session.running for each in own)
        if not ready or running >= (1 if most is None else most):
            self._free_since.pop(device, None)
        elif now - self._free_since.setdefault(device, now) > TURN_S:
            yield f"{ready} queries of a device could run, and do not"


def _open(links: list[Link]) -> int:
    return sum(link.session.running + link.session.queued for link in links)


def _waiting_bytes(links: list[Link]) -> int:
    return sum(link.session.waiting_bytes for link in links)
