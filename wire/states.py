"""Who may say what, when: the conversation as literal tables, and a machine that follows them.

Each side keeps its own state, because the two differ while messages are under way. Only types
matter here; whether a query number or a weight exists is the session's business.

The tables hold four subtleties:

- Evicted crosses chunks and queries under way to the edge. The edge therefore waits in EVICTED,
  where it drops such chunks and answers such queries with an Error; it has answered every older
  query before it sends Evicted. The client is in EVICTED too until it offers again: those answers
  still come, which is why it may not make this connection a lane.
- A second connection that breaks leaves open what came over it. The client asks, on the first
  one, by its Offer's fingerprint again: ASKED. Its queries are answered meanwhile, and Evicted
  may cross the question, which then is an offer like any other: OFFERED.
- Bye, and an Error without a query, end the conversation for their sender at once. What the
  other side sent before it learned of that is dropped: CLOSING. After the other side's own
  goodbye nothing may come: CLOSED.
- An Error with a query is an answer and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeAlias

from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.messages import (
    Bye,
    Cancel,
    Chunk,
    ChunkAck,
    Error,
    Evicted,
    Execute,
    GetLoad,
    Have,
    Held,
    Hello,
    Join,
    Joined,
    Load,
    Message,
    Offer,
    Ping,
    Pong,
    Result,
    Segment,
    Unknown,
    Welcome,
)


class Role(Enum):
    CLIENT = "client"
    EDGE = "edge"


class State(Enum):
    HELLO = "hello"
    GREETING = "greeting"
    GREETED = "greeted"
    OFFERED = "offered"
    READY = "ready"
    ASKED = "asked"
    JOINING = "joining"
    BULK = "bulk"
    EVICTED = "evicted"
    CLOSING = "closing"
    CLOSED = "closed"


HELLO = State.HELLO  # nothing said yet
GREETING = State.GREETING  # Hello said, Welcome awaited
GREETED = State.GREETED  # both know each other; no model
OFFERED = State.OFFERED  # Offer said, Have awaited
READY = State.READY  # chunks and queries
ASKED = State.ASKED  # Offer said again, to hear anew what is held; answers go on
JOINING = State.JOINING  # Join said, Joined awaited
BULK = State.BULK  # a second connection: chunks only
EVICTED = State.EVICTED  # the model is dropped; chunks, queries and answers may be under way
CLOSING = State.CLOSING  # own goodbye said, whatever arrives is dropped
CLOSED = State.CLOSED  # the other side's goodbye came

Table: TypeAlias = Mapping[State, Mapping[type[Message], State]]

_FAREWELL: Mapping[type[Message], State] = {Error: CLOSING, Bye: CLOSING}
_FAREWELL_HEARD: Mapping[type[Message], State] = {Error: CLOSED, Bye: CLOSED}


def _staying(state: State, *types: type[Message]) -> dict[type[Message], State]:
    return dict.fromkeys(types, state)


# fmt: off
SENDS: Mapping[Role, Table] = {
    Role.CLIENT: {
        HELLO:    {Hello: GREETING, **_FAREWELL},
        GREETING: {**_FAREWELL},
        GREETED:  {Offer: OFFERED, Join: JOINING,
                   **_staying(GREETED, Cancel, GetLoad, Ping, Pong), **_FAREWELL},
        OFFERED:  {**_staying(OFFERED, Cancel, GetLoad, Ping, Pong), **_FAREWELL},
        READY:    {Offer: ASKED,
                   **_staying(READY, Segment, Chunk, Execute, Cancel, GetLoad, Ping, Pong),
                   **_FAREWELL},
        ASKED:    {**_staying(ASKED, Cancel, GetLoad, Ping, Pong), **_FAREWELL},
        EVICTED:  {Offer: OFFERED, **_staying(EVICTED, Cancel, GetLoad, Ping, Pong), **_FAREWELL},
        JOINING:  {**_staying(JOINING, Ping, Pong), **_FAREWELL},
        BULK:     {**_staying(BULK, Segment, Chunk, Ping, Pong), **_FAREWELL},
        CLOSING:  {},
        CLOSED:   {},
    },
    Role.EDGE: {
        HELLO:    {**_FAREWELL},
        GREETING: {Welcome: GREETED, **_FAREWELL},
        GREETED:  {**_staying(GREETED, Load, Ping, Pong), **_FAREWELL},
        OFFERED:  {Have: READY, Unknown: GREETED, **_staying(OFFERED, Load, Ping, Pong),
                   **_FAREWELL},
        READY:    {Evicted: EVICTED, **_staying(READY, ChunkAck, Held, Result, Load, Ping, Pong),
                   **_FAREWELL},
        ASKED:    {Have: READY, Evicted: OFFERED,
                   **_staying(ASKED, Held, Result, Load, Ping, Pong), **_FAREWELL},
        EVICTED:  {**_staying(EVICTED, Load, Ping, Pong), **_FAREWELL},
        JOINING:  {Joined: BULK, **_staying(JOINING, Ping, Pong), **_FAREWELL},
        BULK:     {**_staying(BULK, ChunkAck, Held, Ping, Pong), **_FAREWELL},
        CLOSING:  {},
        CLOSED:   {},
    },
}

RECEIVES: Mapping[Role, Table] = {
    Role.CLIENT: {
        HELLO:    {**_FAREWELL_HEARD},
        GREETING: {Welcome: GREETED, **_FAREWELL_HEARD},
        GREETED:  {**_staying(GREETED, Load, Ping, Pong), **_FAREWELL_HEARD},
        OFFERED:  {Have: READY, Unknown: GREETED, **_staying(OFFERED, Load, Ping, Pong),
                   **_FAREWELL_HEARD},
        READY:    {Evicted: EVICTED, **_staying(READY, ChunkAck, Held, Result, Load, Ping, Pong),
                   **_FAREWELL_HEARD},
        ASKED:    {Have: READY, Evicted: OFFERED,
                   **_staying(ASKED, ChunkAck, Held, Result, Load, Ping, Pong), **_FAREWELL_HEARD},
        EVICTED:  {**_staying(EVICTED, Load, Ping, Pong), **_FAREWELL_HEARD},
        JOINING:  {Joined: BULK, **_staying(JOINING, Load, Ping, Pong), **_FAREWELL_HEARD},
        BULK:     {**_staying(BULK, ChunkAck, Held, Ping, Pong), **_FAREWELL_HEARD},
        CLOSING:  {**_staying(CLOSING, Welcome, Joined, Have, Unknown, ChunkAck, Held, Result, Load,
                              Evicted, Ping, Pong), **_FAREWELL_HEARD},
        CLOSED:   {},
    },
    Role.EDGE: {
        HELLO:    {Hello: GREETING, **_FAREWELL_HEARD},
        GREETING: {**_FAREWELL_HEARD},
        GREETED:  {Offer: OFFERED, Join: JOINING,
                   **_staying(GREETED, Cancel, GetLoad, Ping, Pong), **_FAREWELL_HEARD},
        OFFERED:  {**_staying(OFFERED, Cancel, GetLoad, Ping, Pong), **_FAREWELL_HEARD},
        READY:    {Offer: ASKED,
                   **_staying(READY, Segment, Chunk, Execute, Cancel, GetLoad, Ping, Pong),
                   **_FAREWELL_HEARD},
        ASKED:    {**_staying(ASKED, Cancel, GetLoad, Ping, Pong), **_FAREWELL_HEARD},
        EVICTED:  {Offer: OFFERED,
                   **_staying(EVICTED, Segment, Chunk, Execute, Cancel, GetLoad, Ping, Pong),
                   **_FAREWELL_HEARD},
        JOINING:  {**_staying(JOINING, Ping, Pong), **_FAREWELL_HEARD},
        BULK:     {**_staying(BULK, Segment, Chunk, Ping, Pong), **_FAREWELL_HEARD},
        CLOSING:  {**_staying(CLOSING, Hello, Offer, Join, Segment, Chunk, Execute, Cancel, GetLoad,
                              Ping, Pong), **_FAREWELL_HEARD},
        CLOSED:   {},
    },
}
# fmt: on

# What a side may be told at all, whatever the state.
HEARD: Mapping[Role, frozenset[type[Message]]] = {
    role: frozenset(kind for row in table.values() for kind in row)
    for role, table in RECEIVES.items()
}

# Where an Error with a query may be said (edge) and heard (client). Queries that crossed an
# eviction may be answered even after the next Offer.
ANSWERABLE: Mapping[Role, frozenset[State]] = {
    Role.CLIENT: frozenset({OFFERED, READY, ASKED, EVICTED, CLOSING}),
    Role.EDGE: frozenset({EVICTED, OFFERED, READY, ASKED}),
}


class Conversation:
    """One side's view of where a connection's conversation is.

    A message is told here before it is sent and after it is received.
    """

    def __init__(self, role: Role) -> None:
        self.role = role
        self._other = Role.EDGE if role is Role.CLIENT else Role.CLIENT
        self.state = State.HELLO

    def __repr__(self) -> str:
        return f"<Conversation: {self.role.value}, {self.state.value}>"

    @property
    def state(self) -> State:
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        # Looked up once, because most messages change nothing.
        self._may_send, self._may_come = SENDS[self.role][state], RECEIVES[self.role][state]

    def sent(self, message: Message) -> None:
        """This side says `message`. Raises LocalProtocolError where it may not, now."""
        after = self._next(self._may_send, message, self.role)
        if after is None:
            raise LocalProtocolError(
                f"the {self.role.value} may not send {_called(message)} while {self.state.value}"
            )
        if after is not self._state:
            self.state = after

    def received(self, message: Message) -> None:
        """The other side said `message`. Raises RemoteProtocolError("unexpected") if it may not.

        While CLOSING the message is to be dropped.
        """
        after = self._next(self._may_come, message, self._other)
        if after is None:
            raise RemoteProtocolError(
                f"the {self._other.value} may not send {_called(message)} "
                f"while the {self.role.value} is {self.state.value}",
                code="unexpected",
            )
        if after is not self._state:
            self.state = after

    def _next(
        self, row: Mapping[type[Message], State], message: Message, sender: Role
    ) -> State | None:
        if isinstance(message, Error) and message.query is not None:
            answers = sender is Role.EDGE and self.state in ANSWERABLE[self.role]
            return self.state if answers else None
        return row.get(type(message))


def _called(message: Message) -> str:
    if isinstance(message, Error) and message.query is not None:
        return "Error with a query"
    return type(message).__name__
