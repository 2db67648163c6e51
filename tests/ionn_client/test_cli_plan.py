"""`ionn plan` as a person types it: tables, cells, sentences, pictures, and mistakes."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn
from typer.testing import CliRunner

from ionn_client import cli
from ionn_client.commands import problem, processors
from layergraph import capture

STATED = ["--network", "alexnet", "--device", "jetson-tk1-gpu", "--edge", "gtx-1080"]
SMALL = ["--network", "lenet", "--device", "jetson-tk1-cpu", "--edge", "tesla-k40"]
BOARD = ["--power", "compute=5,idle=1.5"]


@pytest.fixture(scope="module", autouse=True)
def _networks_are_loaded_once() -> Iterator[None]:
    """Their weights and their capture take most of a plan's time, and are the same each time."""
    load, graphs = functools.cache(problem.load), dict[nn.Module, Any]()

    def captured(model: nn.Module, *args: Any) -> Any:
        if model not in graphs:
            graphs[model] = capture(model, *args)
        return graphs[model]

    with pytest.MonkeyPatch.context() as once:
        for module in (problem, processors):
            once.setattr(module, "load", load)
            once.setattr(module, "capture", captured)
        yield


def plan(*args: str) -> str:
    result = CliRunner().invoke(cli.app, ["plan", *args])
    assert result.exit_code == 0, result.output
    return result.stdout


def plan_json(*args: str) -> Any:
    return json.loads(plan(*args, "--json"))


def planners(report: Any) -> dict[str, Any]:
    return {row["planner"]: row for row in report["planners"]}


