# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Initial values at base size: the spread of each group of weights, in both stages."""

import math

import pytest
from small_models import build
from torch import nn


def xavier(layer):
    """Deviation of Xavier-uniform values."""
    return math.sqrt(2 / sum(layer.weight.shape))


def check(spreads, module=None):
    for weight, expected in spreads:
        assert weight.detach().double().std().item() == pytest.approx(expected, rel=0.03)
    for m in module.modules() if module else ():
        if isinstance(m, nn.Linear) and m.bias is not None:
            assert not m.bias.any()
        if isinstance(m, nn.LayerNorm):
            assert (m.weight == 1).all() and not m.bias.any()


@pytest.mark.parametrize('name', ['S4DMAEViT', 'S4DViT'])
def test_encoder(name):
    """Xavier-uniform in pre-training, normal of .02 in fine-tuning; the embedding is torch's."""
    model = build(dict(type=name, arch='base', depth=1))
    layers = [m for m in model.blocks.modules() if isinstance(m, nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        spread = xavier(layer) if name == 'S4DMAEViT' else 0.02
        check([(layer.weight, spread)])
        uniform = layer.weight.abs().max() <= math.sqrt(3) * spread
        assert uniform == (name == 'S4DMAEViT')
    # Conv3d: uniform of 1 / sqrt(3 * 2 * 16 * 16)
    proj, limit = model.patch_embed.proj, 1 / math.sqrt(1536)
    check([(proj.weight, limit / math.sqrt(3))], model)
    assert 0.9 * limit < proj.bias.abs().max() <= limit


def test_decoder():
    arch = dict(embed_dims=384, num_layers=1, num_heads=6)
    model = build(dict(type='S4DMAEDecoder', in_channels=768, arch=arch))
    layers = [m for m in model.decoder_blocks.modules() if isinstance(m, nn.Linear)]
    check([(m.weight, xavier(m)) for m in (*layers, model.decoder_pred)], model)
    # torch's Linear: uniform of 1 / sqrt(768)
    check([(model.decoder_embed.weight, 0.0208)])
    # normal of .02, cut off at one deviation: 0.54 of it
    assert model.mask_token.std().item() == pytest.approx(0.0108, rel=0.1)
    assert 0.019 < model.mask_token.abs().max() <= 0.02


def test_neck_and_classifiers():
    """Every linear layer and expert, router and noise included, normal of .02."""
    moae = build(dict(type='MoAENeck', arch='base', num_layers=1)).blocks[0]
    classes = dict(video=700, image=700)
    head = build(dict(type='DualModalHead', num_classes=classes, in_channels=768))
    for module in (moae, head):
        layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
        check([(m.weight, 0.02) for m in layers], module)
    check([(w, 0.02) for w in (moae.moae.fc1_weight, moae.moae.fc2_weight)])
    assert not moae.moae.fc1_bias.any() and not moae.moae.fc2_bias.any()


def test_prompts_of_s2d():
    """Xavier-uniform convolutions with torch's own biases; adapters normal of .02."""
    arch = dict(embed_dims=768, num_layers=1, num_heads=12, feedforward_channels=8)
    model = build(dict(type='S2DViT', arch=arch))
    block = model.prompt_blocks[0]
    prompter = block.prompter
    for layer in (prompter.image_proj, prompter.landmark_proj, prompter.out_proj):
        limit = layer.in_features**-0.5
        check([(layer.weight, xavier(layer))])
        assert 0.5 * limit < layer.bias.abs().max() <= limit
    layers = [m for m in block.temporal.modules() if isinstance(m, nn.Linear)]
    check([(m.weight, 0.02) for m in layers], block.temporal)
    # the authors' Conv2d(128, 768, 1)
    check([(model.landmark_embed.weight, (3 * 128) ** -0.5)])
    assert model.temporal_embedding.std().item() == pytest.approx(0.02, rel=0.05)
