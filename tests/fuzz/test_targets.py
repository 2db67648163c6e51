"""Every target at toy size, without atheris: chains of its own mutations, from its seeds."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest

import wire
from tests.fuzz.target import PLACES, Target, target
from wire.plans import plans

INPUTS = {"edge_session": 500, "client_session": 60}
# What inputs become, and of how many in a hundred that must be so at least.
OUTCOMES = {
    "decoder": {"accepted": 3, "refused": 30},
    "segment": {"accepted": 3, "refused": 30},
    "tensor": {"accepted": 3, "refused": 30},
    "image": {"accepted": 3, "refused": 30},
    "conversation": {"talked": 30},
    "edge_session": {"open": 3, "closed": 30},
    "client_session": {"connecting": 3, "ready": 3, "uploading": 1},
    "answers": {"accepted": 3, "refused": 30},
}


def played(fuzzed: Target, inputs: int, seed: int = 20) -> Counter[str]:
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    seeds = fuzzed.seeds()
    for number in range(inputs):
        data = seeds[number % len(seeds)]
        for _ in range(rng.randrange(4)):
            data = fuzzed.mutated(rng, data)
        outcomes[fuzzed.check(data)] += 1
    return outcomes


@pytest.mark.parametrize("name", PLACES)
def test_a_toy_run_finds_nothing_and_reaches_every_outcome(name: str) -> None:
    inputs = INPUTS.get(name, 2_000)
    outcomes = played(target(name), inputs)
    for outcome, percent in OUTCOMES[name].items():
        assert outcomes[outcome] >= inputs * percent / 100, outcomes


@pytest.mark.parametrize("name", PLACES)
def test_seeds_are_no_findings(name: str) -> None:
    fuzzed = target(name)
    for seed in fuzzed.seeds():
        fuzzed.check(seed)


def test_a_lax_decoder_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    # It takes anything for Ping's token.
    lax = plans(wire.DEFAULT_LIMITS)
    lax = {**lax, 10: dataclasses.replace(lax[10], decoders=(lambda value, _: value,))}
    monkeypatch.setattr("wire.codec.plans", lambda _: lax)
    with pytest.raises((AssertionError, wire.LocalProtocolError)):
        played(target("decoder"), 8_000)


def test_lax_decoding_of_segments_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def lax(dtype: str, plane: int, count: int, *_: object) -> memoryview:
        return memoryview(bytes(wire.stored_bytes(dtype, plane, count) + 1))

    monkeypatch.setattr("wire.decode_segment", lax)
    with pytest.raises(AssertionError):
        played(target("segment"), 60)


def test_an_edge_that_goes_on_after_a_breach_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ionn_edge.machine.session.Session._end", lambda *_: None)
    with pytest.raises(AssertionError):
        played(target("edge_session"), 200)
