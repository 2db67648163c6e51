"""A client's connection over the emulated link: from socket to socket, through the air."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ionn_client.emulate.air import Direction

UNSENT_BYTES = 65_536
# What the kernel holds per socket is a second queue, invisible and unshaped: as little as one
# read takes (the kernel doubles it). Less only costs more reads; 4 KB carries 5.85 Mbit/s whole.
MIN_SOCKET_BUFFER_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """A resolved address: its family, and what the socket calls take."""

    family: int
    where: tuple[object, ...]


class _Flow:
    """One connection, one way: from `source` through `direction` to `sink`."""

    def __init__(
        self,
        connection: Connection,
        direction: Direction,
        source: socket.socket,
        sink: socket.socket,
    ) -> None:
        self.connection = connection
        self.direction = direction
        self.source = source
        self.sink = sink
        self.in_hand = b""
        self.in_hand_since_s = 0.0
        self.finished = False
        self.unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        self._listening = False
        self._source_ended = False
        self._source_reset = False
        self._sink_ending = False

    @property
    def closed(self) -> bool:
        return self.connection.closed

    def listen(self) -> None:
        """Takes the next piece when there is one."""
        if not (self._listening or self._wants_nothing()):
            self._listening = True
            self.connection.loop.add_reader(self.source, self.read)

    def read(self) -> None:
        """Takes the next piece, now if there is one."""
        if self._wants_nothing():
            self._stop_listening()
            return
        try:
            piece = self.source.recv(self.direction.piece_bytes)
        except (BlockingIOError, InterruptedError):
            self.listen()
            return
        except OSError:
            self.reset()
            return
        now = time.monotonic()
        if piece:
            self.in_hand, self.in_hand_since_s = piece, now
            self.direction.offer(self)
        else:
            self._source_ended = True
            self._stop_listening()
            self.direction.carry(0, self._finish, now)

    def wait(self) -> None:
        """Reads nothing until there is room for the piece in hand."""
        self._stop_listening()

    def _wants_nothing(self) -> bool:
        return bool(self.in_hand) or self._source_ended or self.unsent_bytes > UNSENT_BYTES

    def _stop_listening(self) -> None:
        if self._listening:
            self._listening = False
            self.connection.loop.remove_reader(self.source)

    def reset(self) -> None:
        """The source is gone: its reset goes the way that its data went."""
        if not self._source_reset:
            self._source_reset = self._source_ended = True
            self._stop_listening()
            self.direction.carry(0, self.connection.abort, time.monotonic())

    def deliver(self, piece: bytes) -> None:
        if self.closed:
            return
        self.unsent.append(memoryview(piece))
        self.unsent_bytes += len(piece)
        if len(self.unsent) == 1:
            self._flush()

    def _finish(self) -> None:
        self._sink_ending = True
        if not (self.closed or self.unsent):
            self._flush()

    def _flush(self) -> None:
        was_full = self.unsent_bytes > UNSENT_BYTES
        while self.unsent:
            try:
                sent = self.sink.send(self.unsent[0])
            except (BlockingIOError, InterruptedError):
                self.connection.loop.add_writer(self.sink, self._flush)
                break
            except OSError:
                self.connection.lost(self.sink)
                return
            self.unsent_bytes -= sent
            rest = self.unsent[0][sent:]
            if rest:
                self.unsent[0] = rest
            else:
                self.unsent.popleft()
        else:
            self.connection.loop.remove_writer(self.sink)
            if self._sink_ending:
                self._end()
                return
        if was_full and self.unsent_bytes <= UNSENT_BYTES:
            self.listen()

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)
        self.finished = True
        self.connection.finish()


class Connection:
    """A client's connection and the one made for it to the edge at `target`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: socket.socket,
        target: SocketAddress,
        up: Direction,
        down: Direction,
        on_close: Callable[[Connection], None],
    ) -> None:
        self.loop = loop
        self.client = client
        self.target = target
        self.on_close = on_close
        self.edge = socket.socket(target.family, socket.SOCK_STREAM)
        self.edge.setblocking(False)
        shallow(self.edge, down.piece_bytes)
        self.up = _Flow(self, up, client, self.edge)
        self.down = _Flow(self, down, self.edge, client)
        self.closed = False
        self.up.direction.carry(0, self._dial, time.monotonic())

    def _dial(self) -> None:
        if self.closed:
            return
        error = self.edge.connect_ex(self.target.where)
        if error == errno.EINPROGRESS:
            self.loop.add_writer(self.edge, self._dialling_ended)
        else:
            self._dialled(error)

    def _dialling_ended(self) -> None:
        self.loop.remove_writer(self.edge)
        self._dialled(self.edge.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _dialled(self, error: int) -> None:
        if error:
            self.down.reset()
        else:
            self.down.direction.carry(0, self._start, time.monotonic())

    def _start(self) -> None:
        if not self.closed:
            self.up.listen()
            self.down.listen()

    def lost(self, gone: socket.socket) -> None:
        """Writing to `gone` failed: the other side hears of it from the flow that `gone` feeds."""
        self.loop.remove_writer(gone)
        (self.up if gone is self.client else self.down).reset()

    def finish(self) -> None:
        if self.up.finished and self.down.finished:
            self._close()

    def abort(self) -> None:
        """Resets both sides."""
        if not self.closed:
            for side in (self.client, self.edge):
                reset_on_close(side)
            self._close()

    def _close(self) -> None:
        self.closed = True
        for side in (self.client, self.edge):
            self.loop.remove_reader(side)
            self.loop.remove_writer(side)
            side.close()
        self.on_close(self)


def shallow(side: socket.socket, piece_bytes: int) -> None:
    # Before it listens or connects, because that settles TCP's window.
    buffer_bytes = max(MIN_SOCKET_BUFFER_BYTES, piece_bytes)
    side.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def reset_on_close(side: socket.socket) -> None:
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
