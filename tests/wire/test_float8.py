from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire
from tests.wire.test_planes import EDGES, bit_patterns, word_of
from wire.float8 import BLOCK, float8_codes, float8_noise, float8_words, step_of
from wire.refinement import most_refinement_bytes, refined, refinement, refinement_sizes

NORMAL = numpy.random.default_rng(4).normal(0, 0.03, 8 * BLOCK).astype("<f4").view("<u4")
LARGE = 200_000_000


@given(bit_patterns, st.integers(2, 254))
def test_codes_tell_what_the_page_says_with_any_step_that_reaches(bits, step):
    finite = bits[bits >> 23 & 255 < 255] if bits.size else bits
    step = max(step, int(((finite << 1) >> 24).max(initial=0)) - 16)
    words = float8_words(float8_codes(bits, step), step)
    assert words.tolist() == [word_of(u, step) for u in bits.tolist()]


@given(bit_patterns, st.integers(2, 254))
def test_refinement_gives_back_every_first_half(bits, step):
    finite = bits[bits >> 23 & 255 < 255] if bits.size else bits
    step = max(step, int(((finite << 1) >> 24).max(initial=0)) - 16)
    words, top = float8_words(float8_codes(bits, step), step), (bits >> 16).astype("<u2")
    parts = refinement(top, words)
    assert [part.size for part in parts] == refinement_sizes(words)
    assert sum(refinement_sizes(words)) <= most_refinement_bytes(bits.size)
    assert (refined(parts, words) == top).all()


@pytest.mark.parametrize("step", [0, 1, 255])
def test_steps_that_there_are_not(step):
    with pytest.raises(wire.RemoteProtocolError, match="exponent"):
        float8_words(numpy.zeros(3, numpy.uint8), step)


@pytest.mark.parametrize("code", [120, 248])
def test_codes_beyond_the_largest_number(code):
    float8_words(numpy.array([code], numpy.uint8), 237)
    with pytest.raises(wire.RemoteProtocolError, match="a code that there is not"):
        float8_words(numpy.array([0, code], numpy.uint8), 239)


def test_bits_after_the_last_element_are_zero():
    words = float8_words(float8_codes(EDGES, 130), 130)
    parts = refinement((EDGES >> 16).astype("<u2"), words)
    parts[1][-1] |= 1
    with pytest.raises(wire.RemoteProtocolError, match="after the last"):
        refined(parts, words)


def noise(bits, count):
    exact, near = bits.view("<f4").astype(float), []
    for number in range(bits.size // BLOCK):
        block = bits[number * BLOCK : (number + 1) * BLOCK]
        step = step_of(block, number, count)
        near.append(float8_words(float8_codes(block, step), step))
    halves = numpy.concatenate(near).astype("<u4") << 16
    return numpy.square(halves.view("<f4") - exact).sum() / numpy.square(exact).sum()


@pytest.mark.parametrize("count", [8 * BLOCK, 5_000_000, LARGE])
@pytest.mark.parametrize("scale", [1, 3.1e-5])
def test_the_noise_is_about_what_a_weight_of_that_size_may_have(count, scale):
    bits = (NORMAL.view("<f4") * numpy.float32(scale)).view("<u4")
    assert 0.5 < noise(bits, count) / float8_noise(count) < 2.2


def test_large_weights_are_noisier_within_bounds():
    sizes = [float8_noise(count) for count in (1, 10_000, 2_000_000, 8_000_000, LARGE)]
    assert sizes == sorted(sizes)
    assert sizes[0] == sizes[1] < sizes[2] < sizes[3] < sizes[4] == float8_noise(10 * LARGE)


def test_steps_go_by_the_finite_and_reach_the_largest():
    ones = numpy.full(100, 0x3F800000, numpy.uint32)
    plain = step_of(ones, 0, 100)
    endless = ones.copy()
    endless[1] = 0xFF800000
    assert step_of(endless, 0, 100) == plain
    outlier = ones.copy()
    outlier[1] = 0xC3800000 + (40 << 23)
    assert step_of(outlier, 0, 100) == 127 + 8 + 40 - 16
    assert step_of(numpy.zeros(9, numpy.uint32), 0, 9) == 2
    assert step_of(numpy.full(9, 0x7F800000, numpy.uint32), 0, 9) == 2
