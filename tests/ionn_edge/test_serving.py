"""Where a box serves, and where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ionn_edge import server
from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.isolation import Isolation
from ionn_edge.server import is_loopback

WEAK = Isolation(("no network",), ("no files written (a file)",))
STRONG = Isolation(("no network", "no files written"), ())


@pytest.mark.parametrize(
    ("host", "shut_in", "anyway", "serves"),
    [
        ("127.0.0.1", WEAK, False, True),
        ("::1", WEAK, False, True),
        ("192.0.2.7", STRONG, False, True),
        ("192.0.2.7", WEAK, False, False),
        ("0.0.0.0", WEAK, False, False),
        ("::", WEAK, False, False),
        ("192.0.2.7", WEAK, True, True),
    ],
)
async def test_no_network_is_served_by_workers_that_are_not_shut_in(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    shut_in: Isolation,
    anyway: bool,
    serves: bool,
) -> None:
    async def seen(*_: Any) -> Isolation:
        return shut_in

    # What other machines would be seen to do: this one does what it does.
    monkeypatch.setattr(server, "isolation", seen)
    box = Box(Config(store=tmp_path, state=tmp_path / "state", weak_isolation=anyway))
    box.open()
    try:
        if serves:
            assert await server._shut_in(box, host) == shut_in
        else:
            with pytest.raises(ValueError, match=r"no files written .*--weak-isolation"):
                await server._shut_in(box, host)
    finally:
        box.close()


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("0.0.0.0", False), ("::", False),
     ("192.168.0.1", False), ("fe80::1%eth0", False), ("128.0.0.1", False)],
)  # fmt: skip
def test_loopback_is_what_only_this_machine_reaches(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one
