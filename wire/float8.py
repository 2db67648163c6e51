"""A float32 weight's first bits: a byte per element, in steps that suit how many there are.

The byte is a sign and a magnitude in steps of a power of two, the block's *step*, cut off towards
zero: up to 16 steps each has a code, and beyond every binade has 8. So bits below the step are
dropped whatever the exponent, as in bit planes of images, and an entropy coder finds levels that
are nearly uniform, which at few bits is where the rate goes furthest: where 12-bit floats take 6.6
bits, 5.6 do, and 4.1 where 10-bit floats take 4.6 and are twice as noisy. (With three bits of
mantissa and an exponent that begins at the step, it is much like the E4M3 of P. Micikevicius et
al., "FP8 formats for deep learning", 2022; zero has a code of its own.)

Layers run with the middle of the interval that an element is known to lie in. That is a bfloat16,
the *word* here, of which the lowest set mantissa bit tells how many above it are known.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, TypeAlias

import numpy
from numpy.typing import NDArray

from wire.byteplanes import Bytes, undecodable

Elements: TypeAlias = NDArray[numpy.uint32]
Words: TypeAlias = NDArray[numpy.uint16]

# Elements with one step: those whose number in the weight, divided by this, is the same.
BLOCK = 1 << 15

# What a weight's noise may be, relative to its power: so much per element, within these bounds.
# The wait for a weight is its elements times bits, the noise it adds 4^-bits, and the least wait
# for a sum of noise has each weight's noise in proportion to its wait (reverse water-filling).
# The upper bound is about that of 4-bit codes with a scale per group, the lower one where three
# bits of mantissa end.
_NOISE_OF_ONE = 8e-10
_LEAST_NOISE, _MOST_NOISE = 5e-4, 1.2e-2

_SAMPLE = 8  # one element of so many tells the block's power
_GOLDEN = (5**0.5 - 1) / 2
_BIAS = 127
_LAST = 255  # the exponent of infinities and NaNs
_SQUARES = numpy.append(4.0 ** (numpy.arange(_LAST) - _BIAS), 0.0)  # of binades, by exponent
_LEAST_STEP, _MOST_STEP = 2, 254  # so that half of it is normal
_REACH = 16  # binades from the step to the largest that has a code
_ENDLESS = 127  # a code: infinite, or NaN
_NONE = 0x7FFF  # a word that no code stands for, with the sign or without
_WORD: numpy.dtype[Any] = numpy.dtype("<u2")


def float8_noise(count: int) -> float:
    """The relative noise power for which a weight of `count` elements gets its steps."""
    return min(max(_NOISE_OF_ONE * count, _LEAST_NOISE), _MOST_NOISE)


def step_of(block: Elements, number: int, count: int) -> int:
    """The step's exponent, as float32 has it, of a weight's `number`-th block; `count` is of all.

    The same bits give the same step wherever and whenever it is asked for: what refines a block
    goes by it. Where the step wanted lies between two powers of two, blocks take turns, so that
    the mean is right.
    """
    sample = (block[::_SAMPLE] >> 23).astype(numpy.uint8)
    power = float((numpy.bincount(sample, minlength=_LAST + 1) * _SQUARES).sum()) / sample.size
    step = _LEAST_STEP
    if power:
        # A binade's mean square is 1.5 / ln 2 of the square that it begins with.
        wanted = 12 * float8_noise(count) * power * 1.5 / math.log(2)
        step = math.floor(math.log2(wanted) / 2 + number * _GOLDEN % 1) + _BIAS
    magnitudes = block & 0x7FFFFFFF
    largest = int(magnitudes.max()) >> 23
    if largest == _LAST:
        largest = int(magnitudes.max(initial=0, where=magnitudes < _LAST << 23)) >> 23
    return max(step, largest - _REACH, _LEAST_STEP)


def float8_codes(block: Elements, step: int) -> Bytes:
    """The elements' codes: a sign, and 7 bits that grow with the magnitude."""
    codes: Bytes = _codes_of(step)[block >> 20]
    return codes


def float8_words(codes: Bytes, step: int) -> Words:
    """The elements as near as the codes tell. Raises RemoteProtocolError ("coding")."""
    if not _LEAST_STEP <= step <= _MOST_STEP:
        raise undecodable(f"a step with the exponent {step}")
    words: Words = _words_of(step)[codes]
    if (words & _NONE == _NONE).any():
        raise undecodable(f"a code that there is not with the exponent {step} of the step")
    return words


@lru_cache(maxsize=256)
def _codes_of(step: int) -> Bytes:
    """A code for each first 12 bits of a float32; further ones change none."""
    top = numpy.arange(1 << 12)
    exponent, mantissa = top >> 3 & _LAST, top & 7
    binade = exponent - step
    shift = numpy.clip(3 - binade, 0, 4)
    steps = ((8 | mantissa) >> shift) + 8 * numpy.maximum(binade - 3, 0)
    magnitude = numpy.where(exponent == _LAST, _ENDLESS, steps + 1)
    magnitude[top & 0x7FF == 0] = 0
    codes: Bytes = (magnitude | top >> 11 << 7).astype(numpy.uint8)
    return codes


@lru_cache(maxsize=256)
def _words_of(step: int) -> Words:
    """A word for each code."""
    magnitude = numpy.arange(1 << 7)
    steps = numpy.maximum(magnitude - 1, 1)
    known = numpy.minimum(numpy.frexp(steps)[1] - 1, 3)  # bits of mantissa
    exponent = step + numpy.where(steps < 16, known, (steps >> 3) + 2)
    mantissa = numpy.where(steps < 16, steps - (1 << known), steps & 7)
    words = exponent << 7 | (2 * mantissa + 1) << (6 - known)
    words[exponent >= _LAST] = _NONE
    words[0], words[1], words[_ENDLESS] = 0, (step - 1) << 7, _LAST << 7
    return numpy.concatenate([words, words | 1 << 15]).astype(_WORD)
