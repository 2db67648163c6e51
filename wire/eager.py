"""Runs what sends until it must wait, as an eager task would: a task's turn costs a send's time."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeAlias

Work: TypeAlias = Coroutine[Any, Any, None]


def begun(work: Work, failures: tuple[type[Exception], ...]) -> Work | None:
    """What is left of `work` once it waits; None where it is done.

    One of `failures` is raised by what is left, for whoever awaits it.
    """
    try:
        waiting_for = work.send(None)
    except StopIteration:
        return None
    except failures as error:
        return _failed(error)
    return _rest(waiting_for, work)


@types.coroutine
def _rest(waiting_for: Any, work: Work) -> Generator[Any, Any, None]:
    yield waiting_for
    yield from work


async def _failed(error: Exception) -> None:
    raise error
