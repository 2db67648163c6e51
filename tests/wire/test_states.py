from __future__ import annotations

from collections import deque
from functools import cache

import pytest

import wire
from tests.wire.example import EXCHANGE, LANE_EXCHANGE
from wire import Conversation, Role, State
from wire.states import ANSWERABLE, RECEIVES, SENDS

ROLES = list(Role)
OTHER = {Role.CLIENT: Role.EDGE, Role.EDGE: Role.CLIENT}
ANY = {type(message): message for _, message, _ in EXCHANGE + LANE_EXCHANGE}
ANSWER = wire.Error("execution", "it failed", 1)
FAREWELL = wire.Error("overloaded", "come back later")
# One of each kind, and Error in both of its meanings.
SAYABLE = [message for kind, message in ANY.items() if kind is not wire.Error] + [ANSWER, FAREWELL]


def in_state(role, state):
    conversation = Conversation(role)
    conversation.state = state
    return conversation


def may(method, message):
    try:
        method(message)
    except wire.ProtocolError:
        return False
    return True


@pytest.mark.parametrize(("exchange", "ender"), [
    (EXCHANGE, Role.EDGE), (LANE_EXCHANGE, Role.CLIENT),
])  # fmt: skip
def test_the_examples_are_conversations(exchange, ender):
    sides = {role: Conversation(role) for role in ROLES}
    for sender, message, _ in exchange:
        sides[sender].sent(message)
        sides[OTHER[sender]].received(message)
    assert {role: side.state for role, side in sides.items()} == {
        ender: State.CLOSING,
        OTHER[ender]: State.CLOSED,
    }


def test_every_state_of_a_side_has_its_rows():
    for tables in (SENDS, RECEIVES):
        assert all(set(tables[role]) == set(State) for role in ROLES)


def test_no_message_but_four_goes_both_ways():
    said = {role: {kind for row in SENDS[role].values() for kind in row} for role in ROLES}
    heard = {role: {kind for row in RECEIVES[role].values() for kind in row} for role in ROLES}
    assert said[Role.CLIENT] | said[Role.EDGE] == set(wire.KINDS.values())
    both = said[Role.CLIENT] & said[Role.EDGE]
    assert both == {wire.Ping, wire.Pong, wire.Error, wire.Bye}
    for role in ROLES:
        assert heard[OTHER[role]] == said[role]


@cache
def explore(most_under_way):
    """Every state that the two sides and the messages under way between them can be in."""
    start = (State.HELLO, State.HELLO, (), ())
    found, todo = {start}, deque([start])
    while todo:
        for after in _successors(*todo.popleft(), most_under_way):
            if after not in found:
                found.add(after)
                todo.append(after)
    return found


def _successors(client, edge, upward, downward, most_under_way):
    for number, message in enumerate(SAYABLE):
        side = in_state(Role.CLIENT, client)
        if len(upward) < most_under_way and may(side.sent, message):
            yield side.state, edge, (*upward, number), downward
        side = in_state(Role.EDGE, edge)
        if len(downward) < most_under_way and may(side.sent, message):
            yield client, side.state, upward, (*downward, number)
    # received() raises here, and the test with it, if a permitted message is refused.
    if upward:
        side = in_state(Role.EDGE, edge)
        side.received(SAYABLE[upward[0]])
        yield client, side.state, upward[1:], downward
    if downward:
        side = in_state(Role.CLIENT, client)
        side.received(SAYABLE[downward[0]])
        yield side.state, edge, upward, downward[1:]


def test_whatever_one_side_may_say_the_other_may_hear_however_they_cross():
    found = explore(most_under_way=2)
    assert {client for client, *_ in found} == set(State)
    assert {edge for _, edge, *_ in found} == set(State)
    settled = {(client, edge) for client, edge, up, down in found if not up and not down}
    assert settled <= {
        (State.HELLO, State.HELLO),
        (State.GREETING, State.GREETING),
        (State.GREETED, State.GREETED),
        (State.OFFERED, State.OFFERED),
        (State.READY, State.READY),
        (State.ASKED, State.ASKED),
        (State.JOINING, State.JOINING),
        (State.BULK, State.BULK),
        (State.EVICTED, State.EVICTED),
        (State.CLOSING, State.CLOSED),
        (State.CLOSED, State.CLOSING),
        (State.CLOSED, State.CLOSED),
    }


