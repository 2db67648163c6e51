"""The commands as a person types them: what they print, and what they say of mistakes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ionn_client import cli, connect_sync
from ionn_client.commands import demo
from ionn_client.reports.figure import read_records
from layergraph.load import load
from tests.support import quick_edge

FAST = ["--network", "lenet", "--device-slowdown", "50"]
RUN = ["run", "--edge", "127.0.0.1:9", "--network", "lenet", "--queries", "1"]
POWER = ["--power", "compute=2,idle=1", "--radio", "wifi"]


def ionn(*args: str) -> str:
    result = CliRunner().invoke(cli.app, args)
    assert result.exit_code == 0, result.output
    return result.stdout


def ionn_json(*args: str) -> Any:
    return json.loads(ionn(*args, "--json"))


def mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str, code: int = 2
) -> str:
    monkeypatch.setattr(sys, "argv", ["ionn", *args])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == code
    return capsys.readouterr().err


def test_help_names_every_command() -> None:
    text = ionn("--help")
    for command in ("demo", "run", "plan", "profile", "bench", "ps", "edge"):
        assert command in text
    assert "serve" in ionn("edge", "--help")
    assert "latency" in ionn("bench", "--help")


@pytest.mark.parametrize("command", [("pair",), ("edge", "publish")])
def test_help_is_as_wide_as_the_terminal(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 300)
    text = ionn(*command, "--help")
    assert "one attempt: a wrong one" in text or "offers the same weights can tell" in text


def test_profile_lists_the_layers() -> None:
    report = ionn_json("profile", "--network", "lenet", "--runs", "1")
    assert [row["name"] for row in report["layers"]][1:3] == ["conv1", "conv2"]
    assert report["weight_bytes"] == 431_080 * 4
    text = ionn("profile", "--network", "lenet", "--runs", "1")
    assert "conv1" in text
    assert "1.72 MB" in text


def test_profile_shows_what_coding_makes_of_live_tensors() -> None:
    args = ("profile", "--network", "lenet", "--runs", "1", "--activation-tolerance", "0.05")
    rows = ionn_json(*args)["layers"]
    assert all(row["coded_bytes"] <= row["cut_bytes"] for row in rows)
    codings = [each for row in rows for each in row["codings"]]
    assert {each["coding"] for each in codings if each["error"] == 0.0} >= {"raw", "planes"}
    lossy = [each for each in codings if each["error"]]
    assert lossy
    assert all(each["allowed"] == (each["error"] <= 0.05) for each in lossy)
    assert "lossy: error" in ionn(*args)


def test_plan_puts_the_orders_side_by_side() -> None:
    report = ionn_json("plan", "--rate", "4mbit", *FAST)
    schemes = {row["scheme"]: row["mean_latency_s"] for row in report["schemes"]}
    assert schemes["efficiency"] <= schemes["ionn K=0.5"] <= schemes["all-at-once"] * 1.001
    assert "upload order" in ionn("plan", "--rate", "4mbit", *FAST)


def test_demo_ends_with_answers_as_exact_as_they_say_a_log_and_a_picture(tmp_path: Path) -> None:
    # So slow a device that the edge pays from the first layer on, however rough.
    slow = ("--network", "lenet", "--device-slowdown", "500")
    args = ("--precision", "progressive", "--rate", "4mbit", "--out", str(tmp_path), *slow)
    report = ionn_json("demo", *args)
    assert report["unequal_answers"] == 0
    assert 0 < report["exact_answers"] < report["queries"]
    assert report["bitwise_equal_answers"] == report["exact_answers"]
    assert Path(report["picture"]).read_bytes().startswith(b"\x89PNG")
    records = read_records(Path(report["jsonl"]))
    events = {record["event"] for record in records}
    assert {"run", "forecast", "plan", "uploaded", "query", "phase"} <= events
    asked = [record for record in records if record["event"] == "query"]
    assert {"float8", "bfloat16"} & {query["precision"] for query in asked}
    text = io.StringIO()
    demo._show(Console(file=text), report)
    assert "came at reduced precision" in " ".join(text.getvalue().split())


@pytest.mark.parametrize("command", [["run", "--edge", "127.0.0.1:9"], ["demo"]])
def test_a_network_that_does_not_exist_is_told_before_anything_is_said_to_begin(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    command: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ionn", *command, "--network", "lenett"])
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("ionn: there is no network 'lenett'")


def test_run_and_ps_with_a_box_and_without_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with quick_edge() as edge:
        lines = ionn(
            "run", "--edge", edge.address, "--queries", "3", "--interval", "0.1", "--json", *FAST
        ).splitlines()
        queries = [json.loads(line) for line in lines]
        assert [query["difference"] for query in queries] == [0.0] * 3
        # Three queries may be faster than the upload, or its beginning.
        lenet = load("lenet")
        with connect_sync(lenet.model, lenet.args, edge=edge.address) as net:
            net.uploaded(60)
        report = ionn_json("ps", "--edge", edge.address)
        assert [model["held_bytes"] for model in report["models"]] == [431_080 * 4]
        assert "1.7 of 1.7 MB" in ionn("ps", "--edge", edge.address)
        args = ("--activation-tolerance", "0.05", "--queries", "1", "--interval", "0")
        (line,) = ionn("run", "--edge", edge.address, *args, "--json", *FAST).splitlines()
        query = json.loads(line)
        assert query["lossy"] in (True, False)
        assert query["difference"] <= 0.05 * query["lossy"]
    text = ionn("run", "--edge", edge.address, "--queries", "1", "--interval", "0", *FAST)
    assert "1 of 1 exact answers equal" in text
    assert "no edge at" in mistake(monkeypatch, capsys, "ps", "--edge", edge.address, code=1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["profile", "--network", "alexnett"], "alexnet"),
        (["profile", "--network", "torchvision:resnet18"], "torchvision"),
        (["plan", "--network", "lenet", "--rate", "fast", "--device-slowdown", "2"], "80mbit"),
        (["plan", "--network", "lenet", "--rtt", "x", "--device-slowdown", "2"], "5ms"),
        (["run", "--edge", "http://box", "--network", "lenet"], "ionn://"),
        ([*RUN, "--objective", "energy"], "--radio"),
        ([*RUN, "--objective", "mix", *POWER], "--seconds-per-joule"),
        ([*RUN, "--seconds-per-joule", "1", *POWER], "--objective mix"),
        ([*RUN, "--objective", "mix", "--seconds-per-joule", "nan", *POWER], "--seconds-per-joule"),
        ([*RUN, "--battery", "5"], "--battery counts joules"),
        ([*RUN, "--battery", "-5", *POWER], "--battery"),
        ([*RUN, "--battery", "inf", *POWER], "--battery"),
        ([*RUN, "--device", "odroid-xu4"], "--device counts joules"),
        ([*RUN, "--device", "odroid", "--radio", "4g"], "odroid-xu4"),
        ([*RUN, "--power", "compute=1,idle=1"], "--radio"),
        ([*RUN, "--power", "compute=nan,idle=1", "--radio", "4g"], "compute"),
        ([*RUN, "--power", "base=1,up=1,down=1"], "--power counts joules"),
        ([*RUN, "--radio", "5g"], "--radio"),
        ([*RUN, "--stay", "10min"], "--stay counts joules"),
        ([*RUN, "--stay", "soon", *POWER], "--stay"),
        ([*RUN, "--stay", "10min", "--precision", "progressive", *POWER], "--stay"),
        ([*RUN, "--queries-per-hour", "nan"], "--queries-per-hour"),
        (["ps", "--edge", "box:port"], "port"),
        (["devices", "--state", "/dev/nowhere"], "no such directory"),
        (["edge", "devices", "--state", "/dev/nowhere"], "no such directory"),
        (["demo", "--out", "/dev/null/out"], "--out"),
        (["profile", "--network", "./mine.pt"], "package.module:factory"),
        (["demo", "--device-slowdown", "0.5"], "device-slowdown"),
        (["demo", "--precision", "rough"], "progressive"),
        (["no-such-command"], "no-such-command"),
    ],
)
def test_mistakes_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    said: str,
) -> None:
    text = mistake(monkeypatch, capsys, *args)
    assert said in text
    assert "Traceback" not in text
