"""What the parts of a session share: estimates, the conversation, the time, and commands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ionn_client.config import Options
from ionn_client.machine.estimate import LinkEstimator
from ionn_client.machine.events import Command, Record, SendMessage
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.kept import kept_layers
from ionn_client.machine.pacer import UploadPacer
from layergraph import LayerGraph
from planner import Link
from wire import Conversation, Role, messages

CONNECTED = frozenset({"greeting", "offering", "uploading", "ready"})
AGREED = frozenset({"uploading", "ready"})
# No connection is wanted any more.
OVER = frozenset({"rejected", "closed"})


class Context:
    """One per session; the parts decide, this carries.

    phase: "connecting", "greeting", "offering", "uploading", "ready", "rejected" or "closed".
    kept: layers that stay here, by `Options.keep_local`.
    heard_out_at: when all that had arrived while this program was busy elsewhere was heard; what
        did not come is not missed before.
    """

    def __init__(self, graph: LayerGraph, forecast: Forecast, options: Options) -> None:
        self.graph = graph
        self.forecast = forecast
        self.options = options
        self.kept = kept_layers(graph, options.keep_local)
        forecast.keep(self.kept)
        self.links = LinkEstimator(options.assumed_link)
        self.pacer: UploadPacer | None = None
        self.conversation = Conversation(Role.CLIENT)
        self.phase = "connecting"
        self.last_failure: str | None = None
        self.now = self.heard_out_at = 0.0
        self._commands: list[Command] = []
        self._lessons: list[Callable[[], None]] = []

    @property
    def layers(self) -> int:
        return len(self.graph.layers)

    @property
    def online(self) -> bool:
        """A connection is open."""
        return self.phase in CONNECTED

    @property
    def agreed(self) -> bool:
        """Client and edge agree on the model and on what is held of it."""
        return self.phase in AGREED

    def do(self, command: Command) -> None:
        self._commands.append(command)

    def send(self, message: messages.Message) -> None:
        self.conversation.sent(message)
        self.do(SendMessage(message))

    def record(self, kind: str, **fields: Any) -> None:
        self.do(Record(kind, fields))

    def enter(self, phase: str, **fields: Any) -> None:
        if phase != self.phase:
            self.phase = phase
            self.record("phase", phase=phase, **fields)

    def take_commands(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands

    def later(self, lesson: Callable[[], None]) -> None:
        """To be called before anything that is not urgent, and before the time moves on."""
        self._lessons.append(lesson)

    def learn(self) -> None:
        """Call what was put off, in order."""
        lessons, self._lessons = self._lessons, []
        for lesson in lessons:
            lesson()

    def link_now(self) -> Link:
        """The link as the next message finds it: behind the chunks that are under way."""
        link, queueing_s = self.links.link, self.queueing_s()
        return replace(link, rtt_s=link.rtt_s + queueing_s) if queueing_s else link

    def queueing_s(self) -> float:
        """How long the next message stands behind chunks; not at all where it passes them."""
        return self._passing_s(self.pacer.in_flight_bytes if self.pacer else 0)

    def acknowledging_s(self) -> float:
        """How long nothing may be heard because the oldest chunk is still on its way."""
        return self._passing_s(self.pacer.oldest_bytes if self.pacer else 0)

    def _passing_s(self, size_bytes: int) -> float:
        link, pacer = self.links.link, self.pacer
        if pacer is None or pacer.overtaken:
            return 0.0
        # Not the link's round trip where chunks tell theirs: that is learnt from queries, less what
        # this says, so that each would confirm the other's error.
        trip_s = link.rtt_s if pacer.round_trip_s is None else pacer.round_trip_s
        return max(0.0, size_bytes / link.up_Bps - trip_s)
