"""How a command ends that cannot do what it was asked."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import NoReturn

import typer

from ionn_edge.blobs import StorageError
from ionn_edge.control import ControlError
from ionn_edge.devices import RegistryError
from ionn_edge.engine import EngineError
from pairing.private import StateError


def give_up(text: str) -> NoReturn:
    """One line, and exit code 2."""
    print(f"ionn edge: {text}", file=sys.stderr)
    raise typer.Exit(2)


@contextlib.contextmanager
def complaining() -> Iterator[None]:
    """What can be foreseen to go wrong inside is one line."""
    try:
        yield
    except (
        *(ValueError, StorageError, EngineError),
        *(ControlError, RegistryError, StateError),
    ) as error:
        give_up(str(error))
