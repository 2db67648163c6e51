"""Options of sockets that may be closed already, which whoever reads them finds out."""

from __future__ import annotations

import contextlib
from typing import Protocol


class Socket(Protocol):
    """As both kinds of event loop show one."""

    def setsockopt(self, level: int, name: int, value: int, /) -> None: ...


def set_option(link: Socket, level: int, name: int, value: int) -> bool:
    """Whether it could be set."""
    # uvloop's sockets raise ValueError once they are closed.
    with contextlib.suppress(OSError, ValueError):
        link.setsockopt(level, name, value)
        return True
    return False
