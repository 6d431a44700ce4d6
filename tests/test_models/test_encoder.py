# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The encoder and the masked auto-encoder: embedding, positions, depth, masks, target."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope
from small_models import (
    ARCH,
    DECODER,
    DECODER_MASKING,
    FINETUNE,
    IMAGES,
    PRETRAIN,
    SIZE,
    VIDEOS,
    build,
    inputs,
    run,
)

from s4d_mm.models.encoder import TransformerBlock
from s4d_mm.models.moae import MoAEBlock
from s4d_mm.models.tokens import TubeletEmbed, normalize_per_channel

VIT = dict(type='S4DViT', arch=ARCH, **SIZE)
BIG = dict(type='S4DMAEViT', arch=ARCH, img_size=160, num_frames=16)


def test_out_types():
    for out_type, video, image in (
        ('tokens', (2, 8, 32), (2, 4, 32)),
        ('avg', (2, 32), (2, 32)),
        ('featmap', (2, 32, 2, 2, 2), (2, 32, 2, 2)),
    ):
        model = build(dict(VIT, out_type=out_type)).eval()
        assert model(inputs(VIDEOS)).shape == video and model(inputs(IMAGES)).shape == image


def test_embedding_is_a_convolution_and_an_image_repeated_frames():
    embed, video, x = TubeletEmbed(16), inputs(VIDEOS), inputs(IMAGES)
    for ours, convolved in ((video, video), (x, x[:, :, None].expand(-1, -1, 2, -1, -1))):
        expected = embed.proj(convolved).flatten(2).transpose(1, 2)
        torch.testing.assert_close(embed(ours), expected, atol=1e-5, rtol=1e-5)
    model = build(VIT).eval()
    assert torch.equal(model(x), model(x[:, :, None]))


