"""Routes by an objective, within a ration, through a session: joules asked, drawn and left."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ionn_client import Battery, Options
from ionn_client.activations import Activations
from ionn_client.machine import events
from ionn_client.machine.forecast import Forecast
from ionn_client.machine.routing import Routing
from planner import (
    CutCoding,
    LayerCosts,
    Link,
    Objective,
    Power,
    Radio,
    mobile_energy,
    query_energy_J,
    route,
    upload_energy_J,
)
from tests.ionn_client.test_forecast import PREDICTOR, ROOMY
from tests.ionn_client.test_session import LAYERS, Bench, X, answer_on_edge, only, sent
from tests.planner.tables import costs_and_links, powers
from wire import messages

LINK = Link(1e6, 1e6, 0.01)
FRUGAL = Power(10.0, 1.0, Radio(1e-7, 1e-7, 0.1))  # sending is cheap
HUNGRY = Power(1.0, 0.0, Radio(0.0, 0.0, 1e6))  # sending is dear


def bench(objective: Objective, battery: Battery | None = None) -> Bench:
    options = Options(assumed_link=LINK, replan=False, objective=objective, battery=battery)
    made = Bench(options)
    made.session.context.forecast = Forecast(made.graph, [1.0] * LAYERS, objective=objective)
    made.upload_all()
    return made


def asked(made: Bench, number: int = 0) -> list[events.Command]:
    return made.step(events.QueryAsked(number, (X,), None))


@given(costs_and_links(), powers(), st.integers(0, 60))
def test_a_ration_is_kept_where_it_can_be_and_else_the_least_is_drawn(
    table: tuple[LayerCosts, Link], power: Power, most_J: float
) -> None:
    costs, link = table
    everything = frozenset(range(len(costs)))
    found = Routing(Objective(power=power), link, most_J).best(costs, everything)
    least = route(costs, link, everything, mobile_energy(power))
    assert found.energy_J is not None
    assert least.energy_J is not None
    assert found.energy_J <= max(most_J, least.energy_J) * (1 + 1e-8)
    assert found.energy_J == pytest.approx(query_energy_J(costs, link, power, found.placement))
    if most_J >= least.energy_J:
        assert found.latency_s <= least.latency_s + 1e-9


def test_a_session_minimises_what_it_is_told_to() -> None:
    fast = bench(Objective(power=HUNGRY))
    (message,) = sent(asked(fast))
    assert (message.start, message.stop) == (0, LAYERS)
    thrifty = bench(mobile_energy(HUNGRY))
    assert only(asked(thrifty), events.RunRange).stop == LAYERS
    assert "draw more" in thrifty.session.explanation()


def test_an_answer_tells_its_joules() -> None:
    made = bench(Objective(power=FRUGAL))
    expected = made.session.route("exact")
    (message,) = sent(asked(made))
    answer = only(made.hear(answer_on_edge(made, message), 0.01), events.FinishQuery).answer
    assert answer.energy_J == expected.energy_J
    assert 0 < answer.energy_J < LAYERS * FRUGAL.compute_W
    assert " J" in made.session.explanation()


def test_without_a_power_nobody_knows_joules() -> None:
    made = bench(Objective())
    (message,) = sent(asked(made))
    answer = only(made.hear(answer_on_edge(made, message), 0.01), events.FinishQuery).answer
    assert answer.energy_J is None
    assert made.session.queries.rations.left_J is None


def test_before_any_edge_a_query_draws_what_computing_draws() -> None:
    made = Bench(Options(objective=Objective(power=FRUGAL)))
    made.session.context.forecast = Forecast(
        made.graph, [1.0] * LAYERS, objective=Objective(power=FRUGAL)
    )
    run = only(asked(made), events.RunRange)
    answer = only(made.local(run), events.FinishQuery).answer
    assert answer.energy_J == LAYERS * FRUGAL.compute_W


def test_queries_stay_within_the_battery_and_the_fastest_way_while_it_lasts() -> None:
    # A query here draws 3 J; one there about 96 J, in some microseconds of sending.
    power = dataclasses.replace(HUNGRY, radio=Radio(0.0, 0.0, 96.0 / 64e-6))
    made = bench(Objective(power=power), Battery(120.0, 10))
    answers = []
    for number in range(10):
        commands = asked(made, number)
        if messages_sent := sent(commands):
            done = made.hear(answer_on_edge(made, messages_sent[0]), 0.01)
        else:
            done = made.local(only(commands, events.RunRange))
        answers.append(only(done, events.FinishQuery).answer)
    left_J = made.session.queries.rations.left_J
    assert left_J == pytest.approx(120 - sum(answer.energy_J for answer in answers))
    assert left_J is not None
    assert left_J >= 0
    assert {answer.served_by for answer in answers} == {"client", "edge"}


def test_a_battery_that_is_too_small_takes_the_least_hungry_way() -> None:
    made = bench(Objective(power=FRUGAL), Battery(1e-6, 1))
    least = Forecast(made.graph, [1.0] * LAYERS, objective=mobile_energy(FRUGAL))
    (message,) = sent(asked(made))
    assert message.stop == LAYERS  # computing draws ten times as much as waiting
    left_J = made.session.queries.rations.left_J
    assert left_J is not None
    assert left_J < 0
    assert least.local_route().energy_J == LAYERS * FRUGAL.compute_W


def test_what_was_sent_in_vain_is_drawn_too() -> None:
    made = bench(Objective(power=FRUGAL), Battery(1000.0, 2))
    (message,) = sent(asked(made))
    link, size = made.session.link, sum(memoryview(t.data).nbytes for t in message.tensors)
    run = only(made.hear(messages.Error("failed", "out of luck", 0)), events.RunRange)
    answer = only(made.local(run), events.FinishQuery).answer
    local_J = made.session.forecast.local_s() * FRUGAL.compute_W
    vain_J = upload_energy_J(size, link, FRUGAL)
    assert vain_J > 0
    assert answer.energy_J == pytest.approx(local_J + vain_J, rel=1e-3)
    assert made.session.queries.rations.left_J == pytest.approx(1000 - answer.energy_J)


def test_one_loss_is_chosen_by_the_objective() -> None:
    cut = (CutCoding("raw", 1000.0, 0, 0), CutCoding("affine8", 100.0, 0, 0))
    errors = {(number, "affine8"): 0.01 for number in range(LAYERS + 1)}
    codings = Activations((cut,) * (LAYERS + 1), errors)
    link = Link(1e3, 1e6, 0.0)
    for power in (FRUGAL, HUNGRY):
        made = Forecast(
            bench(Objective()).graph, [2.0, 1e-9, 2.0], codings, 0.02, mobile_energy(power)
        )
        found = made.route(link, frozenset(range(LAYERS)))
        assert found.energy_J is not None
        local_J = made.local_route().energy_J
        assert local_J is not None
        assert found.energy_J <= local_J
        assert ("edge" in found.placement) == (power is FRUGAL)


def test_of_routes_with_one_loss_one_within_the_ration_comes_first() -> None:
    cut = (CutCoding("raw", 1000.0, 0, 0), CutCoding("affine8", 100.0, 0, 0))
    errors = {(number, "affine8"): 0.01 for number in range(LAYERS + 1)}
    codings = Activations((cut,) * (LAYERS + 1), errors)
    # The edge lacks the middle layer: a second crossing is without loss, and draws 1 J.
    link, there = Link(1e3, 1e6, 0.0), frozenset({0, 2})
    power = Power(0.0, 0.0, Radio(0.0, 0.0, 1.0))
    made = Forecast(bench(Objective()).graph, [2.0] * LAYERS, codings, 0.02, Objective(power=power))
    made.meet_edge(PREDICTOR, ROOMY)
    free = made.route(link, there)
    assert free.placement == ("edge", "client", "edge")
    assert free.energy_J == pytest.approx(1.1, abs=0.05)
    rationed = made.route(link, there, most_J=0.5)
    assert rationed.placement == ("edge", "client", "client")
    assert rationed.energy_J == pytest.approx(0.1, abs=0.05)
    assert made.route(link, there, most_J=2.0) == free
