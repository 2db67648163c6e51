"""Numbers in, plans out: where a query's layers run, and in which order weights are uploaded.

Knows neither torch nor sockets nor clocks.
"""

from planner.changes import Change
from planner.codings import CutCoding, choose_codings
from planner.correction import Correction
from planner.costs import LayerCosts, Link
from planner.explain import Explanation, explain
from planner.grouped import RangeTimes, fit_ranges, range_tilings
from planner.ilp import ilp_placement
from planner.jointdnn import grouped_price, jointdnn_placement
from planner.larac import LaracPath, larac, larac_path
from planner.local_ilp import LocalSplit, limited_route, split_layers
from planner.local_offloading import LocalCosts, LocalRoute, Processor, Resources, local_route
from planner.neurosurgeon import Split, neurosurgeon
from planner.objective import (
    LATENCY,
    Infeasible,
    Limit,
    Objective,
    battery,
    deadline,
    edge_time,
    mobile_energy,
)
from planner.payback import Payback, payback, worth_uploading
from planner.power import (
    LINKS,
    RADIOS,
    Power,
    Radio,
    energy_prices,
    hourly_energy_J,
    query_energy_J,
    upload_energy_J,
)
from planner.predictor import Predictor, Sample
from planner.prices import Placement, Prices, Where, cheapest_path, latency_prices
from planner.progressive import (
    PRECISION_NOISE,
    Plane,
    ProgressivePlan,
    ProgressiveTimeline,
    progressive_plan,
    progressive_timeline,
)
from planner.published_predictor import PublishedPredictor
from planner.reasons import Reason
from planner.region import Region
from planner.residual import TensorPrices, residual_placement, tensor_prices
from planner.route import Range, Route, priced, route, route_within
from planner.schedule_cache import Cached, OutsideCache, ScheduleCache
from planner.timeline import Point, Timeline, timeline
from planner.training import TrainingCosts, TrainingPrices, training_costs, training_placement
from planner.upload import UploadPlan, upload_plan
from planner.work import OperatorWork, Work

__all__ = [
    "LATENCY",
    "LINKS",
    "PRECISION_NOISE",
    "RADIOS",
    "Cached",
    "Change",
    "Correction",
    "CutCoding",
    "Explanation",
    "Infeasible",
    "LaracPath",
    "LayerCosts",
    "Limit",
    "Link",
    "LocalCosts",
    "LocalRoute",
    "LocalSplit",
    "Objective",
    "OperatorWork",
    "OutsideCache",
    "Payback",
    "Placement",
    "Plane",
    "Point",
    "Power",
    "Predictor",
    "Prices",
    "Processor",
    "ProgressivePlan",
    "ProgressiveTimeline",
    "PublishedPredictor",
    "Radio",
    "Range",
    "RangeTimes",
    "Reason",
    "Region",
    "Resources",
    "Route",
    "Sample",
    "ScheduleCache",
    "Split",
    "TensorPrices",
    "Timeline",
    "TrainingCosts",
    "TrainingPrices",
    "UploadPlan",
    "Where",
    "Work",
    "battery",
    "cheapest_path",
    "choose_codings",
    "deadline",
    "edge_time",
    "energy_prices",
    "explain",
    "fit_ranges",
    "grouped_price",
    "hourly_energy_J",
    "ilp_placement",
    "jointdnn_placement",
    "larac",
    "larac_path",
    "latency_prices",
    "limited_route",
    "local_route",
    "mobile_energy",
    "neurosurgeon",
    "payback",
    "priced",
    "progressive_plan",
    "progressive_timeline",
    "query_energy_J",
    "range_tilings",
    "residual_placement",
    "route",
    "route_within",
    "split_layers",
    "tensor_prices",
    "timeline",
    "training_costs",
    "training_placement",
    "upload_energy_J",
    "upload_plan",
    "worth_uploading",
]
