"""The operator table itself."""

from __future__ import annotations

import pytest
import torch

from layergraph.binding import _SCALARS
from layergraph.ops import KINDS, OPERATORS


def test_names_are_those_of_the_overloads() -> None:
    assert all(name == str(operator.overload) for name, operator in OPERATORS.items())
    assert {operator.kind for operator in OPERATORS.values()} | {"depthwise_conv"} == set(KINDS)


@pytest.mark.parametrize("name", OPERATORS)
def test_no_operator_writes_aliases_at_will_or_draws_unchecked(name: str) -> None:
    operator = OPERATORS[name]
    assert not operator.overload._schema.is_mutable
    assert not any(word in name for word in ("empty", "as_strided", "from_file", "resize", "set_"))
    assert not name.startswith("aten._native")
    # What can draw random numbers has a validator that refuses it, or draws none at all.
    if torch.Tag.nondeterministic_seeded in operator.overload.tags:
        assert operator.check is not None


def test_every_argument_type_can_be_checked() -> None:
    for operator in OPERATORS.values():
        for parameter in operator.parameters:
            kind = parameter.type
            while kind.startswith(("Optional[", "List[")):
                kind = kind.partition("[")[2][:-1]
            assert kind in _SCALARS, (operator.name, parameter)
