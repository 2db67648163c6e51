"""A client's first connection as events and commands tell of it, and what may be done with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ionn_client.machine import events
from wire import messages

# What a client says of an edge that it gives up for its silence.
_SILENT = "the edge said nothing for"


class FirstConnection:
    """At most one at a time, and none is given up for a silence in which nothing was asked."""

    def __init__(self) -> None:
        self._opening = self._open = False
        # Pings without a pong; and whether the edge has said anything yet.
        self._pings = set[int]()
        self._greeted = False

    def hears(self, event: Any) -> None:
        match event:
            case events.Connected():
                self._opening, self._open, self._greeted = False, True, False
                self._pings.clear()
            case events.ConnectionLost():
                self._opening = self._open = False
            case events.MessageReceived(message):
                self._greeted = True
                if isinstance(message, messages.Pong):
                    self._pings.discard(message.token)

    def does(self, command: Any) -> Iterator[str]:
        """What is wrong with that."""
        match command:
            case events.OpenConnection():
                if self._opening or self._open:
                    yield "it opens a connection beside the one that it has"
                self._opening = True
            case events.SendMessage(message):
                if not self._open:
                    yield f"it sends {type(message).__name__}, and has no connection"
                if isinstance(message, messages.Ping):
                    self._pings.add(message.token)
            case events.AbortConnection(reason) | events.CloseConnection(reason):
                if reason.startswith(_SILENT) and self._greeted and not self._pings:
                    yield f"{reason}, which was asked nothing"
                self._open = False
