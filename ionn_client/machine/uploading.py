"""The weights' part of a session: negotiated, planned, sent, acknowledged, usable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ionn_client.machine.context import Context
from ionn_client.machine.inventory import read_have
from ionn_client.machine.pacer import UploadPacer
from ionn_client.machine.sender import Sender
from ionn_client.machine.upload import Step, Upload
from wire import PRECISIONS, RemoteProtocolError, messages
from wire.planes import WHOLE

REPLAN_INTERVAL_S = 1.0
REPLAN_CHANGE = 0.2
NOTHING: Mapping[str, frozenset[int]] = dict.fromkeys(PRECISIONS, frozenset())


class Uploading:
    """Owns the bookkeeping, the sender and the plan; `usable` is what queries may count on."""

    def __init__(self, context: Context, blobs: Sequence[memoryview]) -> None:
        self._context = context
        self.upload = Upload(context.graph, context.options.precision, context.kept)
        self.sender = Sender(self.upload, blobs)
        self.usable = NOTHING
        self._planned_for: tuple[float, float] | None = None
        self._replan_at = 0.0
        self._met_at: float | None = None
        # When the next chunk may go although nothing is heard before.
        self.due_at: float | None = None

    def interrupted(self) -> None:
        """The connection is gone: what is held is to be negotiated anew."""
        self.usable = NOTHING
        self.due_at = None
        self.sender.reset()
        if self._context.pacer is not None:
            self._context.pacer.reset_flight()

    def evicted(self) -> None:
        self.upload.forget()
        self.interrupted()

    def negotiated(self, have: messages.Have, max_chunk_bytes: int, *, own: bool) -> None:
        """`own`: whatever is there came over this connection.

        Raises RemoteProtocolError for a Have that contradicts the graph or itself.
        """
        context = self._context
        lost_bytes = self.upload.renegotiated(read_have(context.graph, have), own=own)
        if context.pacer is None:
            context.pacer = UploadPacer(max_chunk_bytes)
        self.sender.max_chunk_bytes = max_chunk_bytes
        self.interrupted()
        context.enter("uploading", held_bytes=self.upload.held_bytes, lost_bytes=lost_bytes)
        self.plan()
        self.refresh()

    def plan(self) -> None:
        context = self._context
        partitions = self._steps()
        self.upload.follow(partitions)
        self.sender.replanned()
        self._planned_for = self._plan_basis()
        self._replan_at = context.now + REPLAN_INTERVAL_S
        context.record(
            "plan",
            algorithm=context.options.algorithm,
            precision=context.options.precision,
            partitions=[[list(step) for step in part] for part in partitions],
            up_Bps=context.links.link.up_Bps,
            rtt_s=context.links.link.rtt_s,
        )

    def _steps(self) -> Sequence[Sequence[Step]]:
        """The order of the upload: over layers, or over layers and planes jointly."""
        context = self._context
        options, link = context.options, context.links.link
        if options.precision == "progressive":
            return context.forecast.progressive_plan(link, self.upload.missing_planes())
        missing = self.upload.missing_bytes()
        if self._met_at is None:
            self._met_at = context.now
        stay = options.stay and options.stay.after(context.now - self._met_at)
        plan = context.forecast.plan(link, missing, options.algorithm, options.k, stay)
        return [[(layer, WHOLE) for layer in partition] for partition in plan.partitions]

    def _plan_basis(self) -> tuple[float, float]:
        """What a plan rests on and may change: the uplink's rate, and the edge's whole time."""
        context = self._context
        return context.links.link.up_Bps, context.forecast.edge_range_s(0, context.layers)

    def _world_moved(self) -> bool:
        self._replan_at = self._context.now + REPLAN_INTERVAL_S
        return self._planned_for is not None and any(
            abs(now - planned) > REPLAN_CHANGE * planned
            for planned, now in zip(self._planned_for, self._plan_basis(), strict=True)
        )

    def chunk_acknowledged(self, clock_s: float) -> None:
        """Raises RemoteProtocolError where no chunk is under way."""
        context, pacer = self._context, self._context.pacer
        if pacer is None or not pacer.in_flight_bytes:
            raise RemoteProtocolError("an acknowledgement of a chunk that was not sent")
        pacer.acknowledged(clock_s, context.now)
        rate = pacer.mean_rate_Bps
        if rate is not None:
            context.links.observe_upload(rate)
        if context.options.replan and context.now >= self._replan_at and self._world_moved():
            self.plan()
            # A new plan may want nothing more ("ionn" leaves layers out): then this is the end.
            self.refresh()

    def held(self, held: messages.Held) -> None:
        """Raises RemoteProtocolError where that is not what was sent."""
        self.upload.held(held)
        if self.upload.has(held.weight, held.plane):
            self.refresh()

    def refresh(self) -> None:
        context, upload = self._context, self.upload
        whole = context.options.acknowledge == "partition"
        usable = {name: upload.layers(name, whole_partitions=whole) for name in PRECISIONS}
        if usable != self.usable:
            self.usable = usable
            context.record(
                "uploaded",
                layers={name: sorted(layers) for name, layers in usable.items()},
                held_bytes=upload.held_bytes,
                partitions_done=upload.partitions_done,
                partitions=len(upload.partitions),
            )

    @property
    def settled(self) -> bool:
        """Everything that was sent is held."""
        return self.sender.between_segments and not self.upload.in_flight

    @property
    def owed(self) -> bool:
        """The edge has something to acknowledge."""
        pacer = self._context.pacer
        return self.upload.owed or (pacer is not None and pacer.in_flight_bytes > 0)

    def pace_anew(self) -> None:
        """What comes next goes over a connection of its own, which has its own start."""
        self._context.pacer = UploadPacer(self.sender.max_chunk_bytes, overtaken=True)

    def stop_sending(self) -> None:
        """Until it is negotiated anew what is held."""
        self._context.pacer = self.due_at = None
        self.sender.reset()

    def send(
        self, credit_bytes: float, say: Callable[[messages.Message], None], *, begin: bool = True
    ) -> None:
        """Send what the window has room for, and have coded what comes after it.

        Without `begin`, only the segment at hand.
        """
        context, pacer = self._context, self._context.pacer
        self.due_at = None
        # In "ready" too: a segment that has begun is finished where a new plan wants no more.
        if not context.agreed or pacer is None:
            return
        while pacer.may_send(context.now, credit_bytes):
            if not begin and self.sender.between_segments:
                break
            parts = self.sender.next(pacer.chunk_bytes())
            if not parts:
                break
            for part in parts:
                say(part)
            pacer.sent(self.sender.chunk_bytes, context.now)
        else:
            self.due_at = pacer.due_at(credit_bytes)
        for command in self.sender.ahead(context.links.link.up_Bps):
            context.do(command)
