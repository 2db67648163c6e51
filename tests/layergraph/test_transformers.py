"""Transformers families, built tiny from their configurations: every cut equals the eager model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tr
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from tests.layergraph.splitting import assert_splits_equal_eager

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TEXT = {"vocab_size": 64, "max_position_embeddings": 32}


def image() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(1, 3, 32, 32)}


def tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(0, 60, (1, 12))}


def masked_tokens() -> dict[str, torch.Tensor]:
    mask = torch.ones(1, 12, dtype=torch.int64)
    mask[0, 9:] = 0
    return {**tokens(), "attention_mask": mask}


def resnet() -> nn.Module:
    return tr.ResNetForImageClassification(
        tr.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], num_labels=5)
    )


def mobilenet_v2() -> nn.Module:
    config = tr.MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=5)
    return tr.MobileNetV2ForImageClassification(config)


def convnext() -> nn.Module:
    config = tr.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2, num_labels=5)
    return tr.ConvNextForImageClassification(config)


def vit() -> nn.Module:
    return tr.ViTForImageClassification(tr.ViTConfig(image_size=32, patch_size=8, **SMALL))


def swin() -> nn.Module:
    config = tr.SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    return tr.SwinForImageClassification(config)


def segformer() -> nn.Module:
    config = tr.SegformerConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, sr_ratios=[2, 1],
        patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=16,
    )  # fmt: skip
    return tr.SegformerForSemanticSegmentation(config)


def bert() -> nn.Module:
    return tr.BertForSequenceClassification(tr.BertConfig(**TEXT, **SMALL))


def albert() -> nn.Module:
    return tr.AlbertModel(tr.AlbertConfig(embedding_size=8, **TEXT, **SMALL))


def distilbert() -> nn.Module:
    config = tr.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, **TEXT)
    return tr.DistilBertForSequenceClassification(config)


def gpt2() -> nn.Module:
    config = tr.GPT2Config(
        vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2, use_cache=False
    )
    return tr.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    return tr.LlamaForCausalLM(tr.LlamaConfig(use_cache=False, **TEXT, **SMALL))


def t5_encoder() -> nn.Module:
    config = tr.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_heads=2)
    return tr.T5EncoderModel(config)


def whisper_encoder() -> nn.Module:
    config = tr.WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24,
        num_mel_bins=8, max_source_positions=20,
    )  # fmt: skip
    return WhisperEncoder(config)


def wav2vec2() -> nn.Module:
    config = tr.Wav2Vec2Config(
        vocab_size=12, conv_dim=(8, 8), conv_stride=(5, 2), conv_kernel=(10, 3),
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, **SMALL,
    )  # fmt: skip
    return tr.Wav2Vec2ForCTC(config)


def clip() -> nn.Module:
    text = {"vocab_size": 64, "max_position_embeddings": 16, "eos_token_id": 3, **SMALL}
    vision = {"image_size": 32, "patch_size": 8, **SMALL}
    return tr.CLIPModel(tr.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]]]] = {
    "ResNet": (resnet, image),
    "MobileNetV2": (mobilenet_v2, image),
    "ConvNeXt": (convnext, image),
    "ViT": (vit, image),
    "Swin": (swin, image),
    "SegFormer": (segformer, image),
    "BERT": (bert, masked_tokens),
    "ALBERT": (albert, tokens),
    "DistilBERT": (distilbert, masked_tokens),
    "GPT-2": (gpt2, tokens),
    "Llama": (llama, tokens),
    "T5 encoder": (t5_encoder, tokens),
    "Whisper encoder": (
        whisper_encoder,
        lambda: {"input_features": torch.randn(1, 8, 40)},
    ),
    "Wav2Vec2": (wav2vec2, lambda: {"input_values": torch.randn(1, 400)}),
    "CLIP": (clip, lambda: {**masked_tokens(), **image()}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cut_equals_the_eager_model(family: str) -> None:
    make, inputs = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model, kwargs = make().eval(), inputs()
    graph, _ = assert_splits_equal_eager(model, (), kwargs)
    assert len(graph.layers) >= 15


def test_tied_embeddings_travel_once() -> None:
    model = gpt2()
    graph, _ = assert_splits_equal_eager(model, (), tokens())
    layers = {layer.name: layer for layer in graph.layers}
    assert layers["lm_head"].weights == layers["transformer.wte"].weights
    assert graph.weight_bytes[-1] == 0
