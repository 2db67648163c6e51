"""What came out of a socket with something that was asked for: each call to read costs a query."""

from __future__ import annotations

ROOM_BYTES = 16 << 10


class ReadAhead:
    """Bytes that wait until they are asked for. Whoever reads asks here first.

    allowed: to take more from the socket than was asked for.
    """

    def __init__(self, *, allowed: bool = True) -> None:
        self.allowed = allowed
        self._room = memoryview(bytearray(ROOM_BYTES))
        self._start = self._end = 0

    def __bool__(self) -> bool:
        return self._start < self._end

    def give(self, view: memoryview) -> int:
        """Fill the beginning of `view` with what waits; how many bytes that were."""
        count = min(view.nbytes, self._end - self._start)
        view[:count] = self._room[self._start : self._start + count]
        self._start += count
        return count

    def place(self, rest: memoryview) -> memoryview:
        """Where to read to, for the rest of what was asked for, once nothing waits."""
        return self._room if self._ahead_of(rest) else rest

    def came(self, count: int, rest: memoryview) -> int:
        """So many bytes were read there; how many of the rest that were."""
        if not self._ahead_of(rest):
            return count
        self._start, self._end = 0, count
        return self.give(rest)

    def _ahead_of(self, rest: memoryview) -> bool:
        return self.allowed and rest.nbytes < self._room.nbytes
