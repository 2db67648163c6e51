"""Numbers in, plans out: where a query's layers run, and in which order weights are uploaded.

Knows neither torch nor sockets nor clocks.
"""

from planner.correction import Correction
from planner.costs import LayerCosts, Link
from planner.predictor import Predictor, Sample
from planner.route import Range, Route, route
from planner.timeline import Point, Timeline, timeline
from planner.upload import UploadPlan, upload_plan

__all__ = [
    "Correction",
    "LayerCosts",
    "Link",
    "Point",
    "Predictor",
    "Range",
    "Route",
    "Sample",
    "Timeline",
    "UploadPlan",
    "route",
    "timeline",
    "upload_plan",
]
