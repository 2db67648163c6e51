from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import wire
from wire import COARSE, FINE, MIDDLE, WHOLE
from wire.float8 import BLOCK, step_of

# Every float32 is as likely by its bits: NaNs with payloads, denormals, infinities, both zeros.
bit_patterns = hnp.arrays(numpy.uint32, st.integers(0, 300), elements=st.integers(0, 2**32 - 1))
EDGES = numpy.array([
    0x00000000, 0x80000000,  # zeros
    0x00000001, 0x80000001, 0x0000FFFF, 0x000FFFFF, 0x00100000, 0x007FFFFF,  # denormals
    0x00800000, 0x3F800000, 0x3F800001, 0xBF8FFFFF,
    0x7F7FFFFF, 0xFF7FFFFF, 0x7F700000,  # the largest
    0x7F800000, 0xFF800000,  # infinities
    0x7FC00000, 0xFFC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F900000, 0x7FC12345,  # NaNs
], numpy.uint32)  # fmt: skip
# NaNs that show none of their mantissa until MIDDLE, or FINE, is there.
LATE_NANS = numpy.array([0x7F8FFFFF, 0xFF810000, 0x7F800001, 0xFF80FFFF], numpy.uint32)


def word_of(u, step):
    """What COARSE tells of an element, by docs/protocol.md (section 7)."""
    sign, exponent, mantissa = u >> 31 << 15, u >> 23 & 255, u & 0x7FFFFF
    if u >> 20 & 0x7FF == 0:
        return sign
    if exponent == 255:
        return sign | 255 << 7
    if exponent < step:
        return sign | (step - 1) << 7
    known = min(exponent - step, 3)
    return sign | exponent << 7 | mantissa >> (23 - known) << (7 - known) | 1 << (6 - known)


def planes_of(bits, of=None):
    """The three planes of these elements as stored; the step is that of the first block `of`."""
    of = bits if of is None else of
    step = step_of(of[:BLOCK], 0, of.size) if of.size else 2
    coarse = numpy.array([word_of(u, step) for u in bits.tolist()], "<u2").tobytes()
    middle = (bits >> 16).astype("<u2").tobytes()
    fine = (bits & 0xFFFF).astype("<u2").tobytes()
    return coarse, middle, fine


def floats(data):
    return numpy.frombuffer(data, "<f4")


def test_only_float32_is_progressive():
    for dtype in wire.DTYPE_BYTES:
        expected = (COARSE, MIDDLE, FINE) if dtype == "float32" else (WHOLE,)
        assert wire.progressive_planes(dtype) == expected


@given(bit_patterns)
def test_stored_planes_are_as_long_as_they_say(bits):
    for plane, data in zip((COARSE, MIDDLE, FINE), planes_of(bits), strict=True):
        assert wire.stored_bytes("float32", plane, bits.size) == len(data)


@pytest.mark.parametrize("dtype", wire.DTYPE_BYTES)
def test_a_whole_plane_is_stored_as_its_elements(dtype):
    assert wire.stored_bytes(dtype, WHOLE, 7) == 7 * wire.DTYPE_BYTES[dtype]


@pytest.mark.parametrize(("dtype", "plane"), [
    ("float16", COARSE), ("bfloat16", FINE), ("int8", MIDDLE), ("float32", 4), ("float32", -1),
    ("float", WHOLE),
])  # fmt: skip
def test_planes_that_do_not_exist(dtype, plane):
    with pytest.raises(wire.LocalProtocolError):
        wire.stored_bytes(dtype, plane, 1)


@given(bit_patterns)
def test_the_planes_together_are_the_elements_bit_for_bit(bits):
    merged = wire.merge(*planes_of(bits)[1:])
    assert bytes(merged) == bits.astype("<u4").tobytes()
    assert not merged.readonly


@pytest.mark.parametrize("bits", [EDGES, LATE_NANS])
def test_special_values_are_the_same_in_the_end(bits):
    assert bytes(wire.merge(*planes_of(bits)[1:])) == bits.tobytes()


@pytest.mark.parametrize("bits", [EDGES, LATE_NANS])
def test_all_bits_of_middle_but_the_last_half(bits):
    _, middle, _ = planes_of(bits)
    check_bfloat16(bits, numpy.uint32(0xFFFF0000), middle)


@given(bits=bit_patterns)
def test_bfloat16_is_within_half_a_step(bits):
    check_bfloat16(bits, numpy.uint32(0xFFFF0000), planes_of(bits)[1])


