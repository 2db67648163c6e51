"""Profiling ranges of layers as queries run them, and what is made of the times."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from ionn_client import Options, cli, prepare
from ionn_client.local import profile_grouped, profile_ranges
from layergraph import capture, flatten_inputs
from planner import Link, route
from planner.grouped import spans

TILINGS = ((0, 1, 2, 3, 4), (0, 2, 4), (0, 4))


def model() -> nn.Module:
    torch.manual_seed(0)
    linears = [nn.Linear(64, 64) for _ in range(4)]
    return nn.Sequential(*(each for linear in linears for each in (linear, nn.ReLU()))).eval()


def captured():
    args = (torch.ones(1, 64),)
    graph, weights = capture(model(), args)
    assert len(graph.layers) == 4
    return graph, weights, flatten_inputs(graph, args, {})


@pytest.mark.parametrize("threads", [1, 2])
def test_every_range_of_the_tilings_is_timed(threads: int) -> None:
    measured = profile_ranges(*captured(), TILINGS, runs=2, threads=threads)
    assert set(measured) == spans(TILINGS)
    assert all(seconds > 0 for seconds in measured.values())


def test_ranges_are_fitted_to_some_and_checked_against_others() -> None:
    profile = profile_grouped(*captured(), runs=1, threads=1)
    assert len(profile.times) == 4
    assert {(0, 4), (0, 1), (1, 3)} <= set(profile.times.measured)
    assert not set(profile.errors.ranges) & set(profile.times.measured)


def test_what_is_prepared_costs_what_its_ranges_do() -> None:
    profiled = prepare(model(), (torch.ones(1, 64),), options=Options(profile_runs=1))
    times = profiled.ranges
    assert times is not None
    assert {(0, 1), (3, 4), (0, 4)} <= set(times.measured)
    assert profiled.client_s == tuple(times.layer_s.tolist())
    link = Link(1e6, 1e6, 0.01)
    costs = profiled.costs(link, device_slowdown=3.0)
    assert costs.client_s.tolist() == pytest.approx([3 * each for each in profiled.client_s])
    assert route(costs, link).latency_s == pytest.approx(3 * times.modelled(0, 4))
    # Whoever comes down to the client in the middle starts a range there.
    bare = profiled.costs(link, device_slowdown=1.0)
    added_s = (costs.cut_down_s - bare.cut_down_s)[1:-1]
    assert added_s.tolist() == pytest.approx([2 * times.startup_s] * 3)


def test_the_command_shows_both_predictions() -> None:
    args = ["profile", "--grouped", "--network", "lenet", "--runs", "1"]
    told = CliRunner().invoke(cli.app, [*args, "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    layers = len(report["layers"])
    measured = {(start, stop) for start, stop, _ in report["measured"]}
    held_out = {(each["start"], each["stop"]) for each in report["held_out"]}
    assert (0, layers) in measured
    assert held_out
    assert not held_out & measured
    assert len(report["marginal_s"]) == layers
    assert set(report["errors"]) == {"sum_of_layers", "grouped"}
    shown = CliRunner().invoke(cli.app, args)
    assert shown.exit_code == 0, shown.output
    for text in ("alone", "in a range", "conv1", "start-up", "did not use"):
        assert text in shown.stdout
