"""One call of torch.export, set up so that the result computes what the eager module computes."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from layergraph.errors import UnsupportedOperator
from layergraph.torch_says import torch_aside


@contextlib.contextmanager
def slow_attention() -> Iterator[None]:
    """Eager modules without the fused transformer layer, which rounds otherwise than its parts."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def export_program(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> ExportedProgram:
    """The model as composite ATen operators.

    Raises UnsupportedOperator with the place and a remedy.
    """
    model.eval()
    try:
        with slow_attention(), torch.no_grad(), warnings.catch_warnings(), torch_aside():
            # Export warns about its own internals; what matters to us raises.
            warnings.simplefilter("ignore")
            program: ExportedProgram = torch.export.export(
                model, tuple(args), dict(kwargs), strict=False
            )
            return program
    # Export fails with dozens of types from many modules, none of them public.
    except Exception as error:
        raise UnsupportedOperator(_explain(model, error)) from error


def decompose(program: ExportedProgram) -> ExportedProgram:
    """The program without in-place operators, at the price of less familiar ones."""
    with warnings.catch_warnings(), torch_aside():
        warnings.simplefilter("ignore")
        decomposed: ExportedProgram = program.run_decompositions({})
        return decomposed


_GUARD = "GuardOnDataDependentSymNode"
_DATA_DEPENDENT = (_GUARD, "UserError", "DataDependentOutputException")


def _explain(model: nn.Module, error: Exception) -> str:
    where = _where(model, error)
    causes = list(_chain(error))
    text = next((line for line in str(error).splitlines() if line.strip()), "")[:300].rstrip(" .")
    names = {type(cause).__name__ for cause in causes}
    dependent = names & set(_DATA_DEPENDENT) or any(
        "data-dependent" in str(cause).lower() for cause in causes
    )
    if dependent:
        # A guard's text is of torch's own symbols, which are not in the model.
        said = "" if _GUARD in names else f" ({text})"
        return (
            f"data-dependent control flow at {where}: what runs next depends on a tensor's"
            f" values{said}. Use torch.where, or offload the part of the model before it"
        )
    if "not a known type" in str(error):
        what = text.partition(", which is not a known type")[0]
        return (
            f"the model takes or returns a structure that torch does not know: {what}. Register"
            " it with torch.export.register_dataclass, or return a tuple or dict"
        )
    return (
        f"the model cannot be captured: {type(error).__name__} at {where}: {text}."
        " Check that model(*args, **kwargs) itself runs, or offload a submodule that captures"
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _where(model: nn.Module, error: Exception) -> str:
    """The innermost module of the model whose forward was running, with file and line."""
    names = {id(module): name for name, module in model.named_modules()}
    found = f"model ({type(model).__name__})"
    for cause in reversed(list(_chain(error))):
        for frame, line in _frames(cause):
            owner = frame.f_locals.get("self")
            if isinstance(owner, nn.Module) and id(owner) in names:
                name = names[id(owner)]
                path = f"model.{name}" if name else "model"
                code = inspect.getframeinfo(frame, context=0)
                if "/torch/nn/modules/module.py" in code.filename:
                    continue
                found = f"{path} ({type(owner).__name__}, {code.filename}:{line})"
    return found


def _frames(error: BaseException) -> Iterator[tuple[Any, int]]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next
