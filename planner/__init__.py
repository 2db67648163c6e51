"""Numbers in, plans out: where a query's layers run, and in which order weights are uploaded.

Knows neither torch nor sockets nor clocks.
"""

from planner.codings import CutCoding, choose_codings
from planner.correction import Correction
from planner.costs import LayerCosts, Link
from planner.predictor import Predictor, Sample
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
    "Plane",
    "Point",
    "Predictor",
    "ProgressivePlan",
    "ProgressiveTimeline",
    "Range",
    "Route",
    "Sample",
    "Timeline",
    "UploadPlan",
    "choose_codings",
    "progressive_plan",
    "progressive_timeline",
    "route",
    "timeline",
    "upload_plan",
]
