from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import wire
from wire import COARSE, FINE, MIDDLE, WHOLE

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


def planes_of(bits):
    """The three planes of these elements as stored, by their definition."""
    top = bits >> 16
    coarse = (top & 0xFFF0).astype("<u2").tobytes()
    middle = (top & 0x000F).astype("u1").tobytes()
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
    merged = wire.merge(*planes_of(bits))
    assert bytes(merged) == bits.astype("<u4").tobytes()
    assert not merged.readonly


@pytest.mark.parametrize("bits", [EDGES, LATE_NANS])
def test_special_values_are_the_same_in_the_end(bits):
    assert bytes(wire.merge(*planes_of(bits))) == bits.tobytes()


def check_approximation(bits, known, is_middle):
    coarse, middle, _ = planes_of(bits)
    data = wire.approximate(coarse, middle if is_middle else None)
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
    half_step = (~known + 1 & 0xFFFFFFFF) // 2
    wide, close = bits[between].astype(numpy.int64), near_bits[between].astype(numpy.int64)
    assert (abs(wide - close) <= half_step).all()
    normal = between & (abs(exact) >= numpy.finfo(numpy.float32).smallest_normal)
    error = abs(near[normal].astype(float) - exact[normal].astype(float))
    assert (error <= abs(exact[normal].astype(float)) * (2**-8 if is_middle else 2**-4)).all()


PRECISIONS = pytest.mark.parametrize(("known", "is_middle"), [
    (numpy.uint32(0xFFF00000), False), (numpy.uint32(0xFFFF0000), True),
], ids=["float12", "bfloat16"])  # fmt: skip


@PRECISIONS
@given(bits=bit_patterns)
def test_an_approximation_is_within_half_a_step(bits, known, is_middle):
    check_approximation(bits, known, is_middle)


@PRECISIONS
def test_an_approximation_of_special_values(known, is_middle):
    check_approximation(EDGES, known, is_middle)
    coarse, middle, _ = planes_of(EDGES)
    near = floats(wire.approximate(coarse, middle if is_middle else None))
    exact = floats(EDGES.tobytes())
    numpy.testing.assert_array_equal(numpy.isfinite(near), numpy.isfinite(exact))
    numpy.testing.assert_array_equal(numpy.isnan(near), numpy.isnan(exact))
    numpy.testing.assert_array_equal(numpy.signbit(near), numpy.signbit(exact))


def test_a_nan_whose_mantissa_is_still_to_come_is_infinite_until_then():
    coarse, middle, _ = planes_of(LATE_NANS)
    assert numpy.isinf(floats(wire.approximate(coarse, None))).all()
    near = floats(wire.approximate(coarse, middle))
    numpy.testing.assert_array_equal(numpy.isnan(near), [True, True, False, False])


def test_refinement_lowers_the_error_and_has_no_bias():
    exact = numpy.random.default_rng(3).normal(0, 0.05, 20_000).astype("<f4")
    coarse, middle, fine = planes_of(exact.view("<u4"))
    errors = [
        floats(data) - exact
        for data in (
            wire.approximate(coarse, None),
            wire.approximate(coarse, middle),
            wire.merge(coarse, middle, fine),
        )
    ]
    noise = [float(numpy.square(error).mean()) / 0.05**2 for error in errors]
    assert noise[0] < 2**-10
    assert noise[1] < 2**-18
    assert noise[2] == 0
    # Truncation would lower every magnitude, by 1/32 and 1/512 on average.
    bias = [float((error * numpy.sign(exact)).mean() / abs(exact).mean()) for error in errors]
    assert abs(bias[0]) < 2e-3
    assert abs(bias[1]) < 2e-4


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_planes_of_different_lengths(broken):
    planes = list(planes_of(EDGES))
    planes[broken] = planes[broken][:-1]
    with pytest.raises(wire.LocalProtocolError):
        wire.merge(*planes)
    if broken < 2:
        with pytest.raises(wire.LocalProtocolError):
            wire.approximate(planes[0], planes[1])
