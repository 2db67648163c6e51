"""One target under atheris, in a process of its own: `python -m tests.fuzz.drive TARGET ...`.

Takes libFuzzer's options after the target's name, or an input's file to repeat it. Guided by the
branches of what is under test; atheris runs where CPython is of a version that it knows.
"""

from __future__ import annotations

import random
import sys

import atheris

from tests.fuzz.target import Target, target

ROOMS = ["wire", "ionn_edge", "ionn_client", "pairing"]


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=ROOMS):
        chosen = target(name)

    def run(data: bytes) -> None:
        chosen.check(data)

    atheris.Setup(sys.argv, run, custom_mutator=_mutator(chosen))
    atheris.Fuzz()


def _mutator(chosen: Target) -> object:
    def mutated(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return chosen.mutated(rng, data)[:max_size]

    return mutated


if __name__ == "__main__":
    main()
