"""Cost tables for the planner's tests: random but shaped like networks, from a seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from planner import LayerCosts, Link, Power, Prices, Radio, route

SHAPES = ("classifier", "autoencoder", "perceptron", "residual", "random")
LINKS = tuple(Link(mbits * 125e3, mbits * 125e3, 0.005) for mbits in (5.85, 18.88, 80.0))

seeds = st.integers(0, 2**32 - 1)


def random_costs(seed: int, layers: int, shape: str | None = None) -> LayerCosts:
    """A table of `layers` layers; about a fifth of them have no weights."""
    r = np.random.default_rng(seed)
    shape = shape or SHAPES[seed % len(SHAPES)]
    depth, cut_depth = np.linspace(-1, 1, layers), np.linspace(-1, 1, layers + 1)
    client_s = np.exp(r.normal(0, 0.7, layers))
    noise, cut_noise = r.normal(0, 1, layers), r.normal(0, 0.6, layers + 1)
    if shape == "classifier":  # activations shrink, weights grow
        weights, cuts = 3 * depth + noise, -3 * cut_depth + cut_noise
        weights[-max(1, layers // 8) :] += 2
    elif shape == "autoencoder":  # narrow in the middle
        weights, cuts = -4 * abs(depth) + noise, 4 * abs(cut_depth) + cut_noise
    elif shape == "perceptron":  # time follows weights, activations are tiny
        weights, cuts = 0.7 * noise, -3 + cut_noise
        client_s = np.exp(weights) * client_s**0.3
    elif shape == "residual":
        weights, cuts = 2 * np.round(2 * depth) / 2 + 0.7 * noise, -2 * cut_depth + cut_noise
        weights[r.random(layers) < 0.3] -= 4
    else:
        weights, cuts = 2 * noise, 2.5 * cut_noise
    weight_bytes = np.exp(weights)
    weight_bytes = np.round(weight_bytes / weight_bytes.sum() * 10 ** r.uniform(6.5, 8.3))
    weight_bytes[r.random(layers) < 0.2] = 0
    client_s *= 10 ** r.uniform(-1, 1) / client_s.sum()
    edge_s = client_s / 10 ** r.uniform(0.3, 2) * np.exp(r.normal(0, 0.3, layers))
    cut_bytes = np.round(np.exp(cuts - cuts[0]) * 150e3)
    return LayerCosts(client_s, edge_s, weight_bytes, cut_bytes, cut_bytes[::-1])


def encoder_decoder_costs(seed: int, layers: int) -> LayerCosts:
    """A network with skip connections: cuts are widest in the middle, and so are the weights."""
    r = np.random.default_rng(seed)
    depth, cut_depth = np.linspace(-1, 1, layers), np.linspace(-1, 1, layers + 1)
    weights = np.exp(-r.uniform(2, 6) * abs(depth) + r.normal(0, 0.5, layers))
    weight_bytes = np.round(weights / weights.sum() * 10 ** r.uniform(7, 8.5))
    client_s = np.exp(r.normal(0, 0.5, layers))
    client_s *= 10 ** r.uniform(-1, 1.3) / client_s.sum()
    plateau = np.clip(1 - abs(cut_depth), 0, r.uniform(0.1, 0.9))
    cuts = np.exp(r.uniform(0, 5) * plateau + r.normal(0, 0.2, layers + 1))
    cut_bytes = np.round(cuts * 200e3)
    edge_s = client_s / 10 ** r.uniform(0.3, 2)
    return LayerCosts(client_s, edge_s, weight_bytes, cut_bytes, cut_bytes[::-1])


def with_coding(costs: LayerCosts, seed: int) -> LayerCosts:
    """The same table where crossing a cut also takes about as long to code as to send."""
    r = np.random.default_rng(seed)
    up_s, down_s = r.exponential(1e-6, (2, len(costs) + 1))
    return replace(
        costs, cut_up_s=up_s * costs.cut_up_bytes, cut_down_s=down_s * costs.cut_down_bytes
    )


@st.composite
def costs_and_links(draw: st.DrawFn, least: int = 0, most: int = 8) -> tuple[LayerCosts, Link]:
    """Tables with small whole numbers, so that ties and zeros are common."""
    n = draw(st.integers(least, most))

    def numbers(count: int, largest: int) -> list[int]:
        return draw(st.lists(st.integers(0, largest), min_size=count, max_size=count))

    table = (numbers(n, 9), numbers(n, 4), numbers(n, 6), numbers(n + 1, 9), numbers(n + 1, 9))
    coding = {"cut_up_s": numbers(n + 1, 2), "cut_down_s": numbers(n + 1, 2)}
    link = Link(draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.sampled_from((0, 1, 2))))
    return LayerCosts(*table, **coding), link


@st.composite
def powers(draw: st.DrawFn) -> Power:
    """Powers of small whole numbers; the radio may draw nothing."""
    watts = st.integers(0, 6)
    return Power(draw(watts), draw(watts), Radio(draw(watts), draw(watts), draw(watts)))


@st.composite
def several_prices(
    draw: st.DrawFn, criteria: int = 1, least: int = 0, most: int = 8
) -> list[Prices]:
    """Prices of one model by several measures, of small whole numbers: ties are common."""
    n = draw(st.integers(least, most))

    def numbers(count: int, largest: int) -> list[int]:
        return draw(st.lists(st.integers(0, largest), min_size=count, max_size=count))

    return [
        Prices(numbers(n, 9), numbers(n, 5), numbers(n + 1, 9), numbers(n + 1, 9))
        for _ in range(criteria)
    ]


def all_sides(n: int) -> np.ndarray:
    """(2^n, n): every placement, True where the edge runs the layer."""
    return (np.arange(2**n)[:, None] >> np.arange(n)[None, :] & 1).astype(bool)


def all_sums(prices: Prices) -> np.ndarray:
    """(2^n): what every placement of `all_sides` costs, written out anew."""
    there = all_sides(len(prices))
    at_cuts = np.pad(there, ((0, 0), (1, 1)))
    return (
        np.where(there, prices.edge, prices.client).sum(axis=1)
        + ((~at_cuts[:, :-1] & at_cuts[:, 1:]) * prices.up).sum(axis=1)
        + ((at_cuts[:, :-1] & ~at_cuts[:, 1:]) * prices.down).sum(axis=1)
    )


def naive_efficiency(costs, link):
    """The definition, block by block: every run of missing layers priced with a shortest path.

    A block's price is the best route that runs all of it on the edge; making the client
    forbiddingly slow inside the block forces that.
    """
    uploaded, missing, order = set(), list(costs.weighted), []

    def forced_s(run):
        # Only the layers themselves are forced; a block's weightless layers may run anywhere, but
        # leaving the edge for them is never needed for the best block.
        client_s = costs.client_s.copy()
        client_s[run[0] : run[-1] + 1] = 1e9
        slow = replace(costs, client_s=client_s)
        return route(slow, link, uploaded | set(run)).latency_s

    while missing:
        now = route(costs, link, uploaded).latency_s
        best, block = 0.0, None
        for first in range(len(missing)):
            for last in range(first, len(missing)):
                run = missing[first : last + 1]
                saved = now - forced_s(run)
                if saved > 1e-11 * now and saved / costs.weight_bytes[run].sum() > best:
                    best, block = saved / costs.weight_bytes[run].sum(), (first, last + 1)
        if block is None:
            break
        run = missing[slice(*block)]
        order.append(set(run))
        uploaded |= set(run)
        missing = missing[: block[0]] + missing[block[1] :]
    return order
