# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Initial values at base size: the spread of each group of weights, in both stages."""

import math

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from s4d_mm.models.layers.prompts import PromptBlock


def first_block(**cfg):
    """A part of the model of base size, with one block of it."""
    init_default_scope('mmaction')
    torch.manual_seed(0)
    part = MODELS.build(cfg)
    part.init_weights()
    return part


def xavier(fan_in, fan_out):
    """Deviation of Xavier-uniform values."""
    return math.sqrt(2 / (fan_in + fan_out))


def spread(weight):
    return weight.detach().double().std().item()


def check_biases_and_norms(module):
    for m in module.modules():
        if isinstance(m, nn.Linear) and m.bias is not None:
            assert not m.bias.any()
        if isinstance(m, nn.LayerNorm):
            assert (m.weight == 1).all() and not m.bias.any()


@pytest.mark.parametrize('name', ['S4DMAEViT', 'S4DViT'])
def test_encoder(name):
    """Xavier-uniform in pre-training, normal of .02 in fine-tuning; the embedding is torch's."""
    model = first_block(type=name, arch='base', depth=1)
    block = model.blocks[0]
    fans = {
        block.attn.qkv: (768, 2304),
        block.attn.proj: (768, 768),
        block.mlp.fc1: (768, 3072),
        block.mlp.fc2: (3072, 768),
    }
    for layer, sizes in fans.items():
        expected = xavier(*sizes) if name == 'S4DMAEViT' else 0.02
        assert spread(layer.weight) == pytest.approx(expected, rel=0.01)
        if name == 'S4DMAEViT':  # uniform
            assert layer.weight.abs().max() <= math.sqrt(3) * expected
        else:
            assert layer.weight.abs().max() > 0.08
    check_biases_and_norms(model)
    # Conv3d: uniform of 1 / sqrt(3 * 2 * 16 * 16)
    proj, limit = model.patch_embed.proj, 1 / math.sqrt(1536)
    assert spread(proj.weight) == pytest.approx(0.0147, abs=1e-4)
    assert 0.99 * limit < proj.weight.abs().max() <= limit
    assert 0.9 * limit < proj.bias.abs().max() <= limit


def test_decoder():
    model = first_block(
        type='S4DMAEDecoder', in_channels=768, arch=dict(embed_dims=384, num_layers=1, num_heads=6)
    )
    block = model.decoder_blocks[0]
    for layer, sizes in (
        (block.attn.qkv, (384, 1152)),
        (block.attn.proj, (384, 384)),
        (block.mlp.fc1, (384, 1536)),
        (model.decoder_pred, (384, 1536)),
    ):
        assert spread(layer.weight) == pytest.approx(xavier(*sizes), rel=0.01)
    # torch's Linear: uniform of 1 / sqrt(768)
    assert spread(model.decoder_embed.weight) == pytest.approx(0.0208, abs=1e-4)
    # normal of .02, cut off at one deviation: 0.54 of it
    assert spread(model.mask_token) == pytest.approx(0.0108, rel=0.1)
    assert 0.019 < model.mask_token.abs().max() <= 0.02
    check_biases_and_norms(model)


def test_neck():
    """Every linear layer and expert, router and noise included, normal of .02."""
    block = first_block(type='MoAENeck', arch='base', num_layers=1).blocks[0]
    router = block.moae.router
    weights = [m.weight for m in block.modules() if isinstance(m, nn.Linear)]
    assert any(w is router.gate.weight for w in weights)
    assert any(w is router.noise.weight for w in weights)
    for weight in (*weights, block.moae.fc1_weight, block.moae.fc2_weight):
        assert spread(weight) == pytest.approx(0.02, rel=0.03)
    assert not block.moae.fc1_bias.any() and not block.moae.fc2_bias.any()
    check_biases_and_norms(block)


def test_classifiers():
    head = first_block(
        type='DualModalHead', num_classes=dict(video=700, image=700), in_channels=768
    )
    for classifier in head.classifiers.values():
        assert spread(classifier.weight) == pytest.approx(0.02, rel=0.01)
    check_biases_and_norms(head)


def test_prompts_of_s2d():
    """Xavier-uniform convolutions with torch's own biases; the embedding is torch's in both."""
    block = PromptBlock(768, 8, 192, 8)
    embed = nn.Conv2d(128, 768, 1)  # the authors'
    torch.manual_seed(0)
    block.init_weights()
    prompter = block.prompter
    for layer in (prompter.image_proj, prompter.landmark_proj, prompter.out_proj):
        limit = layer.in_features**-0.5
        assert spread(layer.weight) == pytest.approx(xavier(*layer.weight.shape), rel=0.05)
        assert 0.5 * limit < layer.bias.abs().max() <= limit
    for layer in block.temporal.modules():
        if isinstance(layer, nn.Linear):
            assert spread(layer.weight) == pytest.approx(0.02, rel=0.02)
            assert layer.bias is None or not layer.bias.any()
    model = first_block(
        type='S2DViT',
        arch=dict(embed_dims=768, num_layers=1, num_heads=12, feedforward_channels=8),
    )
    for name in ('weight', 'bias'):
        found, theirs = (getattr(m, name) for m in (model.landmark_embed, embed))
        assert spread(found) == pytest.approx(spread(theirs), rel=0.05)
        assert 0.9 * 128**-0.5 < found.abs().max() <= 128**-0.5
    assert spread(model.temporal_embedding) == pytest.approx(0.02, rel=0.05)