def test_positions():
    model = build(VIT)
    i = torch.arange(32)
    angle = 5 / 10000 ** (2 * (i // 2) / 32)
    expected = torch.where(i % 2 == 0, angle.sin(), angle.cos())
    torch.testing.assert_close(model.positions((2, 2, 2))[5], expected)
    # an image takes the first slot; other sizes interpolate each slot
    assert torch.equal(model.positions((1, 2, 2)), model.pos_embed[:4])
    big = model.positions((2, 4, 6)).reshape(2, 4, 6, 32)
    slot = model.pos_embed[4:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(slot, size=(4, 6), mode='bicubic').permute(0, 2, 3, 1)[0]
    torch.testing.assert_close(big[1], expected)
    # a longer clip extends the table
    longer = model.positions((3, 2, 2))
    torch.testing.assert_close(longer[:8], model.pos_embed)
    assert longer.shape == (12, 32) and model(inputs((1, 3, 6, 64, 96))).shape == (1, 72, 32)


def test_depth_and_frozen_stages():
    model = build(dict(VIT, depth=3, frozen_stages=2)).train()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert len(model.blocks) == 3 and 'blocks.1.mlp.fc2.bias' in frozen
    assert all(n.startswith(('patch_embed', 'blocks.0', 'blocks.1')) for n in frozen)
    assert not model.blocks[1].training and model.blocks[2].training


def test_stages_for_mmpretrain():
    model = build(dict(VIT, out_type='featmap', final_norm=True, out_indices=(1, -1))).eval()
    image, clip = inputs(IMAGES), inputs(VIDEOS)
    assert [tuple(x.shape) for x in model(image)] == [(2, 32, 2, 2)] * 2
    plain = build(dict(VIT, out_type='featmap', final_norm=True)).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(clip), model(clip)[1])


def test_drop_path_grows_over_backbone_and_neck():
    rates = [
        [getattr(block.drop_path, 'drop_prob', 0) for block in part.blocks]
        for part in (
            build(dict(VIT, depth=2, drop_path_rate=0.3)),
            build(dict(type='MoAENeck', arch=ARCH, num_layers=2, drop_path_rate=0.3)),
        )
    ]
    assert rates == [[0, pytest.approx(0.1)], [pytest.approx(0.2), pytest.approx(0.3)]]


@pytest.mark.parametrize('kind', [TransformerBlock, MoAEBlock])
def test_drop_path_in_training(kind):
    """Attention and MLP are both dropped in a quarter of the samples."""
    block, x = kind(32, 4, drop_path=0.5), inputs((200, 4, 32))
    torch.manual_seed(0)
    for expected in (0.25, 0):
        out = block(x)[0] if kind is MoAEBlock else block(x)
        same = (out == x).all(-1).all(1).float().mean().item()
        assert same == pytest.approx(expected, abs=0.08 * bool(expected))
        block.eval()


@pytest.mark.parametrize(
    'cfg, message',
    [
        (dict(VIT, arch='huge'), "arch must be .* but is 'huge'"),
        (dict(VIT, img_size=40), 'img_size=40 is not a multiple of patch_size=16'),
        (dict(BIG, mask_ratio=1), "of S4DMAEViT must be .* but got {'image': 1, 'video': 1}"),
        (dict(PRETRAIN['neck'], mask_ratio=0), r'of S4DMAEDecoder must be a share in \(0, 1\)'),
        (dict(PRETRAIN['neck'], mask_ratio=dict(clip=0.5)), "but got {'clip': 0.5}"),
        (dict(FINETUNE['neck'], top_k=9), r'top_k must be in 1\.\.num_experts=4'),
        (dict(FINETUNE['cls_head'], num_classes=7), 'num_classes of DualModalHead'),
        (dict(type='DualModalDataPreprocessor', mean=[0.5], std=[0.5]), r'pixels in 0..255'),
    ],
)
def test_wrong_settings(cfg, message):
    with pytest.raises(ValueError, match=message):
        build(cfg)


def test_published_sizes():
    init_default_scope('mmaction')
    for arch, millions in dict(small=22.0, base=86.3, large=303.4).items():
        with torch.device('meta'):
            model = MODELS.build(dict(type='S4DViT', arch=arch))
        count = sum(p.numel() for p in model.parameters()) / 1e6
        assert count == pytest.approx(millions, rel=0.01)


def test_mask_and_order():
    model = build(dict(BIG, mask_ratio=dict(image=0.9, video=0.95))).eval()
    for shape, total, masked in (((2, 3, 160, 160), 100, 90), ((2, 3, 16, 160, 160), 800, 760)):
        latent, mask, ids = model(inputs(shape))
        assert latent.shape == (2, total - masked, 32)
        assert mask.shape == ids.shape == (2, total)
        assert mask.sum(1).tolist() == [masked, masked]
        assert not torch.equal(mask[0], mask[1])
        # the visible tokens come first, in their order
        assert ids[0][mask[0] == 0].tolist() == list(range(total - masked))


def test_tube_mask_is_the_same_in_all_slots():
    model = build(dict(BIG, mask_type='tube', mask_ratio=0.9)).eval()
    latent, mask, _ = model(inputs((3, 3, 16, 160, 160)))
    slots = mask.view(3, 8, 100)
    assert (slots == slots[:, :1]).all() and slots.sum(2).unique().tolist() == [90]
    assert latent.shape == (3, 80, 32) and not torch.equal(slots[0, 0], slots[1, 0])
    # an image has one slot
    assert model(inputs((2, 3, 160, 160)))[1].sum(1).tolist() == [90, 90]


def test_places_that_the_decoder_predicts_by_hand():
    """2 x 2 places, 2 slots; the ring is 0, 1, 3, 2, and begins at 5 in the second slot."""
    mask = torch.tensor([[0, 1, 1, 1, 1, 0, 1, 1]] * 2)
    ids = mask.argsort(dim=1, stable=True).argsort(dim=1)
    neck = build(DECODER_MASKING).neck
    assert neck.predicted_places(ids, 2).tolist() == [[1, 2, 4], [3, 6, 7]]
    neck.mask_ratio = dict(video=0.7)  # int(4.2) of 6 are left out
    assert neck.predicted_places(ids, 2).tolist() == [[1, 6], [3, 4]]
    assert neck.predicted_places(ids[:, :4], 1) is None
    with pytest.raises(ValueError, match='got 12 tokens, but at its img_size an image has 4'):
        neck.predicted_places(torch.arange(12)[None], 2)


def test_places_that_the_decoder_predicts_are_spread():
    """Half of the masked tokens, 2 of 4 in each cell, the other 2 in the next slot."""
    cfg = dict(type='S4DMAEDecoder', in_channels=32, arch=DECODER, mask_ratio=0.5)
    backbone, neck = build(dict(BIG, mask_ratio=dict(image=0.3))), build(cfg)
    for shape, visible, count in (((2, 3, 16, 160, 160), 40, 380), ((2, 3, 160, 160), 70, 15)):
        latent, mask, ids = backbone(inputs(shape))
        places = neck.predicted_places(ids, visible)
        assert places.shape == (2, count) and latent.shape[1] == visible
        assert neck(latent, ids, places).shape == (2, count, 1536)
        assert neck(latent, ids).shape == (2, mask.shape[1], 1536)
        chosen = torch.zeros_like(mask).scatter_(1, places, 1)
        assert chosen.sum() == 2 * count and (chosen <= mask).all()
        cells = [x.view(2, -1, 5, 2, 5, 2).transpose(3, 4).flatten(4) for x in (mask, chosen)]
        full = cells[0].all(-1)  # cells (B, t, 5, 5) without a visible token
        assert (cells[1].sum(-1)[full] == 2).all()
        both = full[:, 1:] & full[:, :-1]
        assert (cells[1][:, 1:] + cells[1][:, :-1] == 1)[both].all()
        assert both.sum() > 100 or len(shape) == 4


@pytest.mark.parametrize('shape', [VIDEOS, IMAGES], ids=['video', 'image'])
def test_loss_with_decoder_masking(shape):
    """That of a decoder which sees the visible and the predicted tokens, sample by sample."""
    model, x = build(DECODER_MASKING), inputs(shape)
    torch.manual_seed(1)
    loss = run(model, shape)['loss']
    torch.manual_seed(1)
    latent, mask, ids = model.backbone(x)
    neck, target = model.neck, model.head.target(x)
    places = neck.predicted_places(ids, latent.shape[1])

    def expected():
        losses = []
        for i in range(len(x)):
            tokens = torch.cat((neck.decoder_embed(latent[i]), neck.mask_token[0].expand(4, -1)))
            where = torch.cat(((mask[i] == 0).nonzero()[:, 0], places[i]))
            tokens = tokens[: len(where)] + neck.decoder_pos_embed[where]
            for block in neck.decoder_blocks:
                tokens = block(tokens[None])[0]
            pred = neck.decoder_pred(neck.decoder_norm(tokens))[latent.shape[1] :]
            losses.append((pred - target[i][places[i]]).square().mean())
        return sum(losses) / len(losses)

    torch.testing.assert_close(loss, expected())
    # without attention a token does not depend on what else there is
    for block in neck.decoder_blocks:
        block.attn.proj.weight.data.zero_()
    errors = (neck(latent, ids) - target).square().mean(-1)
    torch.testing.assert_close(errors.gather(1, places).mean(), expected())
    # a modality without a share is predicted as before
    neck.mask_ratio = {'video' if len(shape) == 4 else 'image': 0.5}
    torch.manual_seed(1)
    assert run(model, shape)['loss'] == model.head.loss(neck(latent, ids), x, mask)


def test_without_mask_it_is_the_plain_encoder():
    model, x = build(PRETRAIN).eval(), inputs(VIDEOS)
    latent, _, _ = model.backbone(x, torch.zeros(2, 8))
    torch.testing.assert_close(model(x, mode='tensor'), latent, atol=1e-5, rtol=1e-4)


def test_reconstruction_of_the_true_target_is_the_input():
    head = build(PRETRAIN).head
    x = (torch.rand(2, 3, 4, 32, 32) - head.mean) / head.std
    target, mask = normalize_per_channel(head.pixels(x))[0], torch.ones(2, 8)
    out = head.reconstruct(target, x, mask)
    torch.testing.assert_close(out, x * head.std + head.mean, atol=1e-5, rtol=1e-4)
    assert head.loss(target, x, mask) < 1e-10
    mask[:, 3:] = 0  # only the masked tokens count
    target[:, 3:] += 1
    assert head.loss(target, x, mask) < 1e-10
