"""The life of a session's first connection: greeting, offer, what the edge says, how it ends.

No I/O, no clock. What is said of weights, of queries and on the second connection goes to those
who see to it.
"""

from __future__ import annotations

from ionn_client.errors import EdgeRejected, OffloadError, VersionMismatch
from ionn_client.machine.context import OVER, Context
from ionn_client.machine.events import AbortConnection, CloseConnection, OpenConnection
from ionn_client.machine.lane import Lane
from ionn_client.machine.liveness import Liveness
from ionn_client.machine.queries import Queries
from ionn_client.machine.uploading import Uploading
from layergraph import InvalidInput
from planner.predictor import Predictor
from wire import (
    Conversation,
    RemoteProtocolError,
    Role,
    State,
    check_welcome,
    hello,
    messages,
)

AGENT = "ionn-client"
RETRY_REFUSED_S = 10.0
# A model above the device's quota: until the operator gives it more.
RETRY_QUOTA_S = 60.0
# Refusals that no later attempt can change.
FINAL_REFUSALS = frozenset({"version", "graph"})
# Refusals that room or time may change.
SLOW_REFUSALS = frozenset({"memory", "overloaded", "storage"})


class Dialogue:
    """Any number of connections one after the other, all about one model.

    offer: the graph as it is offered where the edge does not know it.
    error: why this edge will not run the model; None while it may.
    asks_again: it may some day, and is asked now and then.
    offer_at: when to offer again after an eviction.
    """

    def __init__(
        self, context: Context, uploading: Uploading, queries: Queries, offer: bytes
    ) -> None:
        self.context = context
        self.uploading = uploading
        self.queries = queries
        self.lane = Lane(context, uploading, self.make_offer)
        self.liveness = Liveness(context.options.silence_s)
        self.error: OffloadError | None = None
        self.asks_again = False
        self.offer_at: float | None = None
        self._offer = offer
        self._offered_whole = False
        self._backoff_s = context.options.backoff_s
        self._max_chunk_bytes = 0
        self._quota_bytes = 0
        self._greeted_at = 0.0

    def greet(self) -> None:
        self.error, self.asks_again = None, False
        self.context.conversation = Conversation(Role.CLIENT)
        self._greeted_at = self.context.now
        self.liveness.opened(self.context.now)
        self.context.enter("greeting")
        self.context.send(hello(AGENT))

    def lost(self, reason: str) -> None:
        self.context.last_failure = reason
        self.offer_at = None
        self.liveness.lost()
        self.lane.first_lost()
        self.uploading.interrupted()
        self.queries.edge_gone(reason)
        if self.context.phase not in OVER:
            self.context.enter("connecting", reason=reason)
            self.context.do(OpenConnection(self._backoff_s))
            self._backoff_s = min(2 * self._backoff_s, self.context.options.max_backoff_s)
        elif self.asks_again:
            self.context.do(OpenConnection(RETRY_QUOTA_S))

    def drop(self, reason: str) -> None:
        """End the connection from here; the driver need not tell us that it ended."""
        self.context.do(AbortConnection(reason))
        self.lost(reason)

    def stop(self) -> None:
        self.queries.close()
        self.queries.trust.audits.drop()
        self.lane.first_lost()
        if self.context.online:
            self.context.send(messages.Bye("done"))
            self.context.do(CloseConnection("done"))
        self.offer_at, self.asks_again = None, False
        self.context.enter("closed")

    def received(self, message: messages.Message) -> None:
        self.liveness.heard(self.context.now)
        try:
            self.context.conversation.received(message)
            self._dispatch(message)
        except (RemoteProtocolError, InvalidInput) as error:
            # Whatever an edge says wrong, queries go on here and the connection starts anew.
            self.drop(f"the edge broke the protocol: {error}")

    def _dispatch(self, message: messages.Message) -> None:
        match message:
            case messages.ChunkAck() | messages.Held() if self.lane.carrying:
                raise RemoteProtocolError(
                    "weights are acknowledged on the connection that carries them"
                )
            case messages.ChunkAck(clock_s):
                self.uploading.chunk_acknowledged(clock_s)
                self.look_whether_ready()
            case messages.Held():
                self.uploading.held(message)
                if message.complete:
                    # Only now is it sure that this edge takes what it is sent.
                    self._backoff_s = self.context.options.backoff_s
                self.look_whether_ready()
            case messages.Result():
                self.queries.answered(message)
                self._backoff_s = self.context.options.backoff_s
            case messages.Welcome():
                self._welcomed(message)
            case messages.Pong(token):
                self._ponged(token)
            case messages.Ping(token):
                self.context.send(messages.Pong(token, self.context.now))
            case messages.Unknown(fingerprint):
                self._unknown(fingerprint)
            case messages.Have():
                # Asked again on the same connection, when the second one broke.
                own = self.lane.phase == "asking"
                self.uploading.negotiated(message, self._max_chunk_bytes, own=own)
                self.lane.answered()
                self.look_whether_ready()
            case messages.Error():
                self._refused(message)
            case messages.Evicted():
                self._evicted()
            case messages.Bye(reason):
                self.drop(f"the edge says goodbye: {reason}")

    def _welcomed(self, welcome: messages.Welcome) -> None:
        try:
            check_welcome(welcome)
        except RemoteProtocolError as error:
            self.reject(VersionMismatch(str(error), error.code))
            return
        predictor = None
        try:
            predictor = Predictor.from_plain(welcome.predictor)
        except ValueError as error:
            # Of another version, say: what its queries take is learnt as they run.
            self.context.record("unknown predictor", reason=str(error))
        self.context.forecast.meet_edge(predictor, welcome.max_message_bytes)
        self._max_chunk_bytes = welcome.max_chunk_bytes
        self._quota_bytes = welcome.memory_bytes
        self.lane.offered(welcome.lane)
        self.context.links.observe_round_trip(self.context.now - self._greeted_at)
        # Beside the offer, so that it costs no time; two round trips are better than one.
        self.ping()
        self.make_offer()

    def ping(self) -> None:
        self.context.send(messages.Ping(self.liveness.ping(self.context.now)))

    def _ponged(self, token: int) -> None:
        took_s = self.liveness.ponged(token, self.context.now)
        if took_s is None:
            raise RemoteProtocolError(f"a pong for ping {token}, which is not under way")
        if self.context.phase == "offering":
            self.context.links.observe_round_trip(min(took_s, self.context.links.link.rtt_s))

    def make_offer(self, graph: bytes = b"") -> None:
        """Ask whether the edge knows the graph, or offer it whole."""
        self.offer_at = None
        self._offered_whole = bool(graph)
        self.context.enter("offering")
        self.context.send(messages.Offer(self.context.graph.fingerprint, graph))

    def _unknown(self, fingerprint: str) -> None:
        if fingerprint != self.context.graph.fingerprint or self._offered_whole:
            raise RemoteProtocolError("the edge does not know a graph that it was just given")
        self.make_offer(self._offer)

    def look_whether_ready(self) -> None:
        if self.context.phase == "uploading" and self.uploading.upload.done:
            self._backoff_s = self.context.options.backoff_s
            sent = {
                "sent_bytes": self.uploading.upload.sent_bytes,
                "query_bytes": self.queries.sent_bytes,
            }
            self.context.enter("ready", **sent)

    def _evicted(self) -> None:
        self.lane.first_lost()
        self.uploading.evicted()
        self.context.last_failure = "the edge evicted the model to make room"
        if self.context.conversation.state is State.OFFERED:
            # What is held was being asked: that is the next offer.
            return
        self.context.enter("greeting", reason=self.context.last_failure)
        # At once would start two clients evicting each other in turn.
        self.offer_at = self.context.now + RETRY_REFUSED_S

    def _refused(self, error: messages.Error) -> None:
        if error.query is not None:
            self.queries.refused(error.query, error.code, error.text)
            return
        self.context.record("refused", code=error.code, text=error.text)
        too_large = error.code == "memory" and self._weight_bytes > self._quota_bytes
        if error.code in FINAL_REFUSALS or too_large:
            kind = VersionMismatch if error.code == "version" else EdgeRejected
            self.reject(kind(error.text, error.code), asks_again=too_large)
            return
        if error.code in SLOW_REFUSALS:
            self._backoff_s = RETRY_REFUSED_S
        self.drop(error.text)

    @property
    def _weight_bytes(self) -> int:
        """Of the whole model, each weight once: what an edge makes room for."""
        weights = self.context.graph.weights
        return sum({weight.digest: weight.spec.nbytes for weight in weights}.values())

    def distrusted(self, error: OffloadError) -> None:
        if self.context.phase != "closed":
            self.reject(error)

    def reject(self, error: OffloadError, asks_again: bool = False) -> None:
        """This edge does not run this model, and, unless it is asked again, never will."""
        self.error, self.asks_again = error, asks_again
        self.context.enter("rejected", reason=str(error))
        self.drop(str(error))
