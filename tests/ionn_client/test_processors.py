"""Queries on several processors of one device: shares, limits, and profiles that do not fit."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from ionn_client import devices
from ionn_client.devices import load_device
from ionn_client.reports.processors import LocalPlan, local_costs, local_plans, stated_processors
from layergraph import capture
from planner import LocalCosts, Processor

# The first is slow at layer 0, the second at layer 2; layer 1 is as good on both together.
COSTS = LocalCosts(
    [Processor("cpu", [0.4, 0.2, 0.1], 2.0), Processor("gpu", [0.1, 0.2, 0.3], 6.0)],
    [1e3] * 3,
    [1e3] * 4,
    [1, 10, 1],
    idle_W=1.0,
)


def by_name(costs: LocalCosts = COSTS, **limits: float) -> dict[str, LocalPlan]:
    return {plan.planner: plan for plan in local_plans(costs, "latency_s", **limits)}


def test_each_alone_then_each_layer_on_one_then_split() -> None:
    plans = by_name()
    assert list(plans) == ["cpu", "gpu", "each layer on one", "layers split"]
    assert plans["cpu"].latency_s == pytest.approx(0.7)
    assert plans["cpu"].energy_J == pytest.approx(0.7 * 3.0)
    assert plans["each layer on one"].latency_s == pytest.approx(0.4)
    split = plans["layers split"]
    assert split.latency_s == pytest.approx(0.3)
    assert split.shares == ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0))


def test_least_joules_under_a_deadline_are_those_of_brute_force() -> None:
    plans = {plan.planner: plan for plan in local_plans(COSTS, "energy_J", latency_s=0.5)}
    least = min(
        sum(COSTS.processors[p].layer_s[i] * (COSTS.processors[p].active_W + 1) for i, p in found)
        for found in (list(enumerate(way)) for way in itertools.product((0, 1), repeat=3))
        if sum(COSTS.processors[p].layer_s[i] for i, p in found) <= 0.5
    )
    assert plans["each layer on one"].energy_J == pytest.approx(least)
    assert plans["layers split"].energy_J <= least * (1 + 1e-6)
    assert plans["cpu"].broken
    assert plans["gpu"].broken
    assert not plans["layers split"].broken


def test_limits_that_nothing_keeps_say_what_to_raise() -> None:
    plans = by_name(latency_s=0.29, energy_J=0.01)
    for name in ("each layer on one", "layers split"):
        assert plans[name].shares is None
        assert "raise the" in plans[name].note
        assert "the battery budget by" in plans[name].note


def test_layers_split_by_their_output_channels() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 12, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(12, 7)
    ).eval()
    graph, _ = capture(model, (torch.zeros(1, 3, 3, 3),), {})
    profiles = [load_device("jetson-tk1-cpu"), load_device("jetson-tk1-gpu")]
    costs = local_costs(graph, profiles)
    assert [int(units) for units in costs.units if units > 1] == [12, 7]
    assert costs.idle_W == 3.5
    assert [processor.active_W for processor in costs.processors] == pytest.approx([4.5, 7.2])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "two or more"),
        ("jetson-tk1-cpu", "two or more"),
        ("jetson-tk1-cpu,", "no device profile ''"),
        ("jetson-tk1-cpu,jetson-tk1-cpu", "twice"),
        ("jetson-tk1-cpu,jetson-tk2-cpu", "no device profile"),
        ("jetson-tk1-cpu,jetson-tx2", "idle at different powers"),
        ("jetson-tk1-cpu,gtx-1080", "compute_W and idle_W"),
        ("jetson-tk1-cpu,none.toml", "none.toml"),
    ],
)
def test_processors_that_do_not_fit_are_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stated_processors(text)


def test_a_profile_in_a_file_is_a_processor_too(tmp_path: Path) -> None:
    text = (Path(devices.__file__).parent / "jetson-tk1-gpu.toml").read_text()
    (tmp_path / "dsp.toml").write_text(text)
    found = stated_processors(f"jetson-tk1-cpu, {tmp_path / 'dsp.toml'}")
    assert [profile.key for profile in found] == ["jetson-tk1-cpu", "dsp"]