def test_nothing_is_allowed_that_cannot_come():
    heard = set()
    for client, edge, upward, downward in explore(most_under_way=2):
        if upward:
            heard.add((Role.EDGE, edge, type(SAYABLE[upward[0]])))
        if downward:
            heard.add((Role.CLIENT, client, type(SAYABLE[downward[0]])))
    assert heard == {
        (role, state, kind)
        for role in ROLES
        for state, row in RECEIVES[role].items()
        for kind in row
    }


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("state", State)
def test_nothing_else_may_be_said_or_heard(role, state):
    for message in SAYABLE:
        answer = message is ANSWER
        side = in_state(role, state)
        said = may(side.sent, message)
        expected = type(message) in SENDS[role][state] and not answer
        assert said == (expected or (answer and role is Role.EDGE and state in ANSWERABLE[role]))
        assert said or side.state is state, "a refused message changes nothing"
        side = in_state(role, state)
        heard = may(side.received, message)
        expected = type(message) in RECEIVES[role][state] and not answer
        assert heard == (expected or (answer and role is Role.CLIENT and state in ANSWERABLE[role]))


@pytest.mark.parametrize(("state", "message"), [
    (State.HELLO, wire.Ping(1)),
    (State.HELLO, ANY[wire.Offer]),
    (State.GREETED, ANY[wire.Chunk]),
    (State.GREETED, ANY[wire.Hello]),
    (State.OFFERED, ANY[wire.Execute]),
    (State.OFFERED, ANY[wire.Offer]),
    (State.ASKED, ANY[wire.Offer]),
    (State.ASKED, ANY[wire.Chunk]),
    (State.READY, ANY[wire.Join]),
    (State.GREETED, ANY[wire.Segment]),
    (State.JOINING, ANY[wire.Segment]),
    (State.BULK, ANY[wire.Execute]),
    (State.BULK, ANY[wire.Offer]),
    (State.READY, ANY[wire.Result]),
    (State.CLOSED, wire.Ping(1)),
])  # fmt: skip
def test_the_edge_refuses_what_a_client_may_not_say_yet(state, message):
    edge = in_state(Role.EDGE, state)
    with pytest.raises(wire.RemoteProtocolError, match="the client may not send") as caught:
        edge.received(message)
    assert caught.value.code == "unexpected"


def test_after_an_eviction_the_client_offers_again():
    client, edge = in_state(Role.CLIENT, State.READY), in_state(Role.EDGE, State.READY)
    chunk, evicted, offer, have = (
        ANY[kind] for kind in (wire.Chunk, wire.Evicted, wire.Offer, wire.Have)
    )
    client.sent(chunk)
    edge.sent(evicted)
    edge.received(chunk)
    client.received(evicted)
    for message in (chunk, ANY[wire.Join]):
        with pytest.raises(wire.LocalProtocolError, match="while evicted"):
            client.sent(message)
    client.sent(offer)
    edge.received(offer)
    edge.sent(ANSWER)
    client.received(ANSWER)
    edge.sent(have)
    client.received(have)
    assert (client.state, edge.state) == (State.READY, State.READY)


def test_an_eviction_that_crosses_the_question_makes_it_an_offer():
    client, edge = in_state(Role.CLIENT, State.READY), in_state(Role.EDGE, State.READY)
    evicted, offer, have = (ANY[kind] for kind in (wire.Evicted, wire.Offer, wire.Have))
    client.sent(offer)
    edge.sent(evicted)
    edge.received(offer)
    client.received(evicted)
    assert (client.state, edge.state) == (State.OFFERED, State.OFFERED)
    edge.sent(have)
    client.received(have)
    assert (client.state, edge.state) == (State.READY, State.READY)


def test_a_client_whose_graph_is_unknown_offers_it_whole():
    client, edge = in_state(Role.CLIENT, State.GREETED), in_state(Role.EDGE, State.GREETED)
    asked, unknown, have = (ANY[kind] for kind in (wire.Offer, wire.Unknown, wire.Have))
    for side, heard in ((client, edge), (edge, client)):
        message = asked if side is client else unknown
        side.sent(message)
        heard.received(message)
    assert (client.state, edge.state) == (State.GREETED, State.GREETED)
    client.sent(asked)
    edge.received(asked)
    edge.sent(have)
    client.received(have)
    assert (client.state, edge.state) == (State.READY, State.READY)


def test_an_error_with_a_query_is_an_answer():
    client = in_state(Role.CLIENT, State.READY)
    client.received(ANSWER)
    assert client.state is State.READY
    client.received(FAREWELL)
    assert client.state is State.CLOSED


def test_a_conversation_tells_where_it_is():
    assert repr(Conversation(Role.CLIENT)) == "<Conversation: client, hello>"
