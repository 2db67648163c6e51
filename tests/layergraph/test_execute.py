"""Ranges of layers: what they take, what they give, what they need."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from layergraph import Executor, InvalidInput, LayerGraph, check_live, execute
from tests.support import WIDTH, chain


def row(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_ranges_chain() -> None:
    graph, weights = chain(4)
    executor = Executor(graph, weights)
    whole = executor.run(0, 4, (row(),))
    for cut in range(5):
        assert torch.equal(executor.run(cut, 4, executor.run(0, cut, (row(),)))[0], whole[0])
    expected = row()
    for tensor in weights.values():
        expected = torch.nn.functional.linear(expected, tensor)
    assert torch.equal(whole[0], expected)
    assert torch.equal(execute(graph, weights, 0, 4, (row(),))[0], expected)


def test_a_range_needs_only_its_own_weights() -> None:
    graph, weights = chain(3)
    arrived: dict[str, torch.Tensor] = {"fc1.weight": weights["fc1.weight"]}
    executor = Executor(graph, arrived)
    executor.run(1, 2, (row(),))
    with pytest.raises(InvalidInput, match=r"fc0\.weight is not here"):
        executor.run(0, 2, (row(),))
    arrived["fc0.weight"] = weights["fc0.weight"]
    executor.run(0, 2, (row(),))


@pytest.mark.parametrize("wrong", [torch.zeros(WIDTH), torch.zeros(WIDTH, WIDTH).double()])
def test_a_weight_that_does_not_fit(wrong: torch.Tensor) -> None:
    graph, weights = chain(1)
    with pytest.raises(InvalidInput, match=r"weight fc0\.weight is float32\[8, 8\]; got"):
        execute(graph, {**weights, "fc0.weight": wrong}, 0, 1, (row(),))


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 1), (0, 4), (4, 4)])
def test_a_range_that_is_none(start: int, stop: int) -> None:
    graph, weights = chain(3)
    with pytest.raises(InvalidInput, match="of a model with 3"):
        execute(graph, weights, start, stop, (row(),))


@pytest.mark.parametrize(
    ("live", "message"),
    [
        ((), "takes 1 tensors; got 0"),
        ((row(), row()), "takes 1 tensors; got 2"),
        ((row().double(),), r"is float32\[1, 8\]; got float64\[1, 8\]"),
        ((row()[0],), r"got float32\[8\]"),
        (("x",), "got str"),
        ((None,), "got NoneType"),
    ],
)
def test_live_tensors_that_do_not_fit(live: Any, message: str) -> None:
    graph, weights = chain(2)
    with pytest.raises(InvalidInput, match=message):
        check_live(graph, 1, live)
    with pytest.raises(InvalidInput, match=message):
        execute(graph, weights, 1, 2, live)


def test_values_are_freed_after_their_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, weights = chain(3)
    executor = Executor(graph, weights)
    seen: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []
    linear = torch._C._nn.linear

    def watched(*args: torch.Tensor) -> torch.Tensor:
        alive.append(sum(reference() is not None for reference in seen))
        result = linear(*args)
        seen.append(weakref.ref(result))
        return result

    compiled = executor._compile(0, 3)
    names = compiled.function.__globals__
    monkeypatch.setitem(names, next(n for n, v in names.items() if v is linear), watched)
    gc.disable()
    try:
        result = executor.run(0, 3, (row(),))
    finally:
        gc.enable()
    assert alive == [0, 1, 1]
    assert seen[-1]() is result[0]


def test_nothing_records_gradients() -> None:
    graph, weights = chain(1)
    (result,) = execute(graph, weights, 0, 1, (row().requires_grad_(),))
    assert result.is_inference()
    with torch.inference_mode():
        (again,) = execute(graph, weights, 0, 1, (row(),))
    assert torch.equal(result, again)


def test_weights_made_in_inference_mode() -> None:
    graph, weights = chain(1)
    with torch.inference_mode():
        made = {name: tensor.clone() for name, tensor in weights.items()}
    assert torch.equal(
        execute(graph, made, 0, 1, (row(),))[0], execute(graph, weights, 0, 1, (row(),))[0]
    )


def test_a_weight_that_becomes_another_tensor_is_taken_by_ranges_that_ran_before() -> None:
    graph, weights = chain(3)
    rough = {name: tensor.round() for name, tensor in weights.items()}
    executor = Executor(graph, rough)
    for start, stop in ((0, 3), (1, 2), (2, 3)):
        executor.run(start, stop, (row(),))
    rough["fc1.weight"] = weights["fc1.weight"]
    executor.rebind("fc1.weight")
    for start, stop in ((0, 3), (1, 2), (2, 3), (0, 2)):
        fresh = execute(graph, rough, start, stop, (row(),))
        assert torch.equal(executor.run(start, stop, (row(),))[0], fresh[0])


def test_a_tensor_that_does_not_fit_is_not_rebound() -> None:
    graph, weights = chain(1)
    executor = Executor(graph, weights)
    executor.run(0, 1, (row(),))
    weights["fc0.weight"] = torch.zeros(1)
    with pytest.raises(InvalidInput, match=r"fc0\.weight is float32"):
        executor.rebind("fc0.weight")


def with_room_for(graph: LayerGraph, weights: dict[str, torch.Tensor], nodes: int) -> Executor:
    executor = Executor(graph, weights)
    executor._most_nodes = nodes
    return executor


def test_new_weights_reach_the_ranges_that_are_kept_and_those_built_again() -> None:
    graph, weights = chain(4)
    executor = with_room_for(graph, weights, 4)
    ranges = [(start, stop) for start in range(5) for stop in range(start, 5)]
    for step, (start, stop) in enumerate(ranges * 2):
        name = f"fc{step % 4}.weight"
        weights[name] = weights[name] + 1
        executor.rebind(name)
        ours = executor.run(start, stop, (row(),))[0]
        assert torch.equal(ours, execute(graph, weights, start, stop, (row(),))[0])
        kept = [stop - start for start, stop in executor._ranges]
        assert sum(kept) == executor._kept_nodes <= 4
        assert next(reversed(executor._ranges)) == (start, stop)
        bound = {key for ranges in executor._bound.values() for key in ranges}
        assert bound == {(start, stop) for start, stop in executor._ranges if start < stop}


def test_only_ranges_that_ran_longest_ago_are_forgotten() -> None:
    executor = with_room_for(*chain(4), 4)
    for start in (0, 1, 2, 3, 0):
        executor.run(start, start + 1, (row(),))
    kept = executor._ranges[0, 1]
    executor.run(0, 2, (row(),))
    assert list(executor._ranges) == [(3, 4), (0, 1), (0, 2)]
    assert executor._ranges[0, 1] is kept
