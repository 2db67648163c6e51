"""Performs what the session machine asks for: sockets, clock, threads. Decides nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import aiohttp

from ionn_client.boxes.access import Access
from ionn_client.boxes.connection import CLOSE_TIMEOUT_S, CONNECT_TIMEOUT_S
from ionn_client.boxes.connections import Connections, Opener, internal
from ionn_client.coding import code_segment, code_tensors
from ionn_client.config import Options
from ionn_client.errors import OffloadError, PairingError
from ionn_client.local import LocalRunner
from ionn_client.machine import events
from ionn_client.machine.query import Answer
from ionn_client.machine.session import Session
from ionn_client.machine.tensors import reply_limits
from layergraph.execute import Live


class Driver:
    """One session's I/O. `run` ends only when cancelled; `close` says goodbye first."""

    def __init__(
        self, session: Session, access: Access, runner: LocalRunner, options: Options
    ) -> None:
        self.session = session
        self._access = access
        self._runner = runner
        self._trace = options.trace
        limits = reply_limits(session.context.graph)
        self._opener = Opener(access, limits, options.silence_s)
        self._connections = Connections(self._post, self._opener, self._begin)
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._next_query = 0
        # What ran while commands were performed, for the session to hear of next.
        self._ran: deque[events.RangeRan | events.RangeFailed] = deque()
        self._tasks: asyncio.TaskGroup
        self._coder = ThreadPoolExecutor(1, "ionn-coder")
        # Of its own, so that no query waits for weights to be coded.
        self._tensor_coder = ThreadPoolExecutor(1, "ionn-tensors")
        self._timer: asyncio.TimerHandle | None = None
        # Somebody has an answer, and goes first; then what else its event brings.
        self._answered = False
        self._catching_up: asyncio.Handle | None = None
        self._changed = asyncio.Event()
        self._started = asyncio.Event()
        self._ended = False
        self._verdict: asyncio.Task[None] | None = None

    @property
    def now(self) -> float:
        """The session's clock, in seconds."""
        return self._loop.time()

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with (
                self._access.http(timeout) as http,
                asyncio.TaskGroup() as tasks,
            ):
                self._opener.http, self._tasks = http, tasks
                self._post(events.Started())
                self._started.set()
                await asyncio.Event().wait()
        finally:
            self._end()

    async def started(self) -> None:
        await self._started.wait()

    async def ask(
        self, live: Live, deadline_s: float | None, precision: str, lossless: bool
    ) -> Answer:
        if self._ended:
            raise OffloadError("the session was closed")
        number, self._next_query = self._next_query, self._next_query + 1
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[number] = future
        try:
            self._post(events.QueryAsked(number, live, deadline_s, precision, lossless))
            if future.done():
                # Answered at once: who asks one after the other keeps nobody else waiting.
                await asyncio.sleep(0)
            return await future
        except asyncio.CancelledError:
            self._post(events.QueryAbandoned(number))
            raise
        finally:
            self._answers.pop(number, None)

    async def changed(self) -> None:
        """Until the session's phase, upload or plan changes."""
        await self._changed.wait()

    def give_up(self, error: OffloadError) -> None:
        """Use the edge no more in this session; queries run here from now on."""
        self._post(events.EdgeDistrusted(error))

    async def close(self) -> None:
        """Say goodbye, as far as the edge listens; the caller then cancels `run`."""
        connection = self._connections.first.current
        self._post(events.Stopped())
        if self._verdict is not None:
            # A box that lied is not to be believed by the next program either.
            await asyncio.wait({self._verdict}, timeout=2 * CLOSE_TIMEOUT_S)
        if connection is not None:
            try:
                await asyncio.wait_for(connection.ended.wait(), 2 * CLOSE_TIMEOUT_S)
            except TimeoutError:
                return  # A frozen edge; whoever cancels `run` ends the connection.

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._tasks.create_task(work)

    def _end(self) -> None:
        self._ended = True
        for pool in (self._coder, self._tensor_coder):
            pool.shutdown(wait=False, cancel_futures=True)
        self._changed.set()
        for waiting in (self._timer, self._catching_up):
            if waiting is not None:
                waiting.cancel()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(OffloadError("the session was closed"))

    def _post(self, event: events.Event) -> None:
        self._take(event)
        while self._ran:
            self._take(self._ran.popleft())
        self._connections.flush()
        if self._answered:
            if self._catching_up is None:
                self._catching_up = self._loop.call_soon(self._catch_up)
        else:
            self._catch_up()

    def _catch_up(self) -> None:
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None
        self._perform_all(self.session.catch_up)
        while self._ran:
            self._take(self._ran.popleft())
            self._perform_all(self.session.catch_up)
        self._answered = False
        self._connections.flush()
        self._set_timer(self.session.wake_at)

    def _take(self, event: events.Event) -> None:
        self._perform_all(partial(self.session.take, event))

    def _perform_all(self, decide: Callable[[float], list[events.Command]]) -> None:
        now = self._loop.time()
        try:
            commands = decide(now)
        except Exception as error:
            commands = self.session.failed(error, now)
        for command in commands:
            self._perform(command)

    def _set_timer(self, wake_at: float | None) -> None:
        timer = self._timer
        if wake_at is None or (timer is not None and wake_at < timer.when()):
            if timer is not None:
                timer.cancel()
            self._timer = timer = None
        # A timer that is early finds out when it goes off: most times move on with each message.
        if wake_at is not None and timer is None:
            self._timer = self._loop.call_at(wake_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._post(events.TimePassed())

    def _perform(self, command: events.Command) -> None:
        match command:
            case events.SendMessage(message):
                self._connections.first.send(message)
            case events.RunRange():
                if (ran := self._run_at_once(command)) is not None:
                    self._ran.append(ran)
                else:
                    self._begin(self._run_range(command))
            case events.AuditRange():
                self._begin(self._audit(command))
            case events.Quarantine(reason):
                self._verdict = self._begin(self._quarantine(reason))
            case events.CodeSegment():
                self._begin(self._code_segment(command))
            case events.EncodeTensors() | events.DecodeTensors():
                self._begin(self._code_tensors(command))
            case events.FinishQuery(number, answer):
                self._settle(number, answer)
            case events.FailQuery(number, error):
                self._settle(number, error)
            case events.OpenConnection(delay_s):
                self._connections.open(delay_s)
            case events.CloseConnection():
                self._connections.first.close()
            case events.AbortConnection():
                self._connections.first.abort()
            case events.OpenLane():
                self._connections.open_lane()
            case events.SendOnLane(message):
                self._connections.lane.send(message)
            case events.CloseLane():
                self._connections.lane.close()
            case events.AbortLane():
                self._connections.lane.abort()
            case events.Record(kind, fields):
                self._record(kind, fields)

    def _settle(self, number: int, outcome: Answer | Exception) -> None:
        future = self._answers.get(number)
        if future is None or future.done():
            return
        self._answered = True
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _record(self, kind: str, fields: dict[str, Any]) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._trace is None:
            return
        try:
            self._trace({"event": kind, "time_s": self._loop.time() - self._began, **fields})
        except Exception as error:
            # The caller's own, a full disk say: no query fails of it. Told as of any callback.
            self._trace = None
            text = "Options.trace failed; nothing more is traced"
            self._loop.call_exception_handler({"message": text, "exception": error})

    def _run_at_once(self, command: events.RunRange) -> events.RangeRan | events.RangeFailed | None:
        start, stop = command.start, command.stop
        try:
            ran = self._runner.run_at_once(start, stop, command.live)
        except Exception as error:
            return events.RangeFailed(command.query, error, start)
        return None if ran is None else events.RangeRan(command.query, start, stop, *ran)

    async def _run_range(self, command: events.RunRange) -> None:
        start, stop = command.start, command.stop
        try:
            ran = await self._runner.run(
                start, stop, command.live, lambda: self._wants(command.query, start)
            )
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # The model itself fails on this input: the caller's to see, as without an edge.
            self._post(events.RangeFailed(command.query, error, start))
        else:
            if ran is not None:
                self._post(events.RangeRan(command.query, start, stop, *ran))

    def _wants(self, number: int, start: int) -> bool:
        return number in self._answers and self.session.queries.wants(number, start)

    async def _audit(self, command: events.AuditRange) -> None:
        try:
            audited = await self._runner.auditor.run(command)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._post(events.RangeNotAudited(command.audit, repr(error)))
        else:
            self._post(audited)

    async def _quarantine(self, reason: str) -> None:
        try:
            await asyncio.to_thread(self._access.quarantine, reason)
        except PairingError as error:
            # For as long as this session lasts, then.
            self._record("not remembered", {"reason": str(error)})

    async def _code_segment(self, command: events.CodeSegment) -> None:
        coded: events.Event
        try:
            coded = await self._loop.run_in_executor(self._coder, code_segment, command)
        except Exception:
            coded = events.SegmentNotCoded(command.piece)
        self._post(coded)

    async def _code_tensors(self, command: events.EncodeTensors | events.DecodeTensors) -> None:
        try:
            coded = await self._loop.run_in_executor(self._tensor_coder, code_tensors, command)
        except Exception as error:
            if isinstance(command, events.EncodeTensors):
                # As they are, then.
                coded = events.TensorsEncoded(command.query, command.tensors, 0.0)
            else:
                coded = events.TensorsUndecodable(command.query, internal(error))
        self._post(coded)
