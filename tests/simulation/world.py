"""One seed: a world is made, things go wrong in it, and then it must come to rest."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import random
import traceback
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ionn_client.activations import Activations
from ionn_client.machine.context import AGREED, OVER
from ionn_client.machine.query import Answer
from ionn_edge.workers import jobs
from planner import CutCoding
from tests.simulation.client import Asked, Wearer
from tests.simulation.edge import Life, Spot
from tests.simulation.faults import FAULTS
from tests.simulation.loop import VirtualLoop
from tests.simulation.models import EXACT, POISON, Model, model
from tests.simulation.network import Way
from tests.simulation.rest import left_behind, unserved
from tests.simulation.scenario import Client, Scenario
from wire import PRECISIONS, messages

TURNS = 400_000
SETTLE_S = 90.0
REST_S = 1.0
RECOVER_S = 45.0
# For a silent connection to be given up, beside what the client's options say.
FORSAKEN_S = 3.0
MOST_PROBES = 8
KEPT_EVENTS = 80
MOMENTS = (
    "Hello", "Welcome", "Offer", "Have", "Unknown", "Segment", "Chunk", "ChunkAck", "Held",
    "Execute", "Result", "Cancel", "Join", "Joined", "Evicted", "Ping", "Bye", "Error",
    # Most of what can go wrong does so while these are under way.
    "Execute", "Execute", "Execute", "Result", "Held", "Have", "Segment",
    "RunRange", "RunRange", "RunRange", "RunRange",
)  # fmt: skip


class World:
    """Everything that a seed's run has, and what its checks found."""

    def __init__(self, scenario: Scenario, root: Path, trace: bool) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed + 1)
        self.loop = VirtualLoop(TURNS)
        self.problem: str | None = None
        self.counts: Counter[str] = Counter()
        self.lies = self.spoiled = self.ending = False
        self.jumped_s = 0.0
        self.wearers: list[Wearer] = []
        self.models: dict[str, Model] = {}
        self.spot = Spot(self, root)
        self._trace = trace
        # Of nobody's process: faults happen to them from outside.
        self._context = contextvars.copy_context()
        self.events: deque[tuple[float, str, str, Any]] = deque(maxlen=KEPT_EVENTS)
        self._failed = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []
        self._ranks: dict[tuple[str, int, int], list[int]] = {}
        self._moments: list[list[Any]] = []

    # What the checks and the faults use.

    def violated(self, text: str, error: BaseException | None = None) -> None:
        """An invariant does not hold: the run ends."""
        if self.problem is None:
            self.problem = text
            if error is not None:
                self.problem += "\n" + "".join(traceback.format_exception(error))
            self.note("world", "VIOLATED", text)
            self._failed.set()

    def note(self, who: str, what: str, detail: Any) -> None:
        event = self.loop.time(), who, what, detail
        if self._trace:
            print(line(event))
        else:
            self.events.append(event)

    def step(self, who: str, event: Any) -> None:
        self.counts["steps"] += 1
        self.note(who, "hears", event)

    def said(self, who: str, message: messages.Message) -> None:
        self.note(who, "says", message)
        self.happens(type(message).__name__)

    def happens(self, name: str) -> None:
        """Faults may wait for this."""
        for moment in self._moments:
            if moment[0] == name:
                moment[1] -= 1
                if moment[1] == 0:
                    self.loop.call_soon(moment[2], context=self._context)

    def sent_again(self, wearer: Wearer, segment: messages.Segment) -> None:
        """What was acknowledged in this epoch crosses once more."""
        self.counts["sent again"] += 1
        self.note(wearer.name, "SENDS AGAIN", segment)

    def ran(self, of: Model, job: jobs.Run, stop: int, ranks: tuple[int, ...]) -> None:
        for layer, rank in zip(range(job.start, stop), ranks, strict=True):
            self._ranks.setdefault((of.graph.fingerprint, job.query, layer), []).append(rank)

    def ranks_of(self, wearer: Wearer, asked: Asked, answer: Answer) -> tuple[int, ...]:
        """How precise the weights of each layer were that an answer really came from."""
        ranks = [EXACT] * wearer.model.layers
        fingerprint = wearer.model.graph.fingerprint
        for part in answer.ranges:
            if part.where == "edge":
                for layer in range(part.start, part.stop):
                    ran = self._ranks.get((fingerprint, asked.number, layer))
                    if ran is None:
                        self.violated(
                            f"layer {layer} of query {asked.number} never ran at the edge"
                        )
                    else:
                        ranks[layer] = ran[-1]
        return tuple(ranks)

    def spawn(self, work: Any) -> None:
        self._tasks.append(self.loop.create_task(self._watched(work)))

    async def _watched(self, work: Any) -> None:
        try:
            await work
        except Exception as error:
            self.violated(f"the simulation itself failed: {error!r}", error)

    def activations(self, of: Model) -> Activations:
        """Every cut may cross as it is or coded, at made-up sizes and times."""
        return Activations(
            tuple(
                (
                    CutCoding("raw", size, 0.0, 0.0),
                    CutCoding("planes", max(int(0.6 * size), 1), 1e-5, 1e-5),
                )
                for size in of.graph.cut_bytes
            )
        )

    def visit(self, rng: random.Random) -> None:
        """Another client comes with a model of its own, asks a little, and goes."""
        client = Scenario.draw(rng.randrange(1 << 30)).clients[0]
        self.spawn(self._client(client, 2, leaves_s=rng.uniform(0.2, 4.0)))

    # The run.

    async def run(self) -> None:
        self.spot.start()
        self._plan_faults()
        for client in self.scenario.clients:
            self.spawn(self._client(client, client.variant))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._failed.wait(), self.scenario.active_s)
        self._heal()
        settled = asyncio.ensure_future(self._settle())
        failed = asyncio.ensure_future(self._failed.wait())
        await asyncio.wait((settled, failed), return_when=asyncio.FIRST_COMPLETED)
        if settled.done():
            settled.result()
        settled.cancel()
        failed.cancel()
        self.ending = True
        await self._end()

    def _plan_faults(self) -> None:
        for name in self.scenario.faults:
            act = self._act(name, random.Random(self.rng.random()))
            if self.rng.random() < 0.35:
                self.loop.call_later(self.rng.uniform(0.0, self.scenario.active_s), act)
            else:
                self._plan_moment(act)

    def _plan_moment(self, act: Callable[[], None]) -> None:
        """When something is said, or run at the edge, for the n-th time; later, if it never is."""
        moment = [self.rng.choice(MOMENTS), self.rng.choice((1, 1, 2, 3, 4, 6, 9, 12)), act]
        self._moments.append(moment)

        def act_at_last() -> None:
            if moment in self._moments and moment[1] > 0:
                self._moments.remove(moment)
                act()

        self.loop.call_later(self.rng.uniform(0.7, 1.0) * self.scenario.active_s, act_at_last)

    def _act(self, name: str, rng: random.Random) -> Callable[[], None]:
        def act() -> None:
            if not self.ending and self.wearers:
                self.counts[f"fault {name}"] += 1
                self.note("world", "fault", name)
                FAULTS[name](self, rng)

        return act

    async def _client(self, client: Client, variant: int, leaves_s: float | None = None) -> None:
        rng = random.Random(self.rng.random())
        await asyncio.sleep(client.begins_s if leaves_s is None else 0.0)
        if self.ending:
            return
        up = Way(client.up_Bps, client.delay_s, client.jitter_s)
        down = Way(client.down_Bps, client.delay_s, client.jitter_s)
        name = f"client {len(self.wearers)}"
        of = model(client.model, variant)
        self.models[of.graph.fingerprint] = of
        wearer = Wearer(
            self,
            name,
            client.device,
            of,
            client.options,
            client.layer_s,
            up,
            down,
            rng,
            client.thread_s,
        )
        self.wearers.append(wearer)
        wearer.start()
        await wearer.driver.started()
        await self._ask(wearer, client)
        if leaves_s is not None:
            await asyncio.sleep(leaves_s)
            await self._leave(wearer)

    async def _ask(self, wearer: Wearer, client: Client) -> None:
        rng = wearer.rng
        if rng.random() < 0.8:
            await self._until_agreed(wearer, 0.4 * self.scenario.active_s)
        for number in range(client.queries):
            if self.ending:
                return
            poisoned = rng.random() < client.poison
            live = wearer.model.input(number)
            if poisoned:
                live = (live[0] + POISON * 2,)
            precise = client.options.precision == "exact" or rng.random() < 0.3
            abandon_s = rng.uniform(0.0, 0.3) if rng.random() < client.abandons else None
            deadline = client.deadline_s if rng.random() < 0.7 else None
            deadline_s = None if deadline is None else rng.uniform(*deadline)
            precision = PRECISIONS[-1] if precise else rng.choice(PRECISIONS)
            lossless = rng.random() < 0.2
            wearer.ask(
                Asked(number, live, 0.0, deadline_s, precision, lossless, poisoned, abandon_s)
            )
            if rng.random() >= client.at_once:
                longer = 0.7 / (1.0 - client.at_once)
                await asyncio.sleep(client.every_s * longer * rng.uniform(0.5, 2.4))
                if rng.random() < 0.5:
                    await self._until_agreed(wearer, 0.3 * self.scenario.active_s)
                    await self._until_changed(wearer, 0.2)

    async def _until_agreed(self, wearer: Wearer, longest_s: float) -> None:
        """Until the edge has some use: before, queries run here, whatever happens."""
        until = self.loop.time() + longest_s
        while wearer.session.phase not in AGREED | OVER and self.loop.time() < until:
            await self._until_changed(wearer, until - self.loop.time())

    @staticmethod
    async def _until_changed(wearer: Wearer, longest_s: float) -> None:
        """So that queries meet the upload midway, with the weights that have just come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await wearer.driver.changed()

    async def _leave(self, wearer: Wearer) -> None:
        if wearer.stopping:
            return
        wearer.stopping = True
        await self.loop.create_task(wearer.stop(), context=wearer.context)
        if wearer.session.phase != "closed":
            self.violated(f"{wearer.name} stopped, and its session is {wearer.session.phase}")
        if len(wearer.session.queries):
            self.violated(f"{wearer.name} stopped with open queries")

    def _heal(self) -> None:
        self._moments.clear()
        if (life := self.spot.life) is not None:
            life.no_workers = life.disk_full = False
            life.slowness = life.disk_slowness = 1.0
        for wearer in self.wearers:
            wearer.unreachable_until = 0.0
            wearer.leave_alone()

    async def _settle(self) -> None:
        """Every query comes to its end, and the clients part in peace."""
        asking = [task for wearer in self.wearers for task in wearer.asking]
        if asking:
            _, pending = await asyncio.wait(asking, timeout=SETTLE_S)
            if pending:
                open_ = [
                    (w.name, q.number) for w in self.wearers for q in w.asked if not q.ended_at
                ]
                self.violated(f"queries hang: {open_[:5]}")
        await asyncio.sleep(REST_S)
        await self._forsake()
        if self.scenario.has_room:
            await self._recover()

    async def _forsake(self) -> None:
        """Nobody keeps a connection over which nothing comes."""
        began = self.loop.time()
        while kept := [wearer for wearer in self.wearers if wearer.listens_in_vain]:
            longest_s = FORSAKEN_S + 1.5 * max(w.options.silence_s for w in kept)
            if self.loop.time() - began > longest_s:
                self.violated(f"{kept[0].name} keeps a connection over which nothing comes")
                return
            await asyncio.sleep(0.25)

    async def _recover(self) -> None:
        """Where nothing is in the way, every client has its edge again, and uses it."""
        here: list[Wearer] = []
        for _ in range(int(RECOVER_S)):
            here = [wearer for wearer in self.wearers if not wearer.stopping]
            if all(wearer.session.phase in ("ready", "rejected") for wearer in here):
                break
            await asyncio.sleep(1.0)
        else:
            seen = [(w.name, w.session.phase, w.session.last_failure) for w in here]
            self.violated(f"after {RECOVER_S:.0f} s of peace: {seen}")
        for wearer in here:
            await self._trust_again(wearer)
            self.counts["recovered"] += 1
        await self._edge_at_rest(unserved)

    async def _edge_at_rest(self, look: Callable[[Life], list[str]]) -> None:
        life = self.spot.life
        if life is not None and (wrong := await life.at_rest(look)):
            self.violated(f"the edge at rest: {'; '.join(wrong)}")

    async def _trust_again(self, wearer: Wearer) -> None:
        """An edge that does its work is asked again, however often it failed before."""
        trust, text = wearer.session.queries.trust, None
        for _ in range(MOST_PROBES):
            if wearer.stopping:
                return  # A visitor, who leaves meanwhile.
            number = len(wearer.asked)
            live = wearer.model.input(number)
            wearer.ask(Asked(number, live, 0.0, None, PRECISIONS[-1], False, False, None))
            await asyncio.wait(wearer.asking, timeout=SETTLE_S)
            text = trust.refusal()
            if text is None or wearer.session.phase != "ready" or self.lies:
                return
            await asyncio.sleep(min(trust.breaker.left_s(wearer.loop.time()), 70.0) + 1.0)
        self.violated(f"{wearer.name} in peace: {text}")

    async def _end(self) -> None:
        for wearer in self.wearers:
            await self._leave(wearer)
        # Visitors too, who were about to leave.
        unfinished = [*self._tasks, *(wearer.running for wearer in self.wearers)]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        life = self.spot.life
        if life is not None and self.problem is None:
            life.context.run(life.box.drain)
            limit_s = life.box.config.drain_s + 5.0
            try:
                await asyncio.wait_for(life.box.empty.wait(), limit_s)
            except TimeoutError:
                self.violated(f"{len(life.links)} connections outlive the edge's draining")
            await self._edge_at_rest(left_behind)
        for each in [*self.spot.over, *([life] if life is not None else [])]:
            await each.ended()


def line(event: tuple[float, str, str, Any]) -> str:
    at, who, what, detail = event
    text = repr(detail)
    return f"{at:10.6f} {who:9} {what:8} {text if len(text) < 300 else text[:300] + '...'}"
