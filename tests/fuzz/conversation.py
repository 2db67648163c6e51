"""Messages in any order into wire.Conversation, for both sides at once.

Whatever one side may send, with nothing under way, the other may hear; whatever else ends in
the error of the right side; and after a goodbye nothing is said.
"""

from __future__ import annotations

import wire
from tests.fuzz.mutation import damaged
from tests.fuzz.streams import Reader
from tests.fuzz.target import Target
from tests.wire.example import EXCHANGE, LANE_EXCHANGE
from wire import Role, State

# One of each kind, and an Error that is an answer as well as one that is not.
_EXAMPLES: list[wire.Message] = [
    *{type(message): message for _, message, _ in EXCHANGE + LANE_EXCHANGE}.values(),
    wire.Error("overloaded", "too many", None),
]
_ROLES = (Role.CLIENT, Role.EDGE)
# Its state and its other side's, where a message may cross the other's.
_QUIET = frozenset({State.CLOSING, State.CLOSED})


def seeds() -> list[bytes]:
    """The example conversations."""
    kinds = [type(message) for message in _EXAMPLES]
    return [
        bytes(
            each
            for sender, message, _ in exchange
            for each in (_ROLES.index(sender), kinds.index(type(message)))
        )
        for exchange in (EXCHANGE, LANE_EXCHANGE)
    ]


def check(data: bytes) -> str:
    """Raises AssertionError where the two sides disagree about what may be said."""
    reader = Reader(data)
    sides = {role: wire.Conversation(role) for role in _ROLES}
    said = 0
    while reader:
        sender, message = reader.of(_ROLES), reader.of(_EXAMPLES)
        hearer = Role.EDGE if sender is Role.CLIENT else Role.CLIENT
        before = sides[sender].state
        try:
            sides[sender].sent(message)
        except wire.LocalProtocolError:
            if sides[sender].state is not before:
                raise AssertionError("a refused message changed the state") from None
            continue
        if before in _QUIET:
            raise AssertionError(f"{message} after goodbye")
        said += 1
        try:
            sides[hearer].received(message)
        except wire.RemoteProtocolError as error:
            raise AssertionError(f"{sides[hearer]} may not hear {message}") from error
    return "talked" if said else "nothing"


CONVERSATION = Target(check, seeds, damaged)
