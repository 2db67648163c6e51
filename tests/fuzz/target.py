"""What can be fuzzed: a function of bytes that raises on a finding, with inputs to begin with."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """`check` names what became of an input. `mutated` makes another of it."""

    check: Callable[[bytes], str]
    seeds: Callable[[], list[bytes]]
    mutated: Callable[[random.Random, bytes], bytes]


# Where each is, and its parts of all inputs. Found by name, because some take torch to import.
PLACES = {
    "decoder": ("decoder", 12),
    "segment": ("coded", 3),
    "tensor": ("coded", 3),
    "image": ("coded", 1),
    "conversation": ("conversation", 1),
    "edge_session": ("edge_session", 2),
    "client_session": ("client_session", 1),
    "answers": ("answers", 1),
}


def target(name: str) -> Target:
    """The one of this name."""
    module = importlib.import_module(f"tests.fuzz.{PLACES[name][0]}")
    found = getattr(module, name.upper())
    assert isinstance(found, Target)
    return found
