"""A model from its name: ours, a library's, or the caller's own factory.

The libraries are imported when they are asked for, never before. Nothing is downloaded:
weights are drawn from a seed, and torch's global random state is left as it was.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from layergraph.errors import GraphError
from layergraph.networks import NETWORKS


class UnknownModel(GraphError):
    """There is no model of that name here; the message says what to install, or comes close."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in eval mode with example inputs: `model(*args, **kwargs)` runs."""

    name: str
    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def load(name: str, seed: int = 0) -> LoadedModel:
    """The model called `name`, weights drawn from `seed`, with example inputs of batch 1.

    `name` is one of:

    - a network of `layergraph.networks`: "alexnet";
    - "torchvision:resnet18" or "timm:vit_tiny_patch16_224", where that package is installed;
    - "transformers:ViTModel" (a model class), "transformers:ViTConfig" (a configuration class:
      its base model) or "transformers:PATH" (a local config.json, or a directory that has one);
    - "package.module:factory": calls `factory()` for a model, (model, args) or
      (model, args, kwargs). The current directory counts as importable. Runs that code.

    Raises UnknownModel where there is none, with the near matches or what to install.
    """
    source, colon, rest = name.partition(":")
    builders: dict[str, Callable[[str, str], LoadedModel]] = {
        "torchvision": _torchvision,
        "timm": _timm,
        "transformers": _transformers,
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if not colon:
            loaded = _network(name, seed)
        elif source in builders:
            loaded = builders[source](name, rest)
        else:
            loaded = _factory(name, source, rest)
    loaded.model.eval().requires_grad_(False)
    return loaded


def _network(name: str, seed: int) -> LoadedModel:
    info = NETWORKS.get(name)
    if info is None:
        raise UnknownModel(
            f"there is no network {name!r}{_near(name, NETWORKS)}{_file(name)}. The networks are"
            f" {', '.join(NETWORKS)}; others are named torchvision:NAME, timm:NAME,"
            " transformers:NAME or package.module:factory"
        )
    return LoadedModel(name, info.build(seed), info.example())


def _torchvision(name: str, rest: str) -> LoadedModel:
    models = _library(name, "torchvision").models
    if rest not in models.list_models():
        raise UnknownModel(f"torchvision has no model {rest!r}{_near(rest, models.list_models())}")
    size = 299 if rest == "inception_v3" else 224
    return LoadedModel(name, models.get_model(rest, weights=None), (torch.randn(1, 3, size, size),))


def _timm(name: str, rest: str) -> LoadedModel:
    timm = _library(name, "timm")
    # timm writes a set of pretrained weights as "model.set"; no weights, no set.
    if rest.partition(".")[0] not in timm.list_models():
        raise UnknownModel(f"timm has no model {rest!r}{_near(rest, timm.list_models())}")
    model = timm.create_model(rest, pretrained=False)
    size = model.default_cfg.get("input_size", (3, 224, 224))
    return LoadedModel(name, model, (torch.randn(1, *size),))


def _transformers(name: str, rest: str) -> LoadedModel:
    library = _library(name, "transformers")
    try:
        model = _transformers_model(library, rest)
        inputs = _transformers_inputs(model)
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        raise UnknownModel(f"{name} cannot be built without settings: {error}") from error
    return LoadedModel(name, model, kwargs=inputs)


def _transformers_model(library: Any, rest: str) -> Any:
    if Path(rest).exists():
        config = library.AutoConfig.from_pretrained(rest, local_files_only=True)
        kinds = [getattr(library, kind, None) for kind in config.architectures or ()]
    else:
        found: Any = getattr(library, rest, None)
        if not isinstance(found, type):
            near = _near(rest, (n for n in dir(library) if n.endswith(("Model", "Config"))))
            raise UnknownModel(f"transformers has no class and no file {rest!r}{near}")
        is_config = issubclass(found, library.PretrainedConfig)
        kind: Any = found if is_config else getattr(found, "config_class", None)
        if kind is None:
            raise UnknownModel(f"transformers.{rest} is neither a model nor its configuration")
        config = kind()
        kinds = [] if is_config else [found]
    # A cache of past keys is for generating word after word, and cannot be captured as data.
    config.use_cache = False
    if kinds and kinds[0] is not None:
        return kinds[0](config)
    return library.AutoModel.from_config(config)


def _transformers_inputs(model: Any) -> dict[str, Tensor]:
    config = model.config
    takes = inspect.signature(model.forward).parameters
    wanted = {model.main_input_name}
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in takes:
        wanted.add("decoder_input_ids")
    if hasattr(config, "vision_config") and hasattr(config, "text_config"):
        wanted |= {"pixel_values", "input_ids"} & set(takes)
    makers: dict[str, Callable[[Any], Tensor]] = {
        "pixel_values": _pixels,
        "input_ids": _words,
        "decoder_input_ids": _words,
        "input_values": lambda _: torch.randn(1, 16_000),
        "input_features": lambda c: torch.randn(1, c.num_mel_bins, 2 * c.max_source_positions),
    }
    if unknown := wanted - set(makers):
        raise UnknownModel(
            f"{type(model).__name__} takes {', '.join(sorted(unknown))}, for which there is no"
            " example; give one through package.module:factory"
        )
    return {key: makers[key](config) for key in takes if key in wanted}


def _pixels(config: Any) -> Tensor:
    config = getattr(config, "vision_config", config)
    size = getattr(config, "image_size", 224)
    height, width = size if isinstance(size, tuple | list) else (size, size)
    return torch.randn(1, getattr(config, "num_channels", 3), height, width)


def _words(config: Any) -> Tensor:
    config = getattr(config, "text_config", config)
    length = min(64, getattr(config, "max_position_embeddings", 64))
    return torch.randint(config.vocab_size, (1, length))


def _factory(name: str, module_name: str, attribute: str) -> LoadedModel:
    with _current_directory_importable():
        module = _import(name, module_name)
        factory = getattr(module, attribute, None)
        if not callable(factory):
            near = _near(attribute, (n for n in dir(module) if not n.startswith("_")))
            raise UnknownModel(f"{module_name} has no function {attribute!r}{near}")
        if any(p.default is p.empty and p.kind < p.VAR_POSITIONAL for p in _parameters(factory)):
            raise UnknownModel(f"{name} takes arguments; give a function that takes none")
        made = factory()
    parts = made if isinstance(made, tuple) else (made,)
    match parts:
        case (nn.Module() as model,):
            return LoadedModel(name, model)
        case (nn.Module() as model, (tuple() | list()) as args):
            return LoadedModel(name, model, tuple(args))
        case (nn.Module() as model, (tuple() | list()) as args, Mapping() as kwargs):
            return LoadedModel(name, model, tuple(args), dict(kwargs))
    raise UnknownModel(
        f"{name} gave ({', '.join(type(part).__name__ for part in parts)}); it should give a"
        " model, (model, args) or (model, args, kwargs), with args a tuple and kwargs a dict"
    )


def _parameters(factory: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters.values()
    except ValueError:  # A builtin without a signature.
        return ()


def _library(name: str, package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise UnknownModel(
            f"{name} needs {package}, which is not installed; try: pip install {package}"
        ) from error


def _import(name: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except (ModuleNotFoundError, ValueError, TypeError) as error:
        missing = getattr(error, "name", None)
        # What the module itself fails to import is the caller's news, not a wrong name.
        if missing and not f"{module_name}.".startswith(f"{missing}."):
            raise
        raise UnknownModel(
            f"{name}: there is no module {module_name!r} here; a name with a colon is"
            " torchvision:NAME, timm:NAME, transformers:NAME or package.module:factory"
        ) from error


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    # A console script does not have it, and a person's factory most often lies there.
    path = os.getcwd()
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)


def _near(name: str, names: Iterable[str]) -> str:
    by_lower_case = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), by_lower_case, n=3)
    close = [by_lower_case[key] for key in found]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _file(name: str) -> str:
    """What to do with a model of one's own."""
    if "/" not in name and not name.endswith((".py", ".pt", ".pth", ".pt2", ".safetensors")):
        return ""
    return ": a file is none, but a function that returns your model is, as package.module:factory"
