"""Weights on their way: a blob cut into chunks, and chunks put together again.

A blob is a weight's contiguous bytes. It travels front to back, so one number says how much
of it the other side holds. Knows no files: the target of an Assembly is any writable buffer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from wire.errors import LocalProtocolError, RemoteProtocolError
from wire.messages import Buffer, Chunk

DIGEST_BYTES = 32


def digest(blob: Buffer) -> bytes:
    """SHA-256 of a blob, as layergraph names weights: 32 bytes."""
    return hashlib.sha256(blob).digest()


def next_chunk(weight: int, blob: Buffer, offset: int, chunk_bytes: int) -> Chunk:
    """At most `chunk_bytes` of the blob from `offset` on, as a view.

    Raises LocalProtocolError where there is nothing left, or for a chunk size below 1.
    """
    view = memoryview(blob)
    if not 0 <= offset < view.nbytes or chunk_bytes < 1:
        raise LocalProtocolError(
            f"no chunk of {chunk_bytes} bytes at {offset} of weight {weight} ({view.nbytes} bytes)"
        )
    return Chunk(weight, offset, view[offset : offset + chunk_bytes])


def chunks(weight: int, blob: Buffer, chunk_bytes: int, offset: int = 0) -> Iterator[Chunk]:
    """The rest of a blob from `offset` on, in chunks of `chunk_bytes`, the last one shorter."""
    total = memoryview(blob).nbytes
    while offset < total:
        chunk = next_chunk(weight, blob, offset, chunk_bytes)
        yield chunk
        offset += len(chunk.payload)


class Assembly:
    """A preallocated buffer that receives one blob's chunks, in order, and checks its digest.

    `target` is writable and exactly as long as the blob: a bytearray, a memoryview, an mmap.
    `held_bytes` of it may be there already, from a cache; they are hashed once, here. If all
    are there and the digest is wrong, nothing is held. The digest runs along with the chunks,
    so that the last one does not wait for a pass over the whole blob.
    """

    def __init__(self, target: Buffer, expected_digest: bytes, held_bytes: int = 0) -> None:
        self._target = memoryview(target)
        self._digest = expected_digest
        self.total_bytes = self._target.nbytes
        if self._target.readonly or self._target.ndim != 1 or self._target.itemsize != 1:
            raise LocalProtocolError("an Assembly's target is a writable buffer of bytes")
        if len(expected_digest) != DIGEST_BYTES:
            raise LocalProtocolError(f"a digest has {DIGEST_BYTES} bytes")
        if not 0 <= held_bytes <= self.total_bytes:
            raise LocalProtocolError(f"{held_bytes} of {self.total_bytes} bytes cannot be held")
        self._held_bytes = held_bytes
        self._complete = False
        self._hash = hashlib.sha256(self._target[:held_bytes])
        if held_bytes == self.total_bytes and not self._matches():
            self._drop()

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"<Assembly: {self.held_bytes} of {self.total_bytes} bytes, {state}>"

    @property
    def held_bytes(self) -> int:
        """How many leading bytes are here: where the next chunk must start."""
        return self._held_bytes

    @property
    def complete(self) -> bool:
        """Whether every byte is here and the digest is right."""
        return self._complete

    def write(self, offset: int, payload: Buffer) -> None:
        """Take a chunk's payload at `offset`.

        Raises RemoteProtocolError, and takes nothing, for a gap or an overlap ("unexpected")
        or an overrun ("malformed"). Raises it ("digest"), and drops everything held, where the
        blob is complete and its digest is wrong; the blob may then be sent again from 0.
        """
        if offset != self._held_bytes:
            raise RemoteProtocolError(
                f"a chunk at {offset}, expected {self._held_bytes}", code="unexpected"
            )
        payload = memoryview(payload)
        end = offset + payload.nbytes
        if end > self.total_bytes:
            raise RemoteProtocolError(f"a chunk up to {end} of {self.total_bytes} bytes")
        self._target[offset:end] = payload
        self._hash.update(payload)
        self._held_bytes = end
        if end == self.total_bytes and not self._matches():
            self._drop()
            raise RemoteProtocolError("the bytes do not match the digest", code="digest")

    def release(self) -> None:
        """Let go of the target, which an mmap needs before it can be closed."""
        self._target.release()

    def _drop(self) -> None:
        self._held_bytes = 0
        self._complete = False
        self._hash = hashlib.sha256()

    def _matches(self) -> bool:
        self._complete = self._hash.digest() == self._digest
        return self._complete
