"""Where worker processes come from: the forkserver, seen from the event loop, and who watches them.

Imports no torch. What a worker is to its client's connection is in `engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import asdict

from ionn_edge.config import usable_threads
from ionn_edge.settings import WorkerSettings
from ionn_edge.workers.engine import EngineError, Worker
from ionn_edge.workers.forkserver import RECORD, record
from ionn_edge.workers.precedence import FORK_S, Forks, Precedence
from ionn_edge.workers.threads import excess_text
from ionn_edge.workers.watch import INTERVAL_S, Allowance, look_together, usage

START_TIMEOUT_S = 120.0
# The next worker is forked when the one before has had time for its first work.
SPARE_AFTER_S = 0.5
# Whoever waits for its turn may be alone meanwhile.
FORK_PATIENCE_S = 0.25
EXIT_TIMEOUT_S = 1.0


class Nursery:
    """The forkserver process, started again when it dies, and one worker ahead of its use."""

    MODULE = "ionn_edge.workers.forkserver"

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._workers: dict[int, Worker] = {}
        self._precedence = Precedence(usable_threads())
        self._forks = Forks()
        self._watching: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        # In their order, and none twice.
        self._to_kill: dict[int, None] = {}
        self._forked: deque[asyncio.Future[int]] = deque()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._spare: Worker | None = None
        self._sparing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The forkserver's process."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Until workers can be forked: a few seconds, while torch is imported."""
        async with self._turn:
            if self._listening is None or self._listening.done():
                await self._start()

    async def fork(self, owner: str | None = None) -> Worker:
        """A new worker, with the precedence that its owner has earned. Raises EngineError."""
        if owner is not None:
            await self._turn_of(owner)
        await self.start()
        worker, self._spare = self._spare, None
        if worker is not None and not worker.alive:
            # Idle, it was what a machine short of memory could best do without.
            await worker.close()
            worker = None
        if worker is None:
            worker = await self._new_worker()
        worker.owner = owner
        if owner is not None:
            now = time.monotonic()
            self._precedence.used(owner, FORK_S, now)
            self._forks.forked(owner, now)
            self._settle(now)
        if self._sparing is None or self._sparing.done():
            self._sparing = asyncio.create_task(self._fork_ahead())
        return worker

    async def _fork_ahead(self) -> None:
        await asyncio.sleep(SPARE_AFTER_S)
        with contextlib.suppress(EngineError):
            self._spare = await self._new_worker()

    async def _new_worker(self) -> Worker:
        async with self._turn:
            ours, theirs = socket.socketpair()
            try:
                pid = await self._fork(theirs)
            except BaseException as error:
                # A worker that was forked for nobody ends when it finds its socket closed.
                ours.close()
                if isinstance(error, OSError):
                    raise EngineError(f"no worker can be started: {error}") from error
                raise
            finally:
                theirs.close()
        ours.setblocking(False)
        allowance = Allowance(self._settings, usage(pid), time.monotonic())
        worker = self._workers[pid] = Worker(self, ours, pid, allowance)
        return worker

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            now = time.monotonic()
            workers = list(self._workers.values())
            for worker in workers:
                if worker.pid in self._workers:
                    self._count(worker, now)
                # Looking at a dozen takes a millisecond.
                await asyncio.sleep(0)
            self._settle(now)
            limit_bytes = self._settings.device_memory_bytes
            look_together((worker.allowance for worker in workers), limit_bytes)
            for worker in workers:
                if worker.allowance.exceeded is not None and worker.pid in self._workers:
                    self.kill(worker.pid)

    async def _drop_spare(self) -> None:
        if self._sparing is not None:
            self._sparing.cancel()
            await asyncio.gather(self._sparing, return_exceptions=True)
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.close()

    async def exit_reason(self, pid: int) -> str:
        """Why a worker ended, for a person."""
        worker = self._workers.get(pid)
        if worker is not None and worker.allowance.exceeded is not None:
            return worker.allowance.exceeded
        ended = self._ended.get(pid)
        if ended is None:
            return "its worker ended"
        try:
            status = await asyncio.wait_for(asyncio.shield(ended), EXIT_TIMEOUT_S)
        except TimeoutError:
            return "its worker closed its socket"
        return f"its worker {_ended(status)}"

    def kill(self, pid: int) -> None:
        """End a worker, whatever it is doing. The forkserver knows whether it still is ours."""
        self._to_kill[pid] = None
        self._tell_to_kill()

    def _tell_to_kill(self) -> None:
        """As many as the socket takes; the rest once it takes more."""
        control, loop = self._control, asyncio.get_running_loop()
        if control is None:
            self._to_kill.clear()
            return
        try:
            for pid in list(self._to_kill):
                control.send(record(b"k", pid))
                del self._to_kill[pid]
            loop.remove_writer(control)
        except BlockingIOError:
            loop.add_writer(control, self._tell_to_kill)
        except OSError:
            # The forkserver is gone, and its workers with it.
            loop.remove_writer(control)
            self._to_kill.clear()

    def ended(self, worker: Worker) -> None:
        """Nobody needs it any more: it ends, whatever it is doing."""
        if worker.pid in self._workers:
            # Short lives count as well.
            self._count(worker, time.monotonic())
        self.kill(worker.pid)
        self._workers.pop(worker.pid, None)
        self._ended.pop(worker.pid, None)

    def _count(self, worker: Worker, now: float) -> None:
        used_s = worker.look(now)
        if worker.owner is not None:
            self._precedence.used(worker.owner, used_s, now)

    def _settle(self, now: float) -> None:
        """Who used much stands back, while there are others."""
        heavy = self._precedence.heavy(self._owners(), now)
        for worker in self._workers.values():
            if worker.owner is not None:
                worker.stand(worker.owner in heavy)

    def _owners(self) -> set[str]:
        return {each.owner for each in self._workers.values() if each.owner is not None}

    async def _turn_of(self, owner: str) -> None:
        """Until it may have another worker, as long as there are others to be kept waiting."""
        while self._owners() - {owner}:
            wait_s = self._forks.wait_s(owner, time.monotonic())
            if not wait_s:
                return
            await asyncio.sleep(min(wait_s, FORK_PATIENCE_S))

    async def close(self) -> None:
        """End the forkserver and its workers, if they have not ended by themselves."""
        await self._drop_spare()
        for task in (self._listening, self._watching):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._hang_up()
        if self._process is not None:
            await self._process.wait()

    def _hang_up(self) -> None:
        self._to_kill.clear()
        if self._control is not None:
            asyncio.get_running_loop().remove_writer(self._control)
            self._control.close()
            self._control = None
        # Here, and not only where it is listened to: a task that is cancelled before it began
        # closes nothing, and the forkserver ends when all is closed.
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _start(self) -> None:
        await self.close()
        ours, theirs = socket.socketpair()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", self.MODULE),
            *(str(theirs.fileno()), json.dumps(asdict(self._settings))),
            env=self._settings.environment(os.environ),
            pass_fds=(theirs.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        theirs.close()
        ours.setblocking(False)
        # One descriptor to read through asyncio, another of the same socket to send on.
        self._control = ours.dup()
        self._control.setblocking(False)
        reader, self._writer = await asyncio.open_unix_connection(sock=ours)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await reader.readexactly(RECORD.size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._hang_up()
            raise EngineError(_unborn(await self._process.wait())) from error
        except TimeoutError as error:
            self._hang_up()
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            raise EngineError(
                f"the process that starts workers was not ready after {START_TIMEOUT_S:g} s:"
                " try again when this machine is less busy"
            ) from error
        self._listening = asyncio.create_task(self._listen(reader))
        self._watching = asyncio.create_task(self._watch())

    async def _fork(self, theirs: socket.socket) -> int:
        if self._control is None:
            raise OSError("the forkserver ended")
        forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        socket.send_fds(self._control, [record(b"f")], [theirs.fileno()])
        # What was not said is not answered: the next answer is another's.
        self._forked.append(forked)
        return await forked

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                letter, pid, status = RECORD.unpack(await reader.readexactly(RECORD.size))
                if letter == b"f":
                    forked = self._forked.popleft()
                    # Who asked for it may have been cancelled meanwhile.
                    if not forked.done():
                        self._ended[pid] = asyncio.get_running_loop().create_future()
                        forked.set_result(pid)
                elif letter == b"t" and pid in self._workers:
                    text = excess_text(status, self._settings.most_threads)
                    self._workers[pid].allowance.exceeded = text
                elif letter == b"x" and pid in self._ended:
                    self._ended[pid].set_result(status)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._hang_up()
            while self._forked:
                forked = self._forked.popleft()
                if not forked.done():
                    forked.set_exception(OSError("the forkserver ended"))


def _ended(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"ended with exit code {status}"


def _unborn(status: int) -> str:
    """Why no worker can be had: what starts them ended while it imported torch."""
    hint = "is this machine short of memory?" if status < 0 else "what it said stands above"
    return f"the process that starts workers {_ended(status)} before it was ready: {hint}"
