"""What is shown of others' texts, and of the system's."""

from __future__ import annotations

import errno
import os

import pytest

from wire import reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), "no space left on device"),
        (OSError("Not what it was"), "not what it was"),
        (PermissionError(), "permissionerror"),
    ],
)
def test_reasons_come_amid_a_line(error: OSError, said: str) -> None:
    assert reason(error) == said
