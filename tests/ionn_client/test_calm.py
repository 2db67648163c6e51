"""When chunks may be large: nobody asks, and the link is what it was."""

from __future__ import annotations

import pytest

from ionn_client.machine.calm import CHUNK_SHARE, MOST_CHUNK_S, SETTLING_S, SILENCE_S, Calm


def test_who_was_never_asked_is_alone() -> None:
    assert Calm().alone(0.0)


@pytest.mark.parametrize(("interval_s", "alone_after_s"), [(0.1, SILENCE_S), (2.0, 6.0)])
def test_silence_is_what_is_longer_than_usual(interval_s: float, alone_after_s: float) -> None:
    calm = Calm()
    for number in range(5):
        calm.asked(number * interval_s)
    last_at = 4 * interval_s
    assert not calm.alone(last_at + 0.99 * alone_after_s)
    assert calm.alone(last_at + 1.01 * alone_after_s)


def test_a_pause_of_long_ago_is_not_usual() -> None:
    calm = Calm()
    for at in (0.0, 60.0, *(60.0 + number / 10 for number in range(1, 10))):
        calm.asked(at)
    assert calm.alone(62.5)


@pytest.mark.parametrize("asked", [False, True])
def test_a_chunk_takes_hardly_any_of_the_silence_that_it_ends(asked: bool) -> None:
    calm = Calm()
    assert calm.chunk_s(3.0) == 0.0
    calm.upset(4.0)
    if asked:
        calm.asked(5.0)
    # What upsets later is no question.
    calm.upset(6.0)
    since = 5.0 if asked else 4.0
    assert calm.chunk_s(since + 1.0) == pytest.approx(CHUNK_SHARE)
    assert calm.chunk_s(since + 100.0) == MOST_CHUNK_S


def test_it_settles_after_the_last_that_upset() -> None:
    calm = Calm()
    calm.upset(5.0)
    assert not calm.settled(5.0 + 0.9 * SETTLING_S)
    assert calm.settled(5.0 + SETTLING_S)


def test_another_rate_upsets_and_one_that_wanders_does_not() -> None:
    calm = Calm()
    calm.delivers(1e6, 0.0)
    calm.delivers(1.1e6, 2.0)
    assert calm.settled(2.0)
    calm.delivers(1.4e6, 3.0)
    assert not calm.settled(3.0)


@pytest.mark.parametrize(
    ("ratios", "times"),
    [
        pytest.param((1.0, 1.1, 0.9, 1.0), None, id="as ever"),
        pytest.param((1.0, 1.0, 3.0, 0.0, 0.0), None, id="the edge paused"),
        pytest.param((1.0, 1.3, 1.4, 1.3), None, id="a little slower"),
        pytest.param((1.0, 3.8, 5.0), 5.0, id="slower"),
        pytest.param((1.0, 0.3, 0.2), 0.2, id="faster"),
    ],
)
def test_chunks_that_take_longer_one_after_the_other_are_news(
    ratios: tuple[float, ...], times: float | None
) -> None:
    calm = Calm()
    told = [calm.arrived(0.02 * ratio, 0.02, 9.0) for ratio in ratios]
    assert told[:-1] == [None] * (len(ratios) - 1)
    assert told[-1] == times
    assert calm.settled(9.0) == (times is None)
