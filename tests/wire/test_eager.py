"""What is begun goes on where it waits, and fails where somebody awaits it."""

from __future__ import annotations

import asyncio

import pytest

from wire.eager import begun


async def test_what_waits_for_nothing_is_done_at_once() -> None:
    done: list[int] = []

    async def work() -> None:
        done.append(1)

    assert begun(work(), (OSError,)) is None
    assert done == [1]


async def test_what_waits_goes_on_from_there() -> None:
    done: list[int] = []
    ready = asyncio.Event()

    async def work() -> None:
        done.append(1)
        await ready.wait()
        await asyncio.sleep(0)
        done.append(2)

    rest = begun(work(), (OSError,))
    assert rest is not None
    assert done == [1]
    asyncio.get_running_loop().call_soon(ready.set)
    await rest
    assert done == [1, 2]


async def test_a_failure_waits_for_who_awaits_it_and_a_bug_does_not() -> None:
    async def work(error: Exception) -> None:
        raise error

    rest = begun(work(OSError("closed")), (OSError,))
    assert rest is not None
    with pytest.raises(OSError, match="closed"):
        await rest
    with pytest.raises(ValueError, match="a bug"):
        begun(work(ValueError("a bug")), (OSError,))
