"""Do the joules of uploading come back before the device leaves? What `ionn plan --stay` says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from ionn_client.quantities import byte_count, duration, joules
from ionn_client.reports.comparison import Problem
from planner import UploadPlan, route
from planner.payback import HourExceeded, Payback, payback, worth_uploading
from planner.power import Power, hourly_energy_J, query_energy_J, upload_energy_J


@dataclass(frozen=True, slots=True)
class Choice:
    """Uploading the first `partitions` of an order, and what a stay makes of it.

    upload_bytes: their weights, as coded. upload_s, upload_J: of sending all of them, however
    short the stay. query_s, query_J: of a query once they are there. hour_J: of an hour of such
    queries, with the waiting between them.
    """

    partitions: int
    upload_bytes: float
    upload_s: float
    upload_J: float
    stay: Payback
    query_s: float
    query_J: float
    hour_J: float


@dataclass(frozen=True, slots=True)
class StayReport:
    """A stay near an edge: what uploading nothing, what is worth it, and everything come to."""

    stay_s: float
    queries_per_h: float
    nothing: Choice
    worth: Choice
    everything: Choice

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Those that differ, by how much they upload."""
        found = (self.nothing, self.worth, self.everything)
        return tuple({choice.partitions: choice for choice in found}.values())


def stay_report(
    problem: Problem, plan: UploadPlan, stay_s: float, queries_per_h: float
) -> StayReport:
    """How much of `plan` a stay with so many queries an hour pays for.

    Raises ValueError where the device's power is not known, that names the option where the
    queries take longer than an hour, and for numbers as `planner.payback`.
    """
    power = problem.power
    if power is None:
        raise ValueError("what the device draws is not known, so that nothing can pay back")
    costs, link, objective = problem.costs, problem.link, problem.objective
    asked = stay_s, queries_per_h
    try:
        worth = worth_uploading(costs, link, power, plan, *asked, objective)
    except HourExceeded as error:
        raise ValueError(
            f"--queries-per-hour: at most {error.most_per_h:.4g} of these queries fit into an"
            f" hour, not {queries_per_h:g}"
        ) from None
    prefixes = (UploadPlan(plan.algorithm, ()), worth, plan)
    return StayReport(*asked, *(_choice(problem, power, each, *asked) for each in prefixes))


def _choice(
    problem: Problem, power: Power, plan: UploadPlan, stay_s: float, queries_per_h: float
) -> Choice:
    costs, link, objective = problem.costs, problem.link, problem.objective
    upload_bytes = float(sum(costs.weight_bytes[layer] for layer in plan.layers))
    chosen = route(costs, link, plan.layers, objective)
    query_J = query_energy_J(costs, link, power, chosen.placement)
    return Choice(
        len(plan.partitions),
        upload_bytes,
        upload_bytes / link.up_Bps,
        upload_energy_J(upload_bytes, link, power),
        payback(costs, link, power, plan, stay_s, queries_per_h, objective),
        chosen.latency_s,
        query_J,
        hourly_energy_J(power, query_J, chosen.latency_s, queries_per_h),
    )


def stay_table(report: StayReport) -> Table:
    """The choices as columns."""
    title = f"A stay of {duration(report.stay_s)}, {report.queries_per_h:g} queries an hour"
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD,
        show_edge=False, pad_edge=False,
    )  # fmt: skip
    choices, last = report.choices, report.everything.partitions
    table.add_column("upload")
    for choice in choices:
        of = "nothing" if not choice.partitions else f"{choice.partitions} of {last} partitions"
        is_all = choice is choices[-1] and choice.partitions
        table.add_column("everything" if is_all else of, justify="right", no_wrap=True)
    table.add_row("bytes, as coded", *(byte_count(each.upload_bytes) for each in choices))
    table.add_row("the radio takes", *(joules(each.upload_J) for each in choices))
    table.add_row("  until the device leaves", *(joules(each.stay.spent_J) for each in choices))
    table.add_row("queries save until then", *(joules(each.stay.saved_J) for each in choices))
    table.add_row("balance", *(joules(each.stay.net_J) for each in choices), style="bold")
    table.add_row("pays back in a stay of", *(_break_even(each) for each in choices))
    table.add_row("a query then", *(joules(each.query_J) for each in choices))
    table.add_row("an hour then, with waiting", *(joules(each.hour_J) for each in choices))
    return table


def _break_even(choice: Choice) -> str:
    if not choice.partitions:
        return ""
    moment = choice.stay.break_even_s
    return "never" if moment is None else duration(moment)


def stay_sentence(report: StayReport) -> str:
    """What to upload for this stay."""
    worth, everything = report.worth, report.everything
    if not everything.partitions:
        return "There is nothing to upload."
    wins = f"wins {joules(worth.stay.net_J)} by the end of the stay"
    if worth.partitions == everything.partitions:
        return f"Everything is worth uploading for this stay: that {wins}."
    if not worth.partitions:
        return f"Nothing is worth uploading for this stay. {_everything(everything.stay)}"
    several = f"The first {worth.partitions} of {everything.partitions} partitions are"
    most = "The first partition is" if worth.partitions == 1 else several
    size = byte_count(worth.upload_bytes)
    return f"{most} worth uploading for this stay ({size}): that {wins}. " + _everything(
        everything.stay
    )


def _everything(stay: Payback) -> str:
    if stay.net_J > 0:
        return f"Everything wins {joules(stay.net_J)}."
    if stay.break_even_s is None:
        return "Everything pays back in no stay, however long."
    return f"Everything would pay back in a stay of {duration(stay.break_even_s)}."


def stay_marks(report: StayReport) -> tuple[tuple[float, str], ...]:
    """Moments since the device met the edge, and what they are, for a picture of the upload."""
    found = [(report.stay_s, "the device leaves")]
    if 0 < report.worth.partitions < report.everything.partitions:
        found.append((report.worth.upload_s, "worth uploading until here"))
    if report.worth.partitions and report.worth.stay.break_even_s is not None:
        found.append((report.worth.stay.break_even_s, "its joules are back"))
    return tuple(found)


def stay_plain(report: StayReport) -> dict[str, Any]:
    """For JSON: seconds, joules, bytes."""
    return {
        "stay_s": report.stay_s,
        "queries_per_h": report.queries_per_h,
        **{name: _plain(getattr(report, name)) for name in ("nothing", "worth", "everything")},
        "sentence": stay_sentence(report),
    }


def _plain(choice: Choice) -> dict[str, Any]:
    plain = dataclasses.asdict(choice)
    stay = plain.pop("stay")
    return {**plain, **stay, "net_J": choice.stay.net_J}
