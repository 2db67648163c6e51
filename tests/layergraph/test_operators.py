"""Every operator run for real on guarded memory: the fuzzer's seeds, a taste of it, its findings.

`make fuzz` does the same with thousands of calls each, in processes of their own.
"""

from __future__ import annotations

import ctypes
import dataclasses
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from layergraph.ops import OPERATORS
from tests.fuzz_operators import case
from tests.guarded_memory import Memory, Room
from tests.operator_seeds import seeds
from tests.operator_trial import Finding, judge, stored

ROOT = Path(__file__).parents[2]
HOSTILE = ROOT / "tests" / "hostile" / "operators"
# Beside the seeds.
MUTATIONS = 3


@pytest.fixture(scope="module")
def memory() -> Memory:
    return Memory([])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    # Torch's advice on deprecated spellings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", OPERATORS)
def test_valid_calls_run_and_mutated_ones_do_no_harm(name: str, memory: Memory) -> None:
    known = len(seeds(name))
    assert [judge(OPERATORS[name], call, memory, 0) for call in seeds(name)] == ["ran"] * known
    for number in range(known, known + MUTATIONS):
        judge(OPERATORS[name], case(name, 11, number), memory, number)


@pytest.mark.parametrize("path", sorted(HOSTILE.glob("*.jsonl")), ids=lambda path: path.stem)
def test_what_the_fuzzer_found_does_no_harm_any_more(path: Path, memory: Memory) -> None:
    calls = stored(path)
    assert calls
    for name, call in calls:
        for seed in (0, 1):
            judge(OPERATORS[name], call, memory, seed)


def test_reading_beyond_an_input_ends_the_process() -> None:
    # The call for which the table prefers the checked composite operator.
    program = """
import torch
from tests.guarded_memory import Room
def flat(count):
    return Room().put(bytes(4 * count), at_end=True).view(torch.float32)
short, source = flat(1), torch.zeros(1, 4096, 2, 2)
torch.ops.aten._native_batch_norm_legit_no_training(source, None, None, short, short, 0.1, 1e-5)
print("survived")
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == -signal.SIGSEGV, run.stdout + run.stderr


@pytest.mark.parametrize("at_end", [True, False])
def test_writing_to_an_input_or_beside_it_is_noticed(at_end: bool) -> None:
    room = Room()
    tensor = room.put(bytes(32), at_end=at_end)
    assert room.damage() is None
    tensor[3] = 1
    assert room.damage() == "wrote to its input"
    tensor = room.put(bytes(32), at_end=at_end)
    ctypes.memset(tensor.data_ptr() + (-1 if at_end else 32), 200, 1)
    assert room.damage() == "wrote beside its input"


def test_a_result_of_another_shape_is_a_finding(memory: Memory) -> None:
    # Without its check, of which the shape function drops two dimensions.
    name, call = stored(HOSTILE / "shapes.jsonl")[0]
    unchecked = dataclasses.replace(OPERATORS[name], check=None)
    assert judge(OPERATORS[name], call, memory, 0) == "refused"
    with (
        mock.patch.dict(OPERATORS, {name: unchecked}),
        pytest.raises(Finding, match="shape: it declares"),
    ):
        judge(unchecked, call, memory, 0)
