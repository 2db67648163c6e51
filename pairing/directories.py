"""Where a user's files are, of either side: what who is who is kept in, and what may be lost."""

from __future__ import annotations

import os
from pathlib import Path


def state_of(side: str) -> Path:
    """Identities and pairings of "client" or "edge": $XDG_STATE_HOME/ionn/SIDE, or below
    ~/.local/state. Raises ValueError for a user who has no home directory.
    """
    return _of_the_user("XDG_STATE_HOME", ".local/state", side, "--state")


def cache_of(side: str) -> Path:
    """What can be had again, likewise: $XDG_CACHE_HOME/ionn/SIDE, or below ~/.cache."""
    return _of_the_user("XDG_CACHE_HOME", ".cache", side, "--store")


def _of_the_user(variable: str, below_home: str, side: str, option: str) -> Path:
    said = Path(os.environ.get(variable, ""))
    try:
        # A relative one is to be ignored (XDG Base Directory Specification 0.8): it would lead
        # elsewhere from each directory that somebody starts this in.
        return (said if said.is_absolute() else Path.home() / below_home) / "ionn" / side
    except RuntimeError:
        raise ValueError(f"this user has no home directory: give {option}, or set HOME") from None
