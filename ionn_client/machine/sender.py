"""What of the weights goes on the wire next, and what is coded meanwhile.

Coding runs ahead of the link in a thread of the driver's. It is never waited for: a segment
that is not coded when its turn comes is sent as it is, so that coding never costs throughput.
Only `COMPUTED` planes are coded in any case: as they are, they take most of that time, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from ionn_client.machine.coded_sizes import raw_element_bytes
from ionn_client.machine.events import CodeSegment, SegmentCoded
from ionn_client.machine.pacer import whole_packets
from ionn_client.machine.upload import Piece, Upload
from wire import DEFAULT_LIMITS, messages
from wire.planes import COARSE, MIDDLE, WHOLE
from wire.segments import encode_segment

AHEAD_S = 0.05
LEAST_AHEAD = 2
MOST_AHEAD = 16
# Of the link, for a segment that nothing shortens: two of the largest chunks. What is lost of it
# with a connection is sent again, and its bytes wait for each other at the edge.
SEGMENT_S = 0.07
LONGEST_BYTES = 1 << 20
# Shorter segments are sent before a thread has answered.
LEAST_BYTES = 2048
LEAST_SAVING = 0.02
COMPUTED = frozenset({COARSE, MIDDLE})
# Of one core: coding stops while the link would need more of it. Beyond, the threads' turns cost
# more than the bytes that they save: at 1 Gbit/s half of a core made an upload 13 % slower.
CORE_SHARE = 0.15
# While coding does not pay, one segment in so many asks again.
PROBE_INTERVAL = 512
# What a core codes in a second, until it was seen.
GUESSED_BPS = 4e8
SPEED_WEIGHT = 0.2


def coding_keeps_up(rate_Bps: float, coder_Bps: float = GUESSED_BPS) -> bool:
    """Whether a coder of this speed can serve a link of this rate with its share of a core."""
    return rate_Bps <= CORE_SHARE * coder_Bps


class Sender:
    """Cuts an upload's pieces into messages, and says which pieces to code ahead."""

    def __init__(self, upload: Upload, blobs: Sequence[memoryview]) -> None:
        self._upload = upload
        self._blobs = blobs
        self._speeds: dict[tuple[str, int], _Speed] = {}
        # Whether a weight's plane becomes shorter, once that is known.
        self._shrinks: dict[tuple[int, int], bool] = {}
        self._pieces = 0
        self._rate_Bps = 0.0
        self.max_chunk_bytes = DEFAULT_LIMITS.max_chunk_bytes
        self.reset()

    def reset(self) -> None:
        """The connection is gone, and with it the segment on its way."""
        self._rest = memoryview(b"")
        self.chunk_bytes = 0
        # None for a piece that did not become shorter.
        self._coded: dict[Piece, memoryview | None] = {}
        self._coding: set[Piece] = set()
        self._stale = True

    @property
    def between_segments(self) -> bool:
        """Nothing is left of a segment that was announced."""
        return not self._rest

    def replanned(self) -> None:
        """Other pieces may come next than those that were coded ahead."""
        self._stale = True

    def next(self, size_bytes: int) -> tuple[messages.Message, ...]:
        """The next chunk, after its segment's announcement if it is the first; or nothing.

        Of about `size_bytes`: chunks divide a segment evenly, so that no scrap is left of it.
        """
        announced: tuple[messages.Message, ...] = ()
        if not self._rest:
            piece = next(self._upload.pieces(), None)
            if piece is None:
                return ()
            announced = (self._begin(piece),)
        size_bytes = self._even(size_bytes)
        payload, self._rest = self._rest[:size_bytes], self._rest[size_bytes:]
        # Of the last chunk.
        self.chunk_bytes = payload.nbytes
        self._upload.advance(payload.nbytes)
        return (*announced, messages.Chunk(payload))

    def _even(self, size_bytes: int) -> int:
        rest_bytes = self._rest.nbytes
        chunks = max(round(rest_bytes / size_bytes), 1)
        if chunks == 1:
            return min(rest_bytes, self.max_chunk_bytes)
        return whole_packets(rest_bytes / chunks, self.max_chunk_bytes)

    def _begin(self, piece: Piece) -> messages.Segment:
        payload, coding = self._coded.pop(piece, None), "planes"
        self._coding.discard(piece)
        if payload is None:
            piece = self._longer(piece)
            dtype, blob = self._upload.dtypes[piece.weight], self._blobs[piece.weight]
            coded = piece.plane in COMPUTED and self._may_shrink(piece)
            coding = "planes" if coded else "raw"
            payload = encode_segment(dtype, piece.plane, blob, piece.start, piece.count, coding)
        self._rest, self._stale = payload, True
        self._pieces += 1
        self._upload.announce(piece, payload.nbytes)
        return messages.Segment(
            piece.weight, piece.plane, piece.start, piece.count, coding, payload.nbytes
        )

    def _longer(self, piece: Piece) -> Piece:
        """As much more of a blob that nothing shortens: each segment costs both sides the same."""
        if piece.plane != WHOLE or self._may_shrink(piece):
            return piece
        most_bytes = min(SEGMENT_S * self._rate_Bps, LONGEST_BYTES)
        most = piece.count * max(int(most_bytes / self._raw_bytes(piece)), 1)
        count = min(most, self._upload.elements(piece.weight) - piece.start)
        return Piece(piece.weight, piece.plane, piece.start, count)

    def ahead(self, rate_Bps: float) -> list[CodeSegment]:
        """What to code now, so that the next 50 ms of a link of this rate are ready."""
        self._rate_Bps = rate_Bps
        if not self._stale:
            return []
        self._stale = False
        commands: list[CodeSegment] = []
        near: set[Piece] = set()
        budget_bytes = AHEAD_S * rate_Bps
        for piece in self._upload.pieces():
            if len(near) >= MOST_AHEAD or (budget_bytes <= 0 and len(near) >= LEAST_AHEAD):
                break
            near.add(piece)
            budget_bytes -= self._raw_bytes(piece)
            known = piece in self._coded or piece in self._coding
            if not known and self._pays(piece, rate_Bps, first=len(near) == 1):
                dtype, blob = self._upload.dtypes[piece.weight], self._blobs[piece.weight]
                commands.append(CodeSegment(piece, dtype, blob))
        # What another plan has put off is coded again when its turn comes.
        self._coded = {piece: payload for piece, payload in self._coded.items() if piece in near}
        self._coding = (self._coding & near) | {command.piece for command in commands}
        return commands

    def coded(self, event: SegmentCoded) -> None:
        """A piece was coded. It may be late: then only what it tells is used."""
        piece, raw_bytes = event.piece, self._raw_bytes(event.piece)
        kind = (self._upload.dtypes[piece.weight], piece.plane)
        self._speeds.setdefault(kind, _Speed()).add(raw_bytes, event.seconds)
        # How long a computed plane is without coding is not known before.
        saves = event.payload.nbytes <= (1 - LEAST_SAVING) * raw_bytes
        shrinks = saves or piece.plane in COMPUTED
        self._shrinks.setdefault((piece.weight, piece.plane), shrinks)
        if piece in self._coding:
            self._coded[piece] = event.payload if shrinks else None
        self._coding.discard(piece)

    def not_coded(self, piece: Piece) -> None:
        """Coding a piece failed: it goes as it is, and what is left of its plane with it."""
        self._shrinks[piece.weight, piece.plane] = False
        if piece in self._coding:
            self._coded[piece] = None
        self._coding.discard(piece)

    def _pays(self, piece: Piece, rate_Bps: float, *, first: bool) -> bool:
        if self._raw_bytes(piece) < LEAST_BYTES:
            return False
        if not self._may_shrink(piece):
            return False
        if piece.plane in COMPUTED:
            return True
        speed = self._speeds.get((self._upload.dtypes[piece.weight], piece.plane))
        seen_Bps = None if speed is None else speed.Bps
        if coding_keeps_up(rate_Bps, seen_Bps or GUESSED_BPS):
            return True
        return first and self._pieces % PROBE_INTERVAL == 0

    def _may_shrink(self, piece: Piece) -> bool:
        return self._shrinks.get((piece.weight, piece.plane), True)

    def _raw_bytes(self, piece: Piece) -> float:
        dtype = self._upload.dtypes[piece.weight]
        return piece.count * raw_element_bytes(dtype, piece.plane)


class _Speed:
    """Bytes that are coded in a second of a thread's own time; the first, cold time aside."""

    def __init__(self) -> None:
        self.Bps: float | None = None
        self._cold = True

    def add(self, raw_bytes: float, seconds: float) -> None:
        if self._cold:
            self._cold = False
        elif seconds > 0:
            seen = raw_bytes / seconds
            self.Bps = seen if self.Bps is None else self.Bps + SPEED_WEIGHT * (seen - self.Bps)
