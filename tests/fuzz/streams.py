"""One input of bytes as the values that a target takes: frames, small numbers, choices.

A fuzzer changes bytes; what it changes should move one value and leave the others alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar


class Play(Protocol):
    """What is played step by step, each as an input says."""

    def step(self) -> None: ...


Choice = TypeVar("Choice")
Played = TypeVar("Played", bound=Play)
Frames = list[bytes]

_LENGTH_BYTES = 2
_MOST = (1 << 16) - 1


def joined(frames: Frames) -> bytes:
    """Frames, each with its length before it; longer ones than 65,535 bytes are cut."""
    return b"".join(
        len(each[:_MOST]).to_bytes(_LENGTH_BYTES, "little") + each[:_MOST] for each in frames
    )


def frames_of(data: bytes) -> Frames:
    """The frames of an input; any bytes are some. The last one may lack its end."""
    frames, at = [], 0
    while at + _LENGTH_BYTES <= len(data):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(data[at:begin], "little")
        frames.append(data[begin:at])
    return frames


class Reader:
    """Takes values off the front of an input; zeros follow its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        at, self._at = self._at, self._at + 1
        return self._data[at] if at < len(self._data) else 0

    def word(self) -> int:
        return self.byte() | self.byte() << 8

    def below(self, stop: int) -> int:
        """A number from 0 to stop - 1, of one byte: `stop` is at most 256."""
        return self.byte() % stop

    def of(self, choices: Sequence[Choice]) -> Choice:
        return choices[self.byte() % len(choices)]

    def rest(self) -> bytes:
        at, self._at = self._at, len(self._data)
        return self._data[at:]


def play(data: bytes, begin: Callable[[Reader], Played]) -> Played:
    """All of an input's steps, from a beginning that it chooses too."""
    reader = Reader(data)
    played = begin(reader)
    while reader:
        played.step()
    return played
