from __future__ import annotations

import dataclasses

import pytest

import wire
from tests import fuzz_wire
from wire.schema import plans


def test_a_toy_run_finds_nothing_and_reaches_both_outcomes():
    outcomes = fuzz_wire.fuzz(inputs=12_000, seed=20)
    for maker in ("mutated", "field_replaced", "any_shape", "coded_segment", "coded_tensor"):
        assert outcomes[f"{maker} accepted"] > 10
        assert outcomes[f"{maker} refused"] > 100
    assert outcomes["noise refused"] > 1_000


def test_a_finding_names_its_frames(monkeypatch):
    # A decoder that takes anything for Ping's token: the fuzzer must notice.
    lax = plans(wire.DEFAULT_LIMITS)
    lax = {**lax, 10: dataclasses.replace(lax[10], decoders=(lambda value, _: value,))}
    monkeypatch.setattr("wire.codec.plans", lambda _: lax)
    with pytest.raises(AssertionError, match="of seed 20: "):
        fuzz_wire.fuzz(inputs=8_000, seed=20)


def test_a_finding_among_coded_data_shows_it(monkeypatch):
    def lax(dtype, plane, count, _coding, _payload):
        return memoryview(bytes(wire.stored_bytes(dtype, plane, count) + 1))

    monkeypatch.setattr("wire.decode_segment", lax)
    with pytest.raises(AssertionError, match="of seed 20: "):
        fuzz_wire.fuzz(inputs=60, seed=20)
