"""What torch says while it exports a model: for a log, not for whoever waits for the outcome."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar

log = logging.getLogger("layergraph")
_aside: ContextVar[bool] = ContextVar("aside", default=False)


@contextlib.contextmanager
def torch_aside() -> Iterator[None]:
    """What this thread prints on stderr, and what torch logs, goes to the logger "layergraph".

    At debug level. Where TORCH_LOGS asks torch to speak up, it does.
    """
    if "TORCH_LOGS" in os.environ:
        yield
        return
    printed = _Printed()
    token = _aside.set(True)
    try:
        with contextlib.redirect_stderr(printed):
            yield
    finally:
        _aside.reset(token)
        if text := printed.ended():
            log.debug("torch: %s", text)


class _Printed(io.StringIO):
    """Stands in for stderr: keeps what the thread that made it writes, until that has ended.

    Others' words pass: stderr is the whole program's, and they may put theirs in its place, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._before = sys.stderr
        self._thread: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        mine = self._thread == threading.get_ident()
        return super().write(text) if mine else self._before.write(text)

    def ended(self) -> str:
        """What was kept; nothing is from now on."""
        self._thread = None
        return self.getvalue().strip()


def _logged_here(record: logging.LogRecord) -> bool:
    """Whether the handler has to do with it."""
    # Others may have given torch a handler of theirs, which hears our own log as well.
    if _aside.get() and _is_torchs(record.name):
        log.debug("torch: %s", record.getMessage())
        return False
    return True


def _handlers() -> Iterator[logging.Handler]:
    """Torch's own: many of its loggers have one for themselves."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if _is_torchs(name) and isinstance(logger, logging.Logger):
            yield from logger.handlers


def _is_torchs(name: str) -> bool:
    return name.partition(".")[0] == "torch"


for _handler in _handlers():
    _handler.addFilter(_logged_here)
