"""What a session does because time passes: when it wakes, and what it no longer waits for.

No I/O, no clock.
"""

from __future__ import annotations

from ionn_client.machine.dialogue import Dialogue
from ionn_client.machine.queries import REPLY_TICK_S

# When this program is so late, it hears first what has arrived meanwhile, and for so long.
LATE_S, HEAR_S = 0.1, 0.05
# It does so once in a while only: a program that is always late must miss things in the end.
HEAR_AGAIN_S = 1.0


class Watch:
    """Over one session's connections and queries.

    wake_at: when something is due, if nothing happens before.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._context = dialogue.context
        self._queries = dialogue.queries
        self._uploading = dialogue.uploading
        self._lane = dialogue.lane
        self._liveness = dialogue.liveness
        # Of a lane that has been quiet since then: when the edge was asked whether it is there.
        self._asked_for_lane: dict[float, float] = {}
        self.wake_at: float | None = None

    def woke(self) -> None:
        """Something happens. Where it was due much earlier, what has come is heard first."""
        context = self._context
        if self.wake_at is None or context.now - self.wake_at < LATE_S:
            return
        self._liveness.slept(context.now - self.wake_at, context.now)
        if context.now >= context.heard_out_at + HEAR_AGAIN_S:
            context.heard_out_at = context.now + HEAR_S

    def expect(self) -> None:
        """Nothing more happens now: what is due next is known."""
        times = self._queries.wake_times()
        if self._context.online:
            if (ping_at := self._liveness.ping_at()) is not None:
                times.append(ping_at)
            if (gone_at := self._gone_at) is not None:
                times.append(gone_at)
                if self._context.now < self._queries.over_at:
                    # Silence is a sign sooner from then on.
                    times.append(self._queries.over_at)
        if self._dialogue.offer_at is not None:
            times.append(self._dialogue.offer_at)
        if self._uploading.due_at is not None:
            times.append(self._uploading.due_at)
        if (quiet_since := self._lane.quiet_since) is not None:
            times.append(self._lane_due_at(quiet_since))
        if self._context.phase == "uploading" and self._queries.reply_s > REPLY_TICK_S:
            times.append(self._context.now + REPLY_TICK_S)
        self.wake_at = min(times, default=None)

    @property
    def _owed(self) -> bool:
        """The edge owes us a message."""
        return (
            (self._context.phase in ("greeting", "offering") and self._dialogue.offer_at is None)
            or self._queries.on_edge
            or (self._uploading.owed and not self._lane.carrying)
        )

    def look(self) -> None:
        """Do what is due."""
        self._queries.watch_time()
        if self._dialogue.offer_at is not None and self._context.now >= self._dialogue.offer_at:
            self._dialogue.make_offer()
        if self._context.online:
            self._watch_silence()
        if self._context.online and (quiet_since := self._lane.quiet_since) is not None:
            self._watch_lane(quiet_since)

    def _watch_lane(self, quiet_since: float) -> None:
        """A silent second connection is given up; with the first, if that is silent too."""
        now, asked_at = self._context.now, self._asked_for_lane.get(quiet_since)
        if now < self._lane_due_at(quiet_since):
            return
        if asked_at is None:
            # Once, to tell a silent connection from a silent edge.
            self._asked_for_lane = {quiet_since: now}
            self._dialogue.ping()
            return
        reason = f"the edge said nothing for {now - quiet_since:.1f} s"
        if self._liveness.heard_at < asked_at:
            self._dialogue.drop(reason)
        else:
            self._lane.drop(reason)

    def _lane_due_at(self, quiet_since: float) -> float:
        return self._asked_for_lane.get(quiet_since, quiet_since) + self._silence_limit_s / 2

    @property
    def _held_up_s(self) -> float:
        """How long what is under way may hold up every answer. Each chunk has one of its own."""
        return self._queries.transfers_s + self._context.acknowledging_s()

    @property
    def _silence_limit_s(self) -> float:
        """How long silence is no sign."""
        return self._context.options.silence_s + self._held_up_s

    @property
    def _gone_at(self) -> float | None:
        # With every message: what it takes is counted only where there is something to wait for.
        if self._liveness.asked_at is None:
            return None
        gone_at = self._liveness.gone_at(self._held_up_s)
        return None if gone_at is None else max(gone_at, self._context.heard_out_at)

    def _watch_silence(self) -> None:
        now = self._context.now
        self._liveness.owed(now, owed=self._owed)
        if (ping_at := self._liveness.ping_at()) is not None and now >= ping_at:
            self._dialogue.ping()
        if (gone_at := self._gone_at) is not None and now >= gone_at:
            quiet_s = now - self._liveness.heard_at
            self._dialogue.drop(f"the edge said nothing for {quiet_s:.1f} s")