def ended(monkeypatch: pytest.MonkeyPatch, code: int, *args: str) -> None:
    """As a person's shell sees it."""
    monkeypatch.setattr(sys, "argv", ["ionn", "plan", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code


def mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    ended(monkeypatch, 2, *args)
    return capsys.readouterr().err


def test_stated_devices_split_alexnet_before_its_full_connections() -> None:
    report = plan_json(*STATED, "--radio", "wifi", "--up", "12mbit")
    rows = planners(report)
    assert rows["ours"]["route"] == [["client", 0, 6], ["edge", 6, 9]]
    assert rows["Neurosurgeon, latency"]["placement"] == rows["ours"]["placement"]
    alone, edge = rows["client only"], rows["edge only"]
    assert rows["ours"]["latency_s"] < min(alone["latency_s"], edge["latency_s"])
    assert rows["ours"]["up_bytes"] == 256 * 6 * 6 * 4
    assert report["link"]["up_Bps"] == 1.5e6
    assert report["link"]["down_Bps"] == pytest.approx(54.97e6 / 8)
    assert report["power"]["compute_W"] == 10.7


def test_the_terminal_shows_cells_that_read_without_colour() -> None:
    text = plan(*STATED, "--radio", "wifi", "--up", "12mbit")
    line = next(line for line in text.splitlines() if line.startswith("ours  ") and "C" in line)
    assert "".join(line.removeprefix("ours").split()) == "CCCCCCEEE"
    assert "layers 7-9 (fc6 to fc8)" in text
    assert "While the weights upload" in text
    assert max(map(len, text.splitlines())) <= 80


def test_measured_here_with_upload_orders() -> None:
    args = ("--network", "lenet", "--device-slowdown", "50", "--rate", "4mbit", "--grouped")
    report = plan_json(*args)
    assert "JointDNN, grouped" in planners(report)
    schemes = {row["scheme"]: row["mean_latency_s"] for row in report["schemes"]}
    assert schemes["efficiency"] <= schemes["ionn K=0.5"] <= schemes["all-at-once"] * 1.001
    assert planners(report)["ours"]["energy_J"] is None
    assert "upload_J" not in report


def test_a_load_and_limits_change_the_plan() -> None:
    wifi = [*STATED, "--radio", "wifi", "--up", "12mbit"]
    loaded = planners(plan_json(*wifi, "--server-load", "100"))
    assert loaded["ours"]["route"] == [["client", 0, 9]]
    limited = plan_json(*wifi, "--edge-limit", "1ms", "--deadline", "1s", "--battery", "5")
    rows = planners(limited)
    assert limited["limits"] == {"battery": 5.0, "deadline": 1.0, "edge_time": 0.001}
    assert rows["ours"]["exceeds"] == []
    assert rows["ours"]["edge_s"] <= 0.001
    assert "edge_time" in rows["edge only"]["exceeds"]


def test_objectives_and_powers() -> None:
    args = [*SMALL, *BOARD, "--radio", "4g"]
    by_energy = planners(plan_json(*args, "--objective", "energy"))
    least = min(row["energy_J"] for row in by_energy.values())
    assert by_energy["ours"]["energy_J"] == pytest.approx(least)
    mixed = plan_json(*args, "--objective", "mix", "--seconds-per-joule", "0.5")
    costs = [row["latency_s"] + 0.5 * row["energy_J"] for row in mixed["planners"]]
    assert costs[-1] == pytest.approx(min(costs))
    given = plan_json(*SMALL, "--power", "compute=5,idle=1.5,base=0.1,up=0.3,down=0.1")
    assert given["power"]["radio"]["up_W_per_Bps"] == pytest.approx(0.3 / 125e3)
    assert "energy" in plan(*args)


def test_whether_the_joules_of_uploading_come_back() -> None:
    args = (*STATED, "--radio", "wifi", "--stay")
    text = " ".join(plan(*args, "60s").split())
    assert "Nothing is worth uploading for this stay. Everything would pay back" in text
    found = plan_json(*args, "200h", "--queries-per-hour", "3600")["payback"]
    assert found["stay_s"] == 720_000
    assert "worth uploading for this stay" in found["sentence"]
    assert found["worth"]["net_J"] >= found["everything"]["net_J"] > 0


def test_more_queries_than_fit_into_an_hour_are_refused_by_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = (*STATED, "--radio", "wifi", "--stay", "1h", "--queries-per-hour", "1e6")
    assert "--queries-per-hour: at most" in mistake(monkeypatch, capsys, *args)


def test_a_model_without_weights_has_nothing_to_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import torch\ndef relu():\n    return torch.nn.ReLU(), (torch.ones(1, 8),)\n"
    (tmp_path / "weightless.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    args = ["--network", "weightless:relu", *STATED[2:], "--radio", "3g", "--explain"]
    text = plan(*args, "--figure", "plan.svg")
    assert "1 layer, one cell a layer" in text
    assert "no weights to upload" in text
    assert (tmp_path / "plan.svg").exists()


def test_explanations_in_sentences() -> None:
    args = (*STATED, "--radio", "wifi", "--up", "12mbit", "--explain")
    text = " ".join(plan(*args).split())
    assert "Layers 1-6 (input to conv5) run on the client" in text
    assert "When the uplink drops below" in text
    assert "of the battery:" in text
    found = plan_json(*args)["explanation"]
    assert len(found["reasons"]) == 9
    assert {change["dial"] for change in found["changes"]} >= {"up_Bps", "device_speed"}
    assert found["sentences"][0] in text


def test_schedules_solved_beforehand_are_a_row(tmp_path: Path) -> None:
    args = (*STATED, "--radio", "wifi", "--cache", str(tmp_path / "schedules.json"))
    solved, found = plan_json(*args), plan_json(*args, "--up", "9mbit", "--server-load", "2")
    assert solved["cache"]["solved_cpu_s"] > 0
    assert found["cache"]["solved_cpu_s"] is None
    assert found["cache"]["regret_bound"] <= 0.01
    assert found["cache"]["region"]["server_load"] == [1.0, 10.0]
    rows = planners(found)
    assert rows["cached"]["latency_s"] <= rows["ours"]["latency_s"] * 1.01
    # A long path is broken within a word.
    text = "".join(plan(*args, "--up", "9mbit").split())
    assert "schedules.json(read):3schedulesin491cells" in text
    assert "serverloadsupto10" in text


def test_a_training_step_in_place_of_a_query(tmp_path: Path) -> None:
    path = tmp_path / "training.png"
    args = ("--network", "alexnet", "--device", "jetson-tk1-cpu", "--edge", "gtx-1080",
            "--radio", "wifi", "--training", "--deadline", "1s")  # fmt: skip
    found = plan_json(*args)
    rows = planners(found["training"])
    assert set(rows) == {"client only", "edge only", "LARAC", "ILP", "ours"}
    assert "schemes" not in found
    assert len(rows["ours"]["placement"]) == 18
    assert rows["ours"]["exceeds"] == []
    assert rows["ours"]["latency_s"] == pytest.approx(rows["ILP"]["latency_s"])
    assert rows["edge only"]["weight_bytes"] == pytest.approx(0.83 * 243.9e6, rel=0.02)
    text = plan(*args, "--figure", str(path))
    assert "conv2 backward" in text
    assert "Over the deadline of 1.00 s: client only; edge only." in text
    assert "While the weights upload" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert path.read_bytes().startswith(b"\x89PNG")


TWO = ["--processors", "jetson-tk1-cpu,jetson-tk1-gpu"]


def test_processors_of_one_device_share_a_query() -> None:
    found = plan_json("--network", "alexnet", *TWO)
    plans = {row["plan"]: row for row in found["plans"]}
    alone = min(plans[name]["latency_s"] for name in found["processors"])
    assert plans["layers split"]["latency_s"] < plans["each layer on one"]["latency_s"] < alone
    assert all(sum(shares) == pytest.approx(1) for shares in plans["layers split"]["shares"])
    text = plan("--network", "alexnet", *TWO, "--objective", "energy", "--deadline", "60ms")
    assert "Over the deadline: jetson-tk1-cpu; jetson-tk1-gpu." in text
    assert "raise the deadline by" in " ".join(text.split())
    assert "split: jetson-tk1-gpu" in text
    assert max(map(len, text.splitlines())) <= 80


def test_residual_blocks_are_a_row_where_layers_branch() -> None:
    args = ("--device", "jetson-tk1-cpu", "--edge", "gtx-1080", "--radio", "wifi")
    rows = planners(plan_json("--network", "googlenet", *args))
    blocks = rows["JointDNN, residual blocks"]
    assert blocks["latency_s"] >= rows["ours"]["latency_s"] * (1 - 1e-9)
    assert "JointDNN, residual blocks" not in planners(plan_json(*STATED))


@pytest.mark.parametrize(
    "args", [[*SMALL, "--explain"], [*SMALL, "--training"], ["--network", "lenet", *TWO]]
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_limits_that_nothing_keeps_are_a_failure_told_in_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    form: list[str],
) -> None:
    ended(monkeypatch, 1, *args, "--deadline", "10us", *form)
    told = capsys.readouterr()
    assert "found: none keeps all limits; raise the deadline by" in told.err
    assert "raise the deadline by" in " ".join(told.out.split())
    assert ("Nothing to explain" in told.out) == ("--explain" in args and not form)
    if form:
        assert json.loads(told.out)


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    text = plan(*SMALL, "--radio", "wifi", "--figure", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path.name) in text.replace("\n", "")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--device", "jetson"], "jetson-tx2"),
        (["--device", "none.toml"], "none.toml"),
        (["--device", "jetson-tx2", "--device-slowdown", "2"], "give one"),
        (["--edge", "gtx-1080", "--edge-speed", "2"], "give one"),
        (["--objective", "energy"], "--radio"),
        (["--objective", "energy", *BOARD], "--radio"),
        (["--objective", "mix", *BOARD, "--radio", "4g"], "--seconds-per-joule"),
        (["--seconds-per-joule", "1"], "--objective mix"),
        (["--objective", "speed"], "--objective"),
        (["--battery", "3"], "--battery"),
        (["--battery", "-3", *BOARD, "--radio", "4g"], "--battery"),
        (["--battery", "nan", *BOARD, "--radio", "4g"], "battery"),
        (["--deadline", "soon"], "0.5s"),
        (["--deadline", "-1s"], "0.5s"),
        (["--edge-limit", "10"], "edge-limit"),
        (["--server-load", "0.5"], "server-load"),
        (["--server-load", "nan"], "server-load"),
        (["--server-load", "inf"], "server-load"),
        (["--radio", "5g"], "radio"),
        (["--power", "compute=5"], "idle"),
        (["--power", "compute=5,idle=x", "--radio", "4g"], "idle"),
        (["--power", "compute=5,idle=-1", "--radio", "4g"], "idle"),
        (["--power", "compute=5,compute=6", "--radio", "4g"], "twice"),
        (["--power", "watts=5"], "NAME=WATTS"),
        (["--power", ""], "NAME=WATTS"),
        (["--power", "up=1,down=1"], "base"),
        (["--power", "up=1,down=1,base=inf"], "base"),
        (["--up", "fast"], "80mbit"),
        (["--down", "0mbit"], "down_Bps"),
        (["--rate", "80"], "80mbit"),
        (["--stay", "600s"], "--stay"),
        (["--stay", "600s", *BOARD], "--radio"),
        (["--stay", "long", *BOARD, "--radio", "4g"], "--stay"),
        (["--stay", "-5min", *BOARD, "--radio", "4g"], "--stay"),
        (["--stay", "nan", *BOARD, "--radio", "4g"], "--stay"),
        (["--stay", "10", *BOARD, "--radio", "4g"], "--stay"),
        (["--queries-per-hour", "-1"], "--queries-per-hour"),
        (["--queries-per-hour", "inf"], "--queries-per-hour"),
        (["--queries-per-hour", "nan"], "--queries-per-hour"),
        (["--grouped", "--device", "jetson-tx2"], "--grouped"),
        ([*TWO, "--rate", "8mbit"], "--rate"),
        ([*TWO, "--training"], "--training"),
        ([*TWO, "--server-load", "2"], "--server-load"),
        ([*TWO, "--device", "jetson-tx2"], "--device"),
        ([*TWO, "--objective", "mix", "--seconds-per-joule", "1"], "--objective latency"),
        ([*TWO, "--figure", "plan.png"], "--figure"),
        ([*TWO, "--deadline", "soon"], "--deadline"),
        ([*TWO, "--battery", "nan"], "--battery"),
        (["--processors", "jetson-tk1-cpu"], "two or more"),
        (["--training", "--explain"], "--explain"),
        (["--training", "--grouped"], "--grouped"),
        (["--training", "--stay", "1h", *BOARD, "--radio", "4g"], "--stay"),
        ([*SMALL[2:], "--training", "--cache", "schedules.json"], "--cache"),
        (["--cache", "schedules.json"], "--device"),
        (["--cache", "schedules.json", "--edge", "gtx-1080"], "--device"),
        ([*SMALL[2:], "--cache", "no-such-folder/schedules.json"], "no-such-folder"),
        ([*SMALL[2:], "--cache", "."], "not a file"),
        (
            [*SMALL[2:], *BOARD, "--radio", "4g", "--objective", "energy", "--cache", "a.json"],
            "--objective latency",
        ),
        (["--figure", "plan.doc"], ".png"),
        (["--figure", "no-such-folder/plan.png"], "no-such-folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    said: str,
) -> None:
    def measured(*_: object) -> None:
        raise AssertionError("loaded a network")

    monkeypatch.setattr("ionn_client.commands.problem.load", measured)
    monkeypatch.setattr("ionn_client.commands.processors.load", measured)
    text = mistake(monkeypatch, capsys, "--network", "lenet", *args)
    assert said in text
    assert "Traceback" not in text


def test_kept_layers_stay_in_every_plan() -> None:
    wifi = [*STATED, "--radio", "wifi", "--up", "12mbit"]
    args = (*wifi, "--keep-local", "1,2", "--edge-limit", "50ms")
    rows = planners(plan_json(*args))
    assert "edge only" not in rows
    for name, row in rows.items():
        sides = {(start, stop): side for side, start, stop in row["route"] or ()}
        on_edge = {i for (start, stop), side in sides.items() if side == "edge"
                   for i in range(start, stop)}  # fmt: skip
        # AlexNet's first layer with weights is its second: the first is the input's.
        assert on_edge <= set(range(1, 7)), name
    text = plan(*args, "--explain")
    assert "Kept on the device, and never uploaded: " in text
    assert "runs on the client, as was asked." in text
    order = plan(*args).partition("Order by")[2]
    assert "fc6" in order
    assert "fc8" not in order


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--keep-local", "x"], "--keep-local is how many"),
        (["--keep-local", "1,-1"], "--keep-local is how many"),
        (["--keep-local", "99"], "the model has 9 layers"),
        (["--keep-local", "1", "--training"], "--keep-local is of queries"),
    ],
)
def test_kept_layers_that_make_no_sense(
    args: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert told in mistake(monkeypatch, capsys, *STATED, *args)


def test_kept_layers_need_an_edge(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("--network", "lenet", "--processors", "jetson-tk1-cpu,jetson-tk1-gpu")
    told = mistake(monkeypatch, capsys, *args, "--keep-local", "1")
    assert "--keep-local does not go with --processors" in told