def check_bfloat16(bits, known, middle):
    data = wire.approximate(MIDDLE, middle)
    assert not data.readonly
    exact, near = floats(bits.tobytes()), floats(data)
    shown = bits & known
    zero, endless = (shown << 1) == 0, (shown & 0x7F800000) == 0x7F800000
    near_bits = numpy.frombuffer(data, "<u4")
    # What is not finite, or zero as far as known, is what is known of it, sign and all.
    numpy.testing.assert_array_equal(near_bits[zero | endless], shown[zero | endless])
    between = ~zero & ~endless
    assert numpy.isfinite(near[between]).all()
    assert (near_bits[between] & known == shown[between]).all(), "outside the known interval"
    normal = between & (abs(exact) >= numpy.finfo(numpy.float32).smallest_normal)
    error = abs(near[normal].astype(float) - exact[normal].astype(float))
    assert (error <= abs(exact[normal].astype(float)) * 2**-8).all()


@given(bits=bit_patterns)
def test_rounded_middle_is_the_even_neighbour_and_stays_finite(bits):
    check_rounded(bits)


@pytest.mark.parametrize("bits", [EDGES, LATE_NANS, EDGES[:0]])
def test_rounding_special_values(bits):
    check_rounded(bits)


def check_rounded(bits):
    coarse, middle, _ = planes_of(bits)
    assert bytes(wire.rounded(COARSE, coarse)) == bytes(coarse)
    data = wire.rounded(MIDDLE, middle)
    assert not data.readonly
    known, words = numpy.frombuffer(middle, "<u2"), numpy.frombuffer(data, "<u2")
    magnitude = known & 0x7FFF
    # The largest finite one has no even neighbour that is finite.
    stays = magnitude >= 0x7F7F
    numpy.testing.assert_array_equal(words[stays], known[stays])
    numpy.testing.assert_array_equal(words[~stays], known[~stays] + (known[~stays] & 1))
    assert bytes(middle) == known.tobytes(), "what was given has changed"


@given(bits=bit_patterns)
def test_float8_is_within_half_a_step_or_a_sixteenth(bits):
    check_float8(bits)


@pytest.mark.parametrize("bits", [EDGES, LATE_NANS, EDGES[:-6], EDGES[:8]])
def test_float8_of_special_values(bits):
    check_float8(bits)


def check_float8(bits):
    coarse = bytes(wire.coarse_words(bits.tobytes()))
    assert coarse == planes_of(bits)[0]
    exact, near = floats(bits.tobytes()), floats(wire.approximate(COARSE, coarse))
    numpy.testing.assert_array_equal(numpy.signbit(near), numpy.signbit(exact))
    numpy.testing.assert_array_equal(numpy.isfinite(near), numpy.isfinite(exact))
    if bits.size:
        half = 2.0 ** (step_of(bits, 0, bits.size) - 128)
        finite = numpy.isfinite(exact)
        error = abs(near[finite].astype(float) - exact[finite].astype(float))
        assert (error <= numpy.maximum(half, abs(exact[finite].astype(float)) / 16)).all()


def test_a_nan_whose_mantissa_is_still_to_come_is_infinite_until_then():
    coarse, middle, _ = planes_of(LATE_NANS)
    assert numpy.isinf(floats(wire.approximate(COARSE, coarse))).all()
    near = floats(wire.approximate(MIDDLE, middle))
    numpy.testing.assert_array_equal(numpy.isnan(near), [True, True, False, False])


def test_refinement_lowers_the_error_and_has_no_bias():
    exact = numpy.random.default_rng(3).normal(0, 0.05, 100_000).astype("<f4")
    bits = exact.view("<u4")
    coarse = wire.coarse_words(exact.tobytes())
    middle, fine = (bits >> 16).astype("<u2"), (bits & 0xFFFF).astype("<u2")
    errors = [
        floats(data) - exact
        for data in (
            wire.approximate(COARSE, coarse),
            wire.approximate(MIDDLE, middle),
            wire.merge(middle, fine),
        )
    ]
    noise = [float(numpy.square(error).mean()) / 0.05**2 for error in errors]
    assert noise[0] < 2.5 * wire.float8_noise(exact.size)
    assert noise[1] < 2**-18
    assert noise[2] == 0
    # Truncation would lower every magnitude, by half a step and 1/512 on average.
    bias = [float((error * numpy.sign(exact)).mean() / abs(exact).mean()) for error in errors]
    assert abs(bias[0]) < 2e-3
    assert abs(bias[1]) < 2e-4
    even = (numpy.frombuffer(wire.rounded(MIDDLE, middle), "<u2").astype("<u4") << 16).view("<f4")
    assert float(numpy.square(even - exact).mean()) / 0.05**2 < 2**-16
    assert abs(float(((even - exact) * numpy.sign(exact)).mean() / abs(exact).mean())) < 2e-4


def test_planes_of_different_lengths():
    _, middle, fine = planes_of(EDGES)
    for planes in ((middle[:-2], fine), (middle, fine[:-1]), (middle[:-1], fine)):
        with pytest.raises(wire.LocalProtocolError):
            wire.merge(*planes)
    for plane in (COARSE, MIDDLE):
        with pytest.raises(wire.LocalProtocolError):
            wire.approximate(plane, middle[:-1])
        with pytest.raises(wire.LocalProtocolError):
            wire.rounded(plane, middle[:-1])
