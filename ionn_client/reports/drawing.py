"""Matplotlib, for files only, and without a word about where it keeps its own."""

# ruff: noqa: E402

import logging

# It warns, when it is imported, of a home directory that cannot be written to, and does without.
logging.getLogger("matplotlib").setLevel(logging.ERROR)

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as pyplot
from matplotlib.axes import Axes as Axes
from matplotlib.patches import Patch as Patch
from matplotlib.patches import Rectangle as Rectangle
