"""Numbers in, plans out: where a query's layers run, and in which order weights are uploaded.

Knows neither torch nor sockets nor clocks.
"""

from planner.codings import CutCoding, choose_codings
from planner.correction import Correction
from planner.costs import LayerCosts, Link
from planner.predictor import Predictor, Sample
from planner.prices import Placement, Prices, Where, cheapest_path, latency_prices
from planner.progressive import (
    NOISE,
    Plane,
    ProgressivePlan,
    ProgressiveTimeline,
    progressive_plan,
    progressive_timeline,
)
from planner.route import Range, Route, route
from planner.timeline import Point, Timeline, timeline
from planner.upload import UploadPlan, upload_plan

__all__ = [
    "NOISE",
    "Correction",
    "CutCoding",
    "LayerCosts",
    "Link",
    "Placement",
    "Plane",
    "Point",
    "Predictor",
    "Prices",
    "ProgressivePlan",
    "ProgressiveTimeline",
    "Range",
    "Route",
    "Sample",
    "Timeline",
    "UploadPlan",
    "Where",
    "cheapest_path",
    "choose_codings",
    "latency_prices",
    "progressive_plan",
    "progressive_timeline",
    "route",
    "timeline",
    "upload_plan",
]
