"""Counts what a process copies in user space: every memcpy and memmove of 1 KB and more.

By a library that is preloaded (counting.c; needs a C compiler), because nothing else sees copies
inside of extensions. The kernel's own copies, and passes that compute as they go (the WebSocket's
mask, the digest, a coding), are not among them.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
DIRECTORY = "COPIES_DIR"


class NoCompiler(RuntimeError):
    """Copies cannot be counted here."""


@contextmanager
def counting() -> Iterator[dict[str, str]]:
    """The environment of processes that count. Raises NoCompiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompiler("there is no C compiler (cc)")
    with tempfile.TemporaryDirectory(prefix="ionn-copies-") as directory:
        library = f"{directory}/counting.so"
        flags = ["-O1", "-fno-builtin", "-shared", "-fPIC", "-o", library]
        subprocess.run([compiler, *flags, str(SOURCE), "-ldl"], check=True)
        yield {"LD_PRELOAD": library, DIRECTORY: directory}


def copied_bytes(pid: int) -> int:
    """What `pid` and the processes that it forked have copied, in an environment that counts."""
    count = (Path(os.environ[DIRECTORY]) / str(pid)).read_bytes()
    return int(struct.unpack("=Q", count)[0])
