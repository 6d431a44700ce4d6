# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4DViT and S4DMAEViT: embedding, positions, depth, masks."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope
from small_models import ARCH, IMAGES, PRETRAIN, SIZE, VIDEOS, build, inputs

from s4d_mm.models.layers import MoAEBlock, TransformerBlock, TubeletEmbed


class TestBackbone:
    def cfg(self, **kwargs):
        return {**dict(type='S4DViT', arch=ARCH, **SIZE), **kwargs}

    @pytest.mark.parametrize(
        'out_type,video,image',
        [
            ('tokens', (2, 8, 32), (2, 4, 32)),
            ('avg', (2, 32), (2, 32)),
            ('featmap', (2, 32, 2, 2, 2), (2, 32, 2, 2)),
        ],
    )
    def test_out_types(self, out_type, video, image):
        model = build(self.cfg(out_type=out_type)).eval()
        assert model(inputs(VIDEOS)).shape == video
        assert model(inputs(IMAGES)).shape == image

    def test_image_equals_repeated_frames_and_one_frame_clip(self):
        embed = TubeletEmbed(16)
        x = inputs(IMAGES)
        torch.testing.assert_close(
            embed(x), embed(x[:, :, None].expand(-1, -1, 2, -1, -1)), atol=1e-5, rtol=1e-5
        )
        model = build(self.cfg()).eval()
        assert torch.equal(model(x), model(x[:, :, None]))

    def test_embedding_is_a_convolution(self):
        embed = TubeletEmbed(16)
        x = inputs(VIDEOS)
        expected = embed.proj(x).flatten(2).transpose(1, 2)
        torch.testing.assert_close(embed(x), expected, atol=1e-5, rtol=1e-5)

    def test_positions(self):
        model = build(self.cfg())
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
        assert longer.shape == (12, 32)
        torch.testing.assert_close(longer[:8], model.pos_embed)
        assert model(inputs((1, 3, 6, 64, 96))).shape == (1, 72, 32)

    def test_depth_and_frozen_stages(self):
        model = build(self.cfg(depth=3, frozen_stages=2)).train()
        assert len(model.blocks) == 3
        frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert all(n.startswith(('patch_embed', 'blocks.0', 'blocks.1')) for n in frozen)
        assert 'blocks.1.mlp.fc2.bias' in frozen
        assert not model.blocks[1].training and model.blocks[2].training

    def test_layer_depths_for_mmpretrain(self):
        """Of its layer-wise learning-rate decay: embedding, blocks, what follows."""
        model = build(self.cfg(final_norm=True))
        depths = {
            name: model.get_layer_depth(f'backbone.{name}', 'backbone.')
            for name, _ in model.named_parameters()
        }
        assert depths['patch_embed.proj.weight'] == (0, 6)
        assert depths['blocks.0.norm1.weight'] == (1, 6)
        assert depths['blocks.3.mlp.fc2.bias'] == (4, 6)
        assert (
            depths['norm.weight'] == (5, 6) == model.get_layer_depth('head.fc.weight', 'backbone.')
        )

    def test_drop_path_grows_over_backbone_and_neck(self):
        """0 to the rate over the 4 blocks of the arch, of which each part has two."""
        rates = [
            [getattr(block.drop_path, 'drop_prob', 0) for block in part.blocks]
            for part in (
                build(self.cfg(depth=2, drop_path_rate=0.3)),
                build(dict(type='MoAENeck', arch=ARCH, num_layers=2, drop_path_rate=0.3)),
            )
        ]
        assert rates == [[0, pytest.approx(0.1)], [pytest.approx(0.2), pytest.approx(0.3)]]

    @pytest.mark.parametrize('kind', [TransformerBlock, MoAEBlock])
    def test_drop_path_drops_whole_samples_in_training(self, kind):
        block = kind(32, 4, drop_path=0.5)
        x = inputs((200, 4, 32))

        def run():
            out = block(x)
            return out[0] if kind is MoAEBlock else out

        torch.manual_seed(0)
        block.train()
        same = (run() == x).all(-1)  # of each token
        assert torch.equal(same.all(1), same.any(1))
        # attention and MLP are both dropped in a quarter of the samples
        assert same.all(1).float().mean().item() == pytest.approx(0.25, abs=0.08)
        block.eval()
        assert not (run() == x).all(-1).any()

    @pytest.mark.parametrize(
        'kwargs,match',
        [
            (dict(arch='huge'), "arch='huge' is not one of"),
            (dict(arch=dict(embed_dims=8)), 'must have the keys'),
            (dict(depth=5), r'depth must be in 1\.\.4'),
            (dict(out_type='cls'), 'out_type'),
            (dict(frozen_stages=9), 'frozen_stages'),
            (dict(img_size=30), 'img_size=30'),
        ],
    )
    def test_bad_arguments(self, kwargs, match):
        with pytest.raises(ValueError, match=match):
            build(self.cfg(**kwargs))

    @pytest.mark.parametrize(
        'shape,match',
        [
            ((2, 3, 3, 32, 32), 'tubelet_size=2, but got 3'),
            ((2, 3, 30, 32), 'patch_size=16, but got 30 x 32'),
            ((2, 1, 32, 32), r'Expected images \(B, 3, H, W\)'),
        ],
    )
    def test_bad_inputs(self, shape, match):
        with pytest.raises(ValueError, match=match):
            build(self.cfg())(inputs(shape))

    def test_published_sizes(self):
        init_default_scope('mmaction')
        for arch, millions in dict(small=22.0, base=86.3, large=303.4).items():
            with torch.device('meta'):
                model = MODELS.build(dict(type='S4DViT', arch=arch))
            count = sum(p.numel() for p in model.parameters()) / 1e6
            assert count == pytest.approx(millions, rel=0.01)


