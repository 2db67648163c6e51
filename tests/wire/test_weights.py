from __future__ import annotations

import hashlib
import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire

BLOB = bytes(range(100))


def assembly(held=b"", blob=BLOB, expected=None):
    target = bytearray(len(blob))
    target[: len(held)] = held
    return target, wire.Assembly(target, expected or wire.digest(blob), len(held))


def test_a_digest_is_sha_256():
    assert wire.digest(memoryview(BLOB)) == hashlib.sha256(BLOB).digest()


@given(st.binary(max_size=200), st.integers(1, 64), st.data())
def test_chunks_from_any_offset_make_the_blob(blob, chunk_bytes, data):
    offset = data.draw(st.integers(0, len(blob)))
    target, part = assembly(blob[:offset], blob)
    for chunk in wire.chunks(3, blob, chunk_bytes, offset):
        assert chunk.weight == 3
        assert 1 <= len(chunk.payload) <= chunk_bytes
        assert not part.complete
        part.write(chunk.offset, chunk.payload)
    assert target == blob
    assert (part.held_bytes, part.complete) == (len(blob), True)


def test_chunks_are_views():
    blob = bytearray(10)
    chunk = wire.next_chunk(0, blob, 4, 3)
    blob[4] = 9
    assert bytes(chunk.payload) == b"\x09\x00\x00"


@pytest.mark.parametrize(("offset", "chunk_bytes"), [(100, 1), (-1, 1), (0, 0)])
def test_there_is_no_chunk_outside_the_blob(offset, chunk_bytes):
    with pytest.raises(wire.LocalProtocolError, match="no chunk"):
        wire.next_chunk(0, BLOB, offset, chunk_bytes)


@pytest.mark.parametrize(("offset", "size", "code"), [
    (11, 5, "unexpected"),  # gap
    (9, 5, "unexpected"),  # overlap
    (0, 5, "unexpected"),  # again
    (10, 91, "malformed"),  # overrun
])  # fmt: skip
def test_a_chunk_that_does_not_fit_changes_nothing(offset, size, code):
    target, part = assembly()
    part.write(0, BLOB[:10])
    with pytest.raises(wire.RemoteProtocolError) as caught:
        part.write(offset, b"x" * size)
    assert caught.value.code == code
    assert part.held_bytes == 10
    assert target == BLOB[:10] + bytes(90)
    part.write(10, BLOB[10:])
    assert part.complete


def test_a_complete_blob_takes_no_more():
    _, part = assembly()
    part.write(0, BLOB)
    with pytest.raises(wire.RemoteProtocolError):
        part.write(100, b"x")
    assert part.complete


def test_a_wrong_digest_drops_everything_and_the_blob_may_come_again():
    target, part = assembly()
    part.write(0, BLOB[:50])
    with pytest.raises(wire.RemoteProtocolError) as caught:
        part.write(50, bytes(50))
    assert caught.value.code == "digest"
    assert (part.held_bytes, part.complete) == (0, False)
    part.write(0, BLOB)
    assert part.complete
    assert target == BLOB


def test_a_blob_from_a_cache_is_verified():
    assert assembly(BLOB)[1].complete
    _, part = assembly(bytes(100))
    assert (part.held_bytes, part.complete) == (0, False)


def test_a_part_from_a_cache_is_verified_with_the_rest():
    _, part = assembly(bytes(40))
    assert part.held_bytes == 40
    with pytest.raises(wire.RemoteProtocolError):
        part.write(40, BLOB[40:])
    assert part.held_bytes == 0


def test_an_empty_blob_is_complete_at_once():
    assert assembly(blob=b"")[1].complete


def test_an_mmap_is_a_target():
    with mmap.mmap(-1, len(BLOB)) as target:
        part = wire.Assembly(target, wire.digest(BLOB))
        part.write(0, BLOB)
        assert target[:] == BLOB
        part.release()


@pytest.mark.parametrize(("target", "digest", "held"), [
    (b"fixed", bytes(32), 0),
    (memoryview(bytearray(8)).cast("i"), bytes(32), 0),
    (bytearray(8), bytes(31), 0),
    (bytearray(8), bytes(32), 9),
    (bytearray(8), bytes(32), -1),
])  # fmt: skip
def test_misuse(target, digest, held):
    with pytest.raises(wire.LocalProtocolError):
        wire.Assembly(target, digest, held)


def test_an_assembly_tells_how_far_it_is():
    _, part = assembly(BLOB[:10])
    assert repr(part) == "<Assembly: 10 of 100 bytes, incomplete>"
