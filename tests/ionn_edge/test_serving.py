"""Where a box serves, and where it does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ionn_edge import server
from ionn_edge.box import Box
from ionn_edge.config import Config
from ionn_edge.server import is_loopback
from ionn_edge.workers.isolation import Isolation

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


_GARBAGE = """
import gc, json, sys
from pathlib import Path
from ionn_edge.config import Config
from ionn_edge.server import run

place = Path(sys.argv[1])
config = Config(store=place / "store", state=place / "a file", port=0, threads=1)
config.state.write_text("")
try:
    run(config, print)
except Exception as error:
    print(type(error).__name__, file=sys.stderr)
before = [each["collections"] for each in gc.get_stats()]
for _ in range(200_000):
    cycle = []
    cycle.append(cycle)
after = [each["collections"] for each in gc.get_stats()]
looks = [then - first for first, then in zip(before, after, strict=True)]
print(json.dumps([gc.isenabled(), gc.get_freeze_count(), len(gc.get_objects()), looks]))
"""


def test_a_box_looks_for_young_garbage_often_and_through_everything_seldom(tmp_path: Path) -> None:
    run = [sys.executable, "-c", _GARBAGE, str(tmp_path)]
    said = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True)
    enabled, spared, looked_through, (young, middle, all_of_it) = json.loads(said.stdout)
    assert enabled
    # All that was imported is spared: what is looked through is what a box makes while it serves.
    assert spared > 20_000 > 5 * looked_through
    assert (young > 200, middle > 40, all_of_it) == (True, True, 0)
