"""Another process that runs link_figures.ours.Touch on each query: as little as isolation can cost.

Nothing is checked there, and nothing shut in. Together with an encrypted echo by asyncio streams
this is what no program in Python saves that decrypts in one process and runs a stranger's layers
in another.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys

LENGTH = struct.Struct("!I")
ANSWER_BYTES = 32


class Isolated:
    """The server's side of it. The process starts with the first query."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def _start(self) -> None:
        here, there = socket.socketpair()
        with there:
            command = [sys.executable, __file__, str(there.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *command, pass_fds=[there.fileno()]
            )
        self._reader, self._writer = await asyncio.open_connection(sock=here)

    async def run(self, query: bytes) -> bytes:
        """What the layers make of it, as ANSWER_BYTES."""
        async with self._turn:
            if self._process is None:
                await self._start()
            self._writer.write(LENGTH.pack(len(query)))
            self._writer.write(query)
            return await self._reader.readexactly(ANSWER_BYTES)

    async def close(self) -> None:
        if self._process is not None:
            self._writer.close()
            await self._writer.wait_closed()
            await self._process.wait()


def work(link: socket.socket) -> None:
    """In the other process, until the server is gone."""
    import torch
    from link_figures.ours import Touch

    torch.set_num_threads(1)
    layers = Touch().eval()
    while prefix := link.recv(LENGTH.size, socket.MSG_WAITALL):
        query = bytearray(LENGTH.unpack(prefix)[0])
        link.recv_into(query, len(query), socket.MSG_WAITALL)
        with torch.inference_mode():
            answer = layers(torch.frombuffer(query, dtype=torch.uint8))
        link.sendall(answer.numpy().tobytes().ljust(ANSWER_BYTES, b"\0"))


if __name__ == "__main__":
    work(socket.socket(fileno=int(sys.argv[1])))
