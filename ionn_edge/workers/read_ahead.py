"""What came out of a socket with something that was asked for: each call to read costs a query."""

from __future__ import annotations

ROOM_BYTES = 16 << 10


class ReadAhead:
    """Bytes that wait in `room` until they are asked for. Whoever reads asks here first."""

    def __init__(self) -> None:
        self.room = memoryview(bytearray(ROOM_BYTES))
        self._start = self._end = 0

    def __bool__(self) -> bool:
        return self._start < self._end

    def came(self, count: int) -> None:
        """So many bytes were read into the room, where none waited."""
        self._start, self._end = 0, count

    def give(self, view: memoryview) -> int:
        """Fill the beginning of `view` with what waits; how many bytes that were."""
        count = min(view.nbytes, self._end - self._start)
        view[:count] = self.room[self._start : self._start + count]
        self._start += count
        return count
