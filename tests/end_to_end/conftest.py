"""One edge process for every test that needs none of its own: torch takes seconds to import.

It keeps what it is given, so a test that wants something uploaded has a model of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ionn_client.processes import EdgeProcess
from tests.support import quick_edge


@pytest.fixture(scope="session")
def edge() -> Iterator[EdgeProcess]:
    with quick_edge() as process:
        yield process


@pytest.fixture(autouse=True)
def _leaves_torch_as_it_was() -> Iterator[None]:
    """Modes are the thread's: what awaits within one may leave it to the tests that follow."""
    yield
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
