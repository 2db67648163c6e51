"""How a command ends that cannot do what it was asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from ionn_edge.doors.control import ControlError
from ionn_edge.doors.devices import RegistryError
from ionn_edge.storage.blobs import StorageError
from ionn_edge.workers.engine import EngineError
from pairing.private import StateError
from wire import printable


def give_up(text: str, code: int = 1) -> NoReturn:
    """One line, and an exit code: 2 where something else has to be typed, 1 where it failed.

    Some of it may be quoted from a stranger's file, which a terminal is not to obey.
    """
    print(f"ionn edge: {printable(text, ' ')}", file=sys.stderr)
    raise typer.Exit(code)


@contextlib.contextmanager
def complaining() -> Iterator[None]:
    """What can be foreseen to go wrong inside is one line."""
    try:
        yield
    except ValueError as error:
        give_up(str(error), 2)
    except (StorageError, EngineError, ControlError, RegistryError, StateError) as error:
        give_up(str(error))
