"""What an edge may say unasked: bursts, answers and time, without a connection."""

from __future__ import annotations

from ionn_client.machine.flood import AT_ONCE, PER_SECOND, UNIT_BYTES, Unasked


def told(unasked: Unasked, messages: int, size_bytes: int = 10, now: float = 100.0) -> bool:
    return any(unasked.flooded(size_bytes, now) for _ in range(messages))


def test_a_burst_is_allowed_once() -> None:
    unasked = Unasked()
    assert not told(unasked, int(AT_ONCE))
    assert told(unasked, 1)


def test_time_gives_it_back() -> None:
    unasked = Unasked()
    told(unasked, int(AT_ONCE))
    assert not told(unasked, int(PER_SECOND), now=101.0)
    assert told(unasked, 1, now=101.0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    unasked = Unasked()
    told(unasked, int(AT_ONCE), now=100.0)
    assert told(unasked, 1, now=50.0)


def test_long_messages_count_as_several() -> None:
    unasked = Unasked()
    assert not told(unasked, 5, 99 * UNIT_BYTES)
    assert told(unasked, 1, 0)


def test_an_answer_to_what_was_asked_may_be_of_any_length() -> None:
    unasked = Unasked()
    for _ in range(3):
        unasked.asked()
    assert not told(unasked, 3, 1 << 30)
    assert told(unasked, 1, 1 << 30)
