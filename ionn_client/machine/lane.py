"""The second connection, which carries weights only, so that queues can put queries before them.

It joins the first one's conversation: the upload moves over at the end of a segment, once all
that was sent on the first connection is held. Whatever becomes of it, the first goes on; what
was under way is then asked for there, and the upload goes on there too.
"""

from __future__ import annotations

from collections.abc import Callable

from ionn_client.machine.context import Context
from ionn_client.machine.events import (
    AbortLane,
    CloseLane,
    LaneConnected,
    LaneHeard,
    LaneLost,
    OpenLane,
    SendOnLane,
)
from ionn_client.machine.uploading import Uploading
from wire import Conversation, RemoteProtocolError, Role, check_welcome, hello, messages

AGENT = "ionn-client"
OPEN = frozenset({"opening", "greeting", "greeted", "joining", "carrying"})


class Lane:
    """At most one per connection, and no other after one that was refused or broke.

    phase: "none", "opening", "greeting", "greeted", "joining", "carrying", then "asking" for what
    came over it if it broke, and "over".
    """

    def __init__(self, context: Context, uploading: Uploading, ask: Callable[[], None]) -> None:
        self._context = context
        self._uploading = uploading
        self._ask = ask
        self._conversation = Conversation(Role.CLIENT)
        self.phase = "none"
        self._secret = ""
        self._heard_at = 0.0
        self._owed_since: float | None = None

    @property
    def carrying(self) -> bool:
        """Weights go over this connection, and are answered here."""
        return self.phase == "carrying"

    def forget_refusal(self) -> None:
        """A new first connection is there."""
        self._enter("none")

    def offered(self, secret: str) -> None:
        """The edge said by what a second connection joins the first."""
        self._secret = secret

    def first_lost(self) -> None:
        """The first connection or its model is gone: there is nothing to carry for."""
        if self.phase in OPEN:
            self._context.do(AbortLane())
        if self.phase == "asking":
            self._enter("over")
        if self.phase != "over":
            self._enter("none")

    def answered(self) -> None:
        """The edge says what it holds: if that was asked, the upload goes on from there."""
        if self.phase == "asking":
            self._enter("over")

    def take(self, event: LaneConnected | LaneHeard | LaneLost) -> None:
        self._heard_at = self._context.now
        match event:
            case LaneConnected() if self.phase == "opening":
                self._conversation = Conversation(Role.CLIENT)
                self._enter("greeting")
                self._send(hello(AGENT))
            case LaneConnected():
                self._context.do(CloseLane())
            case LaneHeard(message) if self.phase in OPEN:
                self._hear(message)
            case LaneLost(reason) if self.phase in OPEN:
                self._lost(reason)

    def _hear(self, message: messages.Message) -> None:
        try:
            self._conversation.received(message)
            self._dispatch(message)
        except RemoteProtocolError as error:
            self.drop(f"the edge broke the protocol: {error}")

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.ChunkAck(clock_s):
                self._uploading.chunk_acknowledged(clock_s)
            case messages.Held():
                self._uploading.held(message)
            case messages.Welcome():
                check_welcome(message)
                self._enter("greeted")
            case messages.Joined():
                self._uploading.pace_anew()
                self._enter("carrying")
            case messages.Ping(token):
                self._send(messages.Pong(token, self._context.now))
            case messages.Error(_, text):
                self.drop(text)
            case messages.Bye(reason):
                self.drop(f"the edge says goodbye: {reason}")

    def drop(self, reason: str) -> None:
        """End this connection from here; the driver need not tell us that it ended."""
        self._context.do(AbortLane())
        self._lost(reason)

    def _lost(self, reason: str) -> None:
        carried = self.carrying
        self._enter("over", reason=reason)
        if carried:
            # Nobody here knows how much of it has come.
            self._enter("asking")
            self._uploading.stop_sending()
            self._ask()

    # Sending.

    def send_weights(self, credit_bytes: float) -> None:
        """What the window has room for, on the connection whose turn it is."""
        context, uploading = self._context, self._uploading
        if self._wanted:
            self._enter("opening")
            context.do(OpenLane())
        if self.phase != "joining":
            say = self._send if self.carrying else context.send
            uploading.send(credit_bytes, say, begin=self.phase != "greeted")
        if self.phase == "greeted" and uploading.settled and context.phase == "uploading":
            self._enter("joining")
            self._send(messages.Join(self._secret))
        if self.phase in OPEN and uploading.settled and context.phase == "ready":
            self._finish()
        self._watch_debt()

    @property
    def _wanted(self) -> bool:
        # Not unless asked for: a connection of their own makes large queries start slowly.
        context = self._context
        return context.options.lane and self.phase == "none" and context.phase == "uploading"

    def _finish(self) -> None:
        """Everything is held: nothing is left to carry."""
        if self.phase != "opening":
            self._send(messages.Bye("done"))
        self._context.do(CloseLane())
        self._enter("none")

    def _send(self, message: messages.Message) -> None:
        self._conversation.sent(message)
        self._context.do(SendOnLane(message))

    def _enter(self, phase: str, **fields: str) -> None:
        if phase != self.phase:
            self.phase = phase
            self._owed_since = None
            self._context.record("lane", phase=phase, **fields)

    # Time.

    @property
    def _owed(self) -> bool:
        uploading = self._uploading
        return self.phase in ("greeting", "joining") or (self.carrying and uploading.owed)

    def _watch_debt(self) -> None:
        if not self._owed:
            self._owed_since = None
        elif self._owed_since is None:
            self._owed_since = self._context.now

    @property
    def quiet_since(self) -> float | None:
        """Since when the edge says nothing here although it owes us something."""
        return None if self._owed_since is None else max(self._heard_at, self._owed_since)
