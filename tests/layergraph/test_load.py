from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from layergraph.errors import GraphError
from layergraph.load import UnknownModel, load


def run(name: str) -> Any:
    loaded = load(name)
    with torch.inference_mode():
        return loaded.model(*loaded.args, **loaded.kwargs)


def test_a_network_comes_in_eval_mode_with_inputs_that_run() -> None:
    loaded = load("lenet")
    assert loaded.name == "lenet"
    assert not loaded.model.training
    assert run("lenet").shape == (1, 10)


def test_the_seed_decides_the_weights_and_nothing_leaks() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, again, other = load("lenet"), load("lenet"), load("lenet", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    weight = first.model.state_dict()["fc1.weight"]
    assert torch.equal(weight, again.model.state_dict()["fc1.weight"])
    assert not torch.equal(weight, other.model.state_dict()["fc1.weight"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alexnt", "did you mean alexnet"),
        ("", "The networks are alexnet"),
        ("no.such.module:model", "there is no module 'no.such.module'"),
        ("layergraph.networks:bild", "did you mean build"),
        ("layergraph.networks:build", "takes arguments"),
        ("layergraph.networks:__doc__", "has no function"),
        (":x", "there is no module ''"),
    ],
)
def test_a_wrong_name_says_what_would_be_right(name: str, message: str) -> None:
    with pytest.raises(UnknownModel, match=message):
        load(name)
    assert issubclass(UnknownModel, GraphError)


@pytest.mark.parametrize("package", ["torchvision", "timm", "transformers"])
def test_a_missing_library_is_named_with_its_remedy(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnknownModel, match=f"pip install {package}"):
        load(f"{package}:anything")


def small_library(name: str) -> ModuleType:
    # These two libraries cannot be among the test requirements: they pin a torch of their own.
    # This stands in for the few calls of theirs that the loader makes.
    def create(model: str, weights: None = None, pretrained: bool = False) -> nn.Module:
        assert model.startswith("resnet18")
        assert weights is None
        assert not pretrained
        made = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Dropout())
        made.default_cfg = {"input_size": (3, 32, 48)}  # type: ignore[assignment]
        return made

    library = ModuleType(name)
    calls = {"list_models": lambda: ["resnet18", "resnet50"], "get_model": create}
    library.models = SimpleNamespace(**calls)  # type: ignore[attr-defined]
    library.list_models = calls["list_models"]  # type: ignore[attr-defined]
    library.create_model = create  # type: ignore[attr-defined]
    return library


@pytest.mark.parametrize(
    ("package", "output"), [("torchvision", (1, 2, 222, 222)), ("timm", (1, 2, 30, 46))]
)
def test_a_library_model_comes_untrained_with_its_own_input_size(
    package: str, output: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, small_library(package))
    assert not load(f"{package}:resnet18").model.training
    assert run(f"{package}:resnet18").shape == output
    with pytest.raises(UnknownModel, match="did you mean resnet18 or resnet50"):
        load(f"{package}:resnet19")


def test_timm_names_may_carry_a_set_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", small_library("timm"))
    assert run("timm:resnet18.a1_in1k").shape == (1, 2, 30, 46)


@pytest.mark.parametrize("name", ["MobileNetV2Model", "MobileNetV2Config"])
def test_a_transformers_class_is_built_from_its_default_settings(name: str) -> None:
    assert run(f"transformers:{name}").last_hidden_state.shape == (1, 1280, 7, 7)


def tiny(directory: Path, **settings: Any) -> str:
    path = directory / "config.json"
    path.write_text(json.dumps(settings))
    return f"transformers:{path}"


def test_a_configuration_file_decides_the_class_and_the_sizes(tmp_path: Path) -> None:
    name = tiny(
        tmp_path,
        model_type="bert",
        architectures=["BertForSequenceClassification"],
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        vocab_size=50,
        num_labels=3,
    )
    assert run(name).logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "inputs"),
    [
        (
            {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1,
             "num_heads": 2, "vocab_size": 50, "decoder_start_token_id": 0},
            ["decoder_input_ids", "input_ids"],
        ),
        (
            {"model_type": "whisper", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
             "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16,
             "decoder_ffn_dim": 16, "max_source_positions": 20, "vocab_size": 50,
             "pad_token_id": 0},
            ["decoder_input_ids", "input_features"],
        ),
        (
            {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50,
             "bos_token_id": 1, "eos_token_id": 1},
            ["input_ids"],
        ),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_each_kind_of_transformer_gets_the_inputs_it_needs(
    settings: dict[str, Any], inputs: list[str], tmp_path: Path
) -> None:
    name = tiny(tmp_path, **settings)
    assert sorted(load(name).kwargs) == inputs
    # A cache among the outputs would keep the model from being captured.
    assert run(name).get("past_key_values") is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("VitModel", "did you mean ViTModel"),
        ("pipeline", "no class and no file"),
        ("PreTrainedModel", "neither a model nor its configuration"),
        ("SpeechEncoderDecoderConfig", "cannot be built"),
    ],
)
def test_a_transformers_name_that_gives_no_model_says_why(name: str, message: str) -> None:
    with pytest.raises(UnknownModel, match=message):
        load(f"transformers:{name}")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_model_of_test_load.py").write_text(
        textwrap.dedent("""
            import torch
            from torch import nn

            def bare():
                return nn.Linear(2, 3)

            def with_args():
                return nn.Linear(2, 3), (torch.ones(1, 2),)

            def with_kwargs():
                return nn.Linear(2, 3), (), {"input": torch.ones(4, 2)}

            def wrong():
                return nn.Linear(2, 3), torch.ones(1, 2)
        """)
    )
    (tmp_path / "own_model_that_lacks_something.py").write_text("import surely_not_installed\n")
    monkeypatch.chdir(tmp_path)
    return "own_model_of_test_load"


def test_a_factory_in_the_current_directory_gives_model_and_inputs(own_module: str) -> None:
    path = list(sys.path)
    assert load(f"{own_module}:bare").args == ()
    assert run(f"{own_module}:with_args").shape == (1, 3)
    assert run(f"{own_module}:with_kwargs").shape == (4, 3)
    assert sys.path == path


def test_a_factory_that_gives_something_else_is_told_what_to_give(own_module: str) -> None:
    with pytest.raises(UnknownModel, match=r"gave \(Linear, Tensor\); it should give a model"):
        load(f"{own_module}:wrong")


@pytest.mark.usefixtures("own_module")
def test_a_module_that_fails_to_import_keeps_its_own_error() -> None:
    with pytest.raises(ModuleNotFoundError, match="surely_not_installed"):
        load("own_model_that_lacks_something:model")
