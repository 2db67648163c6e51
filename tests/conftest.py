"""What all tests import stays, and is not looked through again and again for garbage."""

from __future__ import annotations

import gc

import pytest


def pytest_configure() -> None:
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:  # noqa: ARG001
    gc.collect()
    gc.freeze()
    gc.enable()
