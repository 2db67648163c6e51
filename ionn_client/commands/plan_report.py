"""Everything that `ionn plan` found, as plain values for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ionn_client.commands.problem import Asked, Subject
from ionn_client.reports.comparison import Planned
from ionn_client.reports.explanation import (
    battery_sentence,
    change_sentences,
    explained,
    limit_sentences,
    reason_sentences,
)
from ionn_client.reports.payback_report import StayReport, stay_plain
from ionn_client.reports.schedule_file import Schedules
from ionn_client.reports.training_step import TrainingStep
from ionn_client.reports.upload_orders import UploadOrder
from planner.power import upload_energy_J


def report(
    asked: Asked,
    what: Subject,
    compared: Sequence[Planned],
    orders: Sequence[UploadOrder],
    stays: StayReport | None,
    *,
    explain: bool,
) -> dict[str, Any]:
    """Numbers in seconds, joules, bytes and bytes per second; layers counted from 0."""
    problem = what.problem
    found = _subject(asked, what) | {
        "planners": [_planned(row) for row in compared],
        "schemes": [_order(order) for order in orders],
        "order": [[what.names[i] for i in part] for part in orders[0].plan.partitions],
    }
    if problem.power is not None:
        found["upload_J"] = upload_energy_J(problem.costs.total_bytes, problem.link, problem.power)
    if problem.schedules is not None:
        found["cache"] = _cache(problem.schedules)
    if stays is not None:
        found["payback"] = stay_plain(stays)
    if explain:
        found["explanation"] = _explanation(what)
    return found


def training_report(asked: Asked, what: Subject, step: TrainingStep) -> dict[str, Any]:
    """As `report`; placements are of 2N layers, forward and then backward."""
    steps = step.costs.steps
    rows = [_planned(row) | {"weight_bytes": row.weight_bytes} for row in step.rows]
    backward_s = [
        {"client_s": steps.client_s[-1 - i], "edge_s": steps.edge_s[-1 - i]}
        for i in range(len(steps) // 2)
    ]
    return _subject(asked, what) | {"training": {"planners": rows, "backward": backward_s}}


def _subject(asked: Asked, what: Subject) -> dict[str, Any]:
    problem, graph = what.problem, what.profiled.graph
    costs = problem.costs
    return {
        "network": asked.network,
        "device": what.device,
        "edge": what.edge,
        "asked": dataclasses.asdict(asked),
        "link": dataclasses.asdict(problem.link),
        "power": problem.power and dataclasses.asdict(problem.power),
        "limits": {limit.name: limit.at_most for limit in problem.limits},
        "local_s": float(costs.client_s.sum()),
        "upload_bytes": sum(graph.weight_bytes),
        "layers": [
            {
                "name": what.names[i],
                "client_s": costs.client_s[i],
                "edge_s": costs.edge_s[i],
                "weight_bytes": graph.weight_bytes[i],
                "up_bytes": costs.cut_up_bytes[i],
                "down_bytes": costs.cut_down_bytes[i],
            }
            for i in range(len(costs))
        ],
        "answer_bytes": costs.cut_down_bytes[-1],
    }


def _planned(row: Planned) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "planner": row.planner,
        "method": row.method,
        "planning_cpu_s": row.cpu_s,
        "feasible": row.route is not None,
        "note": row.note,
    }
    if row.route is not None:
        plain |= {
            "latency_s": row.route.latency_s,
            "energy_J": row.route.energy_J,
            "up_bytes": row.up_bytes,
            "down_bytes": row.down_bytes,
            "edge_s": row.edge_s,
            "exceeds": list(row.broken),
            "placement": list(row.route.placement),
            "route": [[part.where, part.start, part.stop] for part in row.route.ranges],
        }
    return plain


def _order(order: UploadOrder) -> dict[str, Any]:
    energy = {} if order.joules is None else {
        "mean_energy_J": order.joules.mean_J,
        "final_energy_J": order.joules.at_points[-1],
        "energies_J": list(order.joules.at_points),
    }  # fmt: skip
    return {
        "scheme": order.name,
        "partitions": len(order.plan.partitions),
        "mean_latency_s": order.line.mean_latency_s,
        "final_latency_s": order.line.points[-1].latency_s,
        "points": [[point.time_s, point.latency_s] for point in order.line.points],
        "layers": list(order.plan.layers),
        **energy,
    }


def _cache(schedules: Schedules) -> dict[str, Any]:
    cache, here = schedules.cache, schedules.lookup()
    return {
        "file": str(schedules.path),
        "solved_cpu_s": schedules.solved_s,
        "cells": cache.cells,
        "schedules": cache.schedules,
        "region": {name: list(ends) for name, ends in cache.region.ranges.items()},
        "regret_bound": cache.regret,
        "here": {"price": here.price, "regret_bound": here.regret},
    }


def _explanation(what: Subject) -> dict[str, Any]:
    problem, names = what.problem, what.names
    found = explained(problem)
    told = battery_sentence(problem, found.placement, names)
    return {
        "reasons": [dataclasses.asdict(reason) for reason in found.reasons],
        "changes": [dataclasses.asdict(change) for change in found.changes],
        "sentences": [
            *reason_sentences(found, names, problem.objective),
            *change_sentences(found, names),
            *limit_sentences(problem, found.placement),
            *([told] if told else []),
        ],
    }
