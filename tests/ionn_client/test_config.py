"""Addresses and options: what is accepted, and what is said of the rest."""

from __future__ import annotations

import pytest

from ionn_client import Battery, EdgeAddress, Options, Stay
from planner import Objective, Power, Radio


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ionn://192.0.2.7:7431", "192.0.2.7", 7431),
        ("ionn://box.local", "box.local", 7431),
        ("127.0.0.1:80", "127.0.0.1", 80),
        ("box", "box", 7431),
        ("ionn://[::1]:9", "::1", 9),
        ("ionn://box:0/", "box", 0),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = EdgeAddress.parse(text)
    assert (address.host, address.port) == (host, port)
    assert EdgeAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "ionn://", "ionn://:7431", "http://box", "box:port", "box:70000", "ionn://box/x",
     "ionn://me@box", "ionn://box?x=1", "ionn://box#x", "ionn://b\x1bcx:1", "b\x07x", "b\x9b2Jx",
     "ionn://b\u202ex:1"],
)  # fmt: skip
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        EdgeAddress.parse(text)


JOULES = Objective(power=Power(1.0, 1.0, Radio(0.0, 0.0, 1.0)))


@pytest.mark.parametrize(
    "bad",
    [
        {"acknowledge": "sometimes"},
        {"device_slowdown": 0.5},
        {"device_slowdown": float("nan")},
        {"threads": 0},
        {"profile_runs": 0},
        {"algorithm": "magic"},
        {"precision": "rough"},
        {"precision": "progressive", "algorithm": "ionn"},
        {"precision": "progressive", "acknowledge": "partition"},
        {"activation_tolerance": 0.0},
        {"activation_tolerance": float("nan")},
        {"activation_tolerance": float("inf")},
        {"battery": Battery(1.0, 1)},
        {"stay": Stay(1.0, 1)},
        {"stay": Stay(1.0, 1), "precision": "progressive", "objective": JOULES},
    ],
)
def test_bad_options(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Options(**bad)  # type: ignore[arg-type]
