"""Layer costs as the papers predict them: one small regression per layer type.

Neurosurgeon (Y. Kang et al., ASPLOS 2017, section 5.1) regresses each type on its configuration,
with "either a logarithmic or linear function", the logarithmic one "to model the performance
plateau as the computation requirement of the layer approaches the limit of the available hardware
resources", in GFLOPS. Its variables, x1 and x2:

    convolution                 x1 = elements of the input, x2 = (filter side / stride)^2 * filters
    local, pooling              x1 = input size, x2 = output size
    fully connected             x1 = input neurons, x2 = output neurons
    softmax, argmax             as fully connected
    activation, normalisation   x1 = input size

    linear:       cost = a + b1 x1 + b2 x2
    logarithmic:  operations / cost = a + b1 log x1 + b2 log x2

IONN (Jeong et al., SoCC 2018, section 4 and Table 3) fits such functions to 11 types when it is
installed, and gives their R^2 and RMSE; here: the linear ones for all of its types.

The sentences in quotation marks are the paper's; which type takes which function is not said, so
the better one on the samples is taken. The variables, and all that is said of IONN, are from
memory. Types that the papers have not got take the variables of the nearest one that they have.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from planner.predictor import Sample
from planner.work import Work

Variables: TypeAlias = tuple[float, ...]
Function: TypeAlias = Literal["linear", "logarithmic"]
_ELEMENT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Regression:
    """One type's function and its coefficients (a, b1, ...)."""

    function: Function
    coefficients: tuple[float, ...]

    def predict(self, work: Work) -> float:
        """The cost of an operator; not below 0, which the papers' functions can be."""
        terms = (1.0, *_terms(self.function, variables(work)))
        value = sum(c * x for c, x in zip(self.coefficients, terms, strict=True))
        if self.function == "linear":
            return max(value, 0.0)
        return work.flops / value if value > 0 else 0.0


@dataclass(frozen=True, slots=True)
class PublishedPredictor:
    """One regression per layer type, in the unit of the samples that it was fitted to."""

    regressions: Mapping[str, Regression]

    @classmethod
    def fit(
        cls, samples: Iterable[Sample], functions: Sequence[Function] = ("linear", "logarithmic")
    ) -> PublishedPredictor:
        """Ordinary least squares per type: Neurosurgeon's, or IONN's with only "linear".

        Of samples with several operators only those are used that have one of their own. Raises
        ValueError without samples or functions.
        """
        by_type: defaultdict[str, list[tuple[Work, float]]] = defaultdict(list)
        for sample in samples:
            if len(sample.work) == 1:
                by_type[_type(sample.work[0])].append((sample.work[0], sample.cost))
        if not by_type or not functions:
            raise ValueError("a predictor needs at least one sample and one function")
        return cls({name: _best(pairs, functions) for name, pairs in sorted(by_type.items())})

    def cost(self, work: Iterable[Work]) -> float:
        """The sum over a layer's operators; a type never measured costs nothing."""
        return sum(
            self.regressions[_type(each)].predict(each)
            for each in work
            if _type(each) in self.regressions
        )


def variables(work: Work) -> Variables:
    """The published variables of an operator's type."""
    return _VARIABLES.get(_type(work), _in_and_out)(work)


def _type(work: Work) -> str:
    return work.kind.partition("/")[0]


def _convolution(work: Work) -> Variables:
    return (
        work.read_bytes / _ELEMENT_BYTES,
        work.window / work.stride * work.columns * work.batch,
    )


def _fully_connected(work: Work) -> Variables:
    return work.inner, work.columns


def _in_and_out(work: Work) -> Variables:
    return work.read_bytes / _ELEMENT_BYTES, work.made_bytes / _ELEMENT_BYTES


def _size(work: Work) -> Variables:
    return (work.read_bytes / _ELEMENT_BYTES,)


_VARIABLES: dict[str, Callable[[Work], Variables]] = {
    "conv": _convolution,
    "depthwise_conv": _convolution,
    "transposed_conv": _convolution,
    "linear": _fully_connected,
    "recurrent": _fully_connected,
    "norm": _size,
    "elementwise": _size,
}


def _terms(function: Function, values: Variables) -> Variables:
    if function == "linear":
        return values
    return tuple(math.log(max(value, 1.0)) for value in values)


def _best(pairs: Sequence[tuple[Work, float]], functions: Sequence[Function]) -> Regression:
    costs = np.array([cost for _, cost in pairs])

    def squared_error(regression: Regression) -> float:
        return float(((np.array([regression.predict(w) for w, _ in pairs]) - costs) ** 2).sum())

    # What does no operations has no performance to model.
    may = [f for f in functions if f == "linear" or all(work.flops for work, _ in pairs)]
    return min((_fitted(function, pairs) for function in may or functions), key=squared_error)


def _fitted(function: Function, pairs: Sequence[tuple[Work, float]]) -> Regression:
    terms = np.array([(1.0, *_terms(function, variables(work))) for work, _ in pairs])
    target: NDArray[np.float64] = np.array(
        [cost if function == "linear" else work.flops / cost for work, cost in pairs]
    )
    scale = np.abs(terms).max(axis=0)
    scale[scale == 0] = 1.0
    solution = np.linalg.lstsq(terms / scale, target, rcond=None)[0] / scale
    return Regression(function, tuple(solution.tolist()))