class TestMaskedEncoder:
    def test_mask_and_order(self):
        model = build(
            dict(
                type='S4DMAEViT',
                arch=ARCH,
                img_size=160,
                num_frames=16,
                mask_ratio=dict(image=0.9, video=0.95),
            )
        ).eval()
        for shape, total, masked in (((2, 3, 160, 160), 100, 90), ((2, 3, 16, 160, 160), 800, 760)):
            latent, mask, ids = model(inputs(shape))
            assert latent.shape == (2, total - masked, 32)
            assert mask.shape == ids.shape == (2, total)
            assert mask.sum(1).tolist() == [masked, masked]
            assert not torch.equal(mask[0], mask[1])
            # the visible tokens come first, in their order
            place = ids[0][mask[0] == 0]
            assert place.tolist() == list(range(total - masked))

    def test_without_mask_it_is_the_plain_encoder(self):
        model = build(PRETRAIN).eval()
        x = inputs(VIDEOS)
        everything = model(x, mode='tensor')
        latent, _, _ = model.backbone(x, torch.zeros(2, 8))
        torch.testing.assert_close(everything, latent, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize(
        'mask,match',
        [
            (torch.zeros(2, 5), r'must be of shape \(2, 8\)'),
            (torch.eye(8)[:2].cumsum(1), 'same number of masked'),
            (torch.ones(2, 8), 'at least one visible'),
        ],
    )
    def test_bad_masks(self, mask, match):
        with pytest.raises(ValueError, match=match):
            build(PRETRAIN).backbone(inputs(VIDEOS), mask)

    def test_bad_ratio(self):
        cfg = copy.deepcopy(PRETRAIN)
        cfg['backbone']['mask_ratio'] = dict(image=1.5, video=0.5)
        with pytest.raises(ValueError, match='mask_ratio must be'):
            build(cfg)

    def test_reconstruction_of_the_true_target_is_the_input(self):
        from s4d_mm.models.layers import normalize_per_channel

        head = build(PRETRAIN).head
        x = (torch.rand(2, 3, 4, 32, 32) - head.mean) / head.std
        target = normalize_per_channel(head.tubelets(x))[0]
        mask = torch.ones(2, 8)
        out = head.reconstruct(target, x, mask)
        torch.testing.assert_close(out, x * head.std + head.mean, atol=1e-5, rtol=1e-4)
        assert head.loss(target, x, mask) < 1e-10

    def test_decoder_needs_its_input_size(self):
        model = build(PRETRAIN)
        with pytest.raises(ValueError, match='got 16 tokens'):
            model(inputs((1, 3, 64, 64)), mode='loss')


def test_tube_mask_is_the_same_in_all_slots():
    model = build(
        dict(
            type='S4DMAEViT',
            arch=ARCH,
            img_size=160,
            num_frames=16,
            mask_type='tube',
            mask_ratio=0.9,
        )
    ).eval()
    torch.manual_seed(0)
    latent, mask, _ = model(inputs((3, 3, 16, 160, 160)))
    slots = mask.view(3, 8, 100)
    assert (slots == slots[:, :1]).all()
    assert slots.sum(2).unique().tolist() == [90]
    assert latent.shape == (3, 80, 32)
    assert not torch.equal(slots[0, 0], slots[1, 0])
    # an image has one slot
    assert model(inputs((2, 3, 160, 160)))[1].sum(1).tolist() == [90, 90]
    with pytest.raises(ValueError, match="mask_type='cube' is not one of"):
        build(dict(type='S4DMAEViT', arch=ARCH, mask_type='cube'))
