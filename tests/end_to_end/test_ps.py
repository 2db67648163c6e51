"""`ionn ps` with edges that do not answer as edges do: one line, whatever they do."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from ionn_client.boxes import inquiry
from ionn_client.boxes.access import Access
from ionn_client.commands.ps import ask_load
from ionn_client.errors import EdgeRejected, EdgeUnreachable, OffloadError
from tests.end_to_end.test_doctor import Handler, conversation, frames, says, server
from wire import messages


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        (conversation(), EdgeUnreachable, "answers, but it ends the conversation"),
        (conversation(*frames(messages.Bye("draining"))), EdgeUnreachable, "draining"),
        (conversation(b"\xff\xff"), EdgeRejected, "does not speak the protocol"),
        (conversation(*frames(messages.Pong(1, 1.0))), EdgeRejected, "it answers Pong"),
        (conversation(*frames(messages.Error("overloaded", "full"))), EdgeRejected, "full"),
        (conversation(then="wait"), EdgeUnreachable, "no answer from"),
        (says(b"hello"), EdgeUnreachable, "no edge at"),
    ],
    ids=["closed", "goodbye", "junk", "another", "refusing", "endless", "no socket"],
)
async def test_what_is_no_answer_is_said_so(
    handler: Handler,
    kind: type[OffloadError],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if text == "no answer from":
        monkeypatch.setattr(inquiry, "TIMEOUT_S", 0.5)
    async with server(handler) as address:
        with pytest.raises(kind, match=text):
            await ask_load(Access.to(address, tmp_path))


async def test_the_command_ends_in_one_line() -> None:
    program = "from ionn_client.cli import main; main()"
    async with server(conversation()) as address:
        ps = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, "ps", "--edge", address),
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await ps.communicate()
    assert ps.returncode == 1
    (line,) = said.decode().splitlines()
    assert line.startswith(f"ionn: ionn://{address} answers, but")
