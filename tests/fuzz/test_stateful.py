"""Both sessions under Hypothesis: the fuzzer's steps, and any message that the wire carries."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ionn_client.machine import events
from tests.fuzz import client_session, edge_session
from tests.fuzz.streams import Reader
from tests.wire.strategies import messages
from wire import messages as wire_messages

STEP = st.binary(min_size=1, max_size=12)
TOY = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class Edge(RuleBasedStateMachine):
    """Rules are asserted by `Played` after each step."""

    @initialize(start=STEP)
    def connect(self, start: bytes) -> None:
        self.played = edge_session.Played(Reader(start))

    @rule(step=STEP)
    def step(self, step: bytes) -> None:
        self.played.reader = Reader(step)
        self.played.step()

    @rule(message=messages)
    def say(self, message: Any) -> None:
        self.played.say(message)


class Client(RuleBasedStateMachine):
    """The same; in the end every query is answered."""

    @initialize(start=STEP)
    def begin(self, start: bytes) -> None:
        self.played = client_session.Played(Reader(start))

    @rule(step=STEP)
    def step(self, step: bytes) -> None:
        self.played.reader = Reader(step)
        self.played.step()

    @rule(message=messages)
    def hear(self, message: Any) -> None:
        if self.played.link:
            if isinstance(message, wire_messages.Result):
                self.played.touched.add(message.query)
            self.played.tell(events.MessageReceived(message))

    def teardown(self) -> None:
        if hasattr(self, "played"):
            self.played.finish()


TestEdge = Edge.TestCase
TestEdge.settings = TOY
TestClient = Client.TestCase
TestClient.settings = TOY
