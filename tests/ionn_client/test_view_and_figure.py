"""What a person looks at: the live view as text, the figure from a run's JSONL."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from ionn_client import Status
from ionn_client.commands.run import summary
from ionn_client.reports import figure
from ionn_client.reports.view import View, layer_cells, progress_line, query_line
from ionn_client.scenario import Asked, mean_over_time_s, same_top
from planner import Link, Range


def status(phase: str = "uploading", **changes: object) -> Status:
    fields: dict[str, object] = {
        "phase": phase, "edge": "ionn://box:7431", "uploaded_layers": 2, "exact_layers": 2,
        "weighted_layers": 5,
        "held_bytes": 40_000_000, "total_bytes": 100_000_000, "sent_bytes": 40_000_000,
        "skipped_bytes": 0, "resent_bytes": 0, "partitions_done": 1, "partitions": 4,
        "link": Link(1e7, 1e7, 0.005), "rate_Bps": 1e7, "time_left_s": 6.0,
        "route": (Range("client", 0, 3), Range("edge", 3, 8)), "reason": "edge runs conv3..fc8",
        "predicted_latency_s": 0.4, "local_latency_s": 1.3, "error": None,
    }  # fmt: skip
    return Status(**{**fields, **changes})  # type: ignore[arg-type]


def asked(time_s: float = 1.0, latency_s: float = 0.4, reason: str | None = None) -> Asked:
    ranges = (("client", 0, 3), ("edge", 3, 8))
    return Asked(time_s, latency_s, 0.41, "both", ranges, reason, 0.0, "uploading")


def test_the_progress_line_says_partition_bytes_rate_and_time_left() -> None:
    assert progress_line(status()) == ("partition 2/4, 40.0 MB of 100.0 MB, 80.0 Mbit/s, 6 s left")
    assert "were there already" in progress_line(status(skipped_bytes=1_000_000))
    exposed = progress_line(status("ready", exposed_bytes=2_000_000))
    assert "2.0 MB of kept layers are there from before (ionn forget deletes them)" in exposed
    assert "2 of 3 layers exact" in progress_line(status(uploaded_layers=3))
    assert progress_line(status("ready", time_left_s=None)).startswith("all 4 partitions")
    assert progress_line(status("ready", partitions=0)).startswith("nothing to upload, 40.0 MB")
    assert progress_line(status("connecting")) == "connecting"
    assert progress_line(status("connecting", error="disk full")) == "trying again (disk full)"
    said = status("greeting", error="disk full", reason="all here: disk full")
    assert progress_line(said) == "trying again", "the reason is told beside it"
    assert progress_line(status("rejected", error="too large")) == "rejected (too large)"


@pytest.mark.parametrize("terminal", [False, True])
def test_what_others_call_themselves_is_no_markup(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=terminal)
    with View("with [/b]", console) as view:
        view.show(status("connecting", error="[/b] closes the door", reason="[/b]"), [])
        view.show(status("rejected", error="[/b] said no"), [])
    assert "[/b] said no" in text.getvalue(), "a new phase is told at once"


def test_the_query_line_says_latency_place_prediction_and_fallback() -> None:
    assert query_line([]) == "no query yet"
    line = query_line([asked(latency_s=0.2), asked(latency_s=0.4, reason="edge gone")])
    assert line == (
        "query 2: 400 ms on client and edge (predicted 410 ms), mean 300 ms; fell back: edge gone"
    )


def test_what_is_small_is_not_shown_as_nothing() -> None:
    quick = dataclasses.replace(asked(latency_s=0.0004), predicted_s=0.0072)
    assert "400 µs on client and edge (predicted 7.20 ms), mean 400 µs" in query_line([quick])
    small = progress_line(status(held_bytes=5_400, total_bytes=1_700_000))
    assert small.startswith("partition 2/4, 5.40 KB of 1.7 MB, ")
    assert progress_line(status(held_bytes=0)).startswith("partition 2/4, 0 B of 100.0 MB, ")


def test_the_query_line_says_when_an_answer_is_not_exact() -> None:
    rough = dataclasses.replace(asked(), precision="bfloat16")
    assert query_line([rough]).endswith("mean 400 ms, at bfloat16")
    lossy = dataclasses.replace(rough, lossy=True)
    assert query_line([lossy]).endswith("at bfloat16, its tensors coded with loss")


def test_joules_are_told_where_they_are_known() -> None:
    drawn = dataclasses.replace(asked(), energy_J=0.5)
    rationed = dataclasses.replace(drawn, battery_J=3.25)
    assert query_line([drawn]).endswith("mean 400 ms, 500 mJ")
    assert query_line([rationed]).endswith("mean 400 ms, 500 mJ (3.25 J of the battery left)")
    assert summary([drawn, drawn]).endswith("The device drew 1.00 J, 500 mJ a query.")
    assert summary([drawn, rationed]).endswith("500 mJ a query; 3.25 J of the battery are left.")
    over = dataclasses.replace(drawn, battery_J=-0.1)
    assert summary([drawn, over]).endswith("a query: 100 mJ more than the battery had.")


def test_the_summary_of_a_run_keeps_apart_what_was_coded_with_loss() -> None:
    lossy = dataclasses.replace(asked(), lossy=True, difference=0.012)
    text = summary([asked(), lossy, dataclasses.replace(asked(), difference=1.0)])
    assert "3 queries, mean 400 ms, last 400 ms on client and edge" in text
    assert "1 of 2 exact answers equal the local model's; 1 were coded with loss" in text
    assert text.endswith("off by at most 0.012 of the largest element.")
    assert summary([asked()]).startswith("1 query, mean")
    assert summary([asked()]).endswith("1 of 1 exact answers equal the local model's.")


@pytest.mark.parametrize(
    ("precision", "difference", "wrong"),
    [("exact", 0.0, False), ("exact", 1e-2, True), ("float8", 1e-2, False)],
)
def test_only_an_answer_that_claims_to_be_exact_can_be_wrong(
    precision: str, difference: float, wrong: bool
) -> None:
    answer = dataclasses.replace(asked(), precision=precision, difference=difference)
    assert answer.wrong == wrong
    assert not dataclasses.replace(answer, lossy=True).wrong


def test_the_first_choice_is_compared() -> None:
    one, other = torch.tensor([0.1, 0.9]), torch.tensor([0.6, 0.5])
    assert same_top({"y": one}, {"y": one + 1})
    assert not same_top({"y": other}, {"y": one})
    assert not same_top(one, torch.zeros(3))
    assert same_top(3, 3)


def test_cells_show_where_each_layer_runs() -> None:
    assert layer_cells(status(), 48).plain.startswith("▁▁▁▇▇▇▇▇")
    assert layer_cells(status(), 4).plain.startswith("▁▁▇▇")


@pytest.mark.parametrize("terminal", [True, False])
def test_the_view_shows_everything_on_a_terminal_and_in_plain_lines(terminal: bool) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    with View("demo", console) as view:
        view.show(status(), [asked()])
    shown = text.getvalue()
    for part in ("partition 2/4", "edge runs conv3..fc8", "query 1: 400 ms"):
        assert part in shown


def test_a_quiet_view_prints_nothing() -> None:
    text = io.StringIO()
    with View("demo", Console(file=text), quiet=True) as view:
        view.show(status(), [asked()])
    assert text.getvalue() == ""


def test_the_mean_weighs_time_not_queries() -> None:
    # 1 s until t=5, then 0.1 s: many more queries fit into the second half.
    slow = [asked(t, 1.0) for t in (0.5, 2.0, 3.5, 4.999)]
    fast = [asked(5.0 + 0.1 * k, 0.1) for k in range(1, 60)]
    assert mean_over_time_s([*slow, *fast], 10.0) == pytest.approx(0.55, abs=0.03)
    assert mean_over_time_s([asked(1.0, 0.7)], 10.0) == pytest.approx(0.7)


def test_the_figure_is_drawn_from_the_log(tmp_path: Path) -> None:
    log, picture = tmp_path / "run.jsonl", tmp_path / "run.png"
    records = [
        {"event": "run", "title": "a run"},
        {"event": "forecast", "name": "local", "label": "local", "points": [[0, 1.3], [5, 1.3]]},
        {"event": "uploaded", "time_s": 1.0, "partitions_done": 1, "partitions": 2},
        {"event": "query", "time_s": 1.0, "latency_s": 0.4, "predicted_s": 0.5},
    ]
    log.write_text("".join(json.dumps(record) + "\n" for record in records))
    figure.draw_run(figure.read_records(log), picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    figure.draw_schemes({"ionn": records[-1:]}, {"ionn": "IONN"}, 1.7, "two", picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("text", ["{", "[1]", '{"no": "event"}'])
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    log = tmp_path / "run.jsonl"
    log.write_text('{"event": "run"}\n' + text + "\n")
    with pytest.raises(ValueError, match=r"run\.jsonl:2"):
        figure.read_records(log)
