"""What the operator asks of a running box: questions over a socket in its state directory.

One question and one answer per connection, each a line of JSON. The directory is this user's
alone, and so is the socket; there is one running box per directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pairing.private import StateError, own_directory
from wire import reason

SOCKET, LOCK = "control", "running"
MOST_BYTES = 64 << 10
QUESTION_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 120.0
log = logging.getLogger("ionn_edge")
# Of a question's arguments. What it returns is plain data, as JSON has it.
Handler = Callable[[dict[str, Any]], Awaitable[Any]]


class ControlError(Exception):
    """What was asked for cannot be had. The text is for a person."""


class NotRunning(ControlError):
    """No box runs with this state directory."""


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Inside, no other process works on this state. Raises ControlError if one does."""
    try:
        own_directory(directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(directory / LOCK, flags, 0o600)
    except StateError as error:
        raise ControlError(str(error)) from error
    except OSError as error:
        raise ControlError(f"nothing can be kept in {directory}: {reason(error)}") from error
    try:
        os.fchmod(lock, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            text = f"a box runs with the state in {directory}; give this one another --state"
            raise ControlError(text) from error
        yield
    finally:
        os.close(lock)


@contextlib.asynccontextmanager
async def answering(directory: Path, handlers: Mapping[str, Handler]) -> AsyncIterator[None]:
    """Questions are answered inside. The caller has claimed the directory. Raises ControlError."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(handlers, reader, writer)

    try:
        os.chmod(directory, 0o700)
        with _reachable(directory) as path:
            path.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(path))
            os.chmod(path, 0o600)
    except OSError as error:
        raise ControlError(f"no control socket in {directory}: {reason(error)}") from error
    server = await asyncio.start_unix_server(converse, sock=listener, limit=MOST_BYTES)
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError):
            (directory / SOCKET).unlink()


def ask(directory: Path, question: str, **arguments: Any) -> Any:
    """The running box's answer. Raises NotRunning, ControlError with what it says."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ANSWER_TIMEOUT_S)
        try:
            with _reachable(directory) as path:
                link.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(f"no box runs with the state in {directory}") from error
        except OSError as error:
            raise ControlError(f"the box cannot be asked: {reason(error)}") from error
        try:
            link.sendall(json.dumps({"ask": question, **arguments}).encode() + b"\n")
            with link.makefile("rb") as file:
                answer = json.loads(file.readline())
        except (OSError, ValueError) as error:
            raise ControlError("the box did not answer; it may be stopping") from error
    if "error" in answer:
        raise ControlError(answer["error"])
    return answer["answer"]


@contextlib.contextmanager
def _reachable(directory: Path) -> Iterator[Path]:
    """The socket's path, short enough for any directory: sockets' paths have 107 bytes."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{opened}") / SOCKET
    finally:
        os.close(opened)


async def _converse(
    handlers: Mapping[str, Handler], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(QUESTION_TIMEOUT_S):
            line = await reader.readline()
        answer = await _answer(handlers, line)
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    except (OSError, ValueError) as error:
        log.debug("a question was given up: %s", error)
    finally:
        writer.close()


async def _answer(handlers: Mapping[str, Handler], line: bytes) -> dict[str, Any]:
    try:
        arguments: dict[str, Any] = json.loads(line)
        handler = handlers[arguments.pop("ask")]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return {"error": "this box does not know that question; is it of another version?"}
    try:
        return {"answer": await handler(arguments)}
    except ControlError as error:
        return {"error": str(error)}
    except Exception:
        # The connection's one safety net: a bug here ends this question only.
        log.exception("a question was not answered after an error of our own")
        return {"error": "the box failed at that; its log says more"}
