# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D's parts with other models: every config of ``configs/mix`` trains and
evaluates with the real Runner; then the parts one by one."""

import glob
import os.path as osp
import re

import pytest
import torch
from helpers import ROOT
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from small_models import write_landmark_net

from s4d_mm.converters.s2d import to_s2d_authors
from s4d_mm.models import FrameWiseBackbone, MoAENeck
from s4d_mm.models.layers import to_tokens

MIXES = sorted(glob.glob(osp.join(ROOT, 'configs', 'mix', '*.py')))


def load_mix(path, work_dir):
    """The config, for four steps of small batches."""
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        {
            f'{name}_dataloader.{key}': value
            for name in ('train', 'val', 'test')
            for key, value in dict(num_workers=0, persistent_workers=False).items()
        }
    )
    cfg.merge_from_dict({'train_dataloader.batch_size': 4})
    if 'batch_sampler' in cfg.train_dataloader:
        cfg.train_dataloader.batch_sampler.batch_size = 4
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    cfg.param_scheduler = []
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.work_dir = str(work_dir)
    return cfg


def of_mmpretrain(state):
    return dict(state_dict={f'backbone.{k}': v for k, v in state.items()})


def of_s4d_authors(state):
    names = {f'encoder.{k}': v for k, v in state.items()}
    return dict(model={**names, 'encoder_to_decoder.weight': torch.zeros(8, 128)})


def of_s2d_authors(state):
    return dict(model=to_s2d_authors({f'backbone.{k}': v for k, v in state.items()})[0])


def of_torchvision(state):
    """The names of its ResNet, and kernels without a temporal dimension."""
    out = {}
    for key, value in state.items():
        key = re.sub(r'downsample\.(conv|bn)', lambda m: f'downsample.{int(m[1] == "bn")}', key)
        key = re.sub(r'conv(\d)\.bn', r'bn\1', key).replace('.conv.', '.')
        out[key] = value.sum(2) if value.ndim == 5 else value
    return out


# layout of the file, where the backbone with such weights is, and the prefix of its names
OWN_LAYOUT = {
    'mmpretrain-vit_moae_joint': (of_mmpretrain, 'backbone.backbone', 'backbone.'),
    'resnet_moae_linear-head_image': (of_mmpretrain, 'backbone', 'backbone.'),
    's2d_moae_joint': (of_s2d_authors, 'backbone', None),
    's4d-vit_timesformer-head_video': (of_s4d_authors, 'backbone', None),
    'slowonly_moae_joint': (of_torchvision, 'backbone', None),
}


def give_weights(cfg, name, path):
    """Let the backbone of a config begin with weights of its own layout; checks that it does."""
    layout, place, prefix = OWN_LAYOUT[name]
    init_default_scope(cfg.default_scope)
    generator = torch.Generator().manual_seed(1)
    state = MODELS.build(cfg.model).get_submodule(place).state_dict()
    state = {
        k: torch.rand(v.shape, generator=generator) / 20 if v.is_floating_point() else v
        for k, v in state.items()
        if not k.startswith('landmark.')
    }
    if layout is of_torchvision:  # as inflated: the same at all times
        state = {
            k: v.mean(2, keepdim=True).expand_as(v) if v.ndim == 5 else v for k, v in state.items()
        }
    torch.save(layout(state), path)
    if layout is of_torchvision:
        cfg.model.backbone.pretrained = str(path)
    else:
        init_cfg = dict(type='Pretrained', checkpoint=str(path))
        init_cfg.update(dict(prefix=prefix) if prefix else {})
        cfg.merge_from_dict({f'model.{place}.init_cfg': init_cfg})
    model = MODELS.build(cfg.model)
    model.init_weights()
    own = model.get_submodule(place).state_dict()
    assert all(torch.allclose(own[k].float(), v.float()) for k, v in state.items())


@pytest.mark.parametrize('path', MIXES, ids=lambda p: osp.basename(p)[:-3])
def test_mix_trains_and_evaluates(path, tmp_path, quickstart):
    """From weights of its backbone's own layout."""
    cfg = load_mix(path, tmp_path)
    if 'landmark' in cfg.model.backbone:
        cfg.model.backbone.landmark.checkpoint = write_landmark_net(tmp_path / 'landmarks.pth')
    give_weights(cfg, osp.basename(path)[:-3], tmp_path / 'weights.pth')
    runner = Runner.from_cfg(cfg)
    before = {k: v.clone() for k, v in runner.model.named_parameters()}
    runner.train()
    still = [
        k
        for k, v in runner.model.named_parameters()
        if v.requires_grad and torch.equal(v, before[k])
    ]
    assert still == []
    logged = runner.message_hub.log_scalars
    assert all(
        torch.tensor(v.data[0]).isfinite().all()
        for k, v in logged.items()
        if k.startswith('train/loss')
    )
    joint = path.endswith('_joint.py')
    assert ('train/video_top1_acc' in logged) == joint
    assert ('train/image_top1_acc' in logged) == joint
    assert ('train/loss_balance' in logged) == ('_moae_' in path)
    # the metric of all test samples, from the predictions
    per_class = 100 / 7
    for name in ('video/', 'image/') if joint else ('',):
        recalls = [v.current() for k, v in logged.items() if k.startswith(f'val/{name}recall/')]
        assert len(recalls) == 7
        uar = logged[f'val/{name}UAR'].current()
        assert uar == pytest.approx(sum(recalls) / 7)
        assert logged[f'val/{name}WAR'].current() == pytest.approx(uar, abs=per_class)
    assert osp.isfile(tmp_path / 'iter_4.pth')


def test_the_readme_lists_the_configs():
    with open(osp.join(ROOT, 'configs', 'mix', 'README.md'), encoding='utf-8') as f:
        listed = re.findall(r'^\| `(.+\.py)` \|', f.read(), re.MULTILINE)
    assert MIXES and sorted(listed) == [osp.basename(path) for path in MIXES]


# partner backbones, small: config, channels, frames that an image needs, and
# the head that the toolbox uses with it after MoAENeck
ARCH = dict(embed_dims=16, num_layers=2, num_heads=2)
RESNET = dict(type='mmpretrain.ResNet', depth=18, stem_channels=4, base_channels=4)
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
    img_size=32,
)
PARTNERS = {
    'S4DViT': (
        dict(type='S4DViT', arch=ARCH, img_size=32, num_frames=4),
        16,
        None,
        'TimeSformerHead',
    ),
    'S4DViT (feature maps)': (
        dict(type='S4DViT', arch=ARCH, img_size=32, num_frames=4, out_type='featmap'),
        16,
        4,
        'I3DHead',
    ),
    'VisionTransformer': (
        dict(
            type='VisionTransformer', img_size=32, embed_dims=16, depth=2, num_heads=2, num_frames=4
        ),
        16,
        4,
        'TimeSformerHead',
    ),
    'VisionTransformer (feature maps)': (
        dict(
            type='VisionTransformer',
            img_size=32,
            embed_dims=16,
            depth=2,
            num_heads=2,
            num_frames=4,
            return_feat_map=True,
        ),
        16,
        4,
        'I3DHead',
    ),
    'SwinTransformer3D': (
        dict(
            type='SwinTransformer3D',
            arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
            window_size=(2, 2, 2),
            pretrained2d=False,
        ),
        64,
        4,
        'I3DHead',
    ),
    'MViT': (
        dict(
            type='MViT',
            arch=dict(embed_dims=8, num_layers=3, num_heads=1, downscale_indices=[1]),
            spatial_size=32,
            temporal_size=4,
        ),
        16,
        4,
        'MViTHead',
    ),
    'ResNet3dSlowOnly': (
        dict(
            type='ResNet3dSlowOnly',
            depth=18,
            base_channels=4,
            pretrained=None,
            lateral=False,
            conv1_kernel=(1, 7, 7),
            conv1_stride_t=1,
            pool1_stride_t=1,
            inflate=(0, 0, 1, 1),
            norm_eval=False,
        ),
        32,
        1,
        'I3DHead',
    ),
    'UniFormer': (
        dict(
            type='UniFormer',
            depth=[1, 1, 1, 1],
            embed_dim=[8, 8, 16, 16],
            head_dim=8,
            pretrained2d=False,
        ),
        16,
        4,
        'I3DHead',
    ),
    'TimeSformer': (
        dict(
            type='TimeSformer',
            num_frames=4,
            img_size=32,
            patch_size=16,
            embed_dims=16,
            num_heads=2,
            num_transformer_layers=2,
        ),
        16,
        4,
        'TimeSformerHead',
    ),
    'mmpretrain ResNet': (dict(type='FrameWiseBackbone', backbone=RESNET), 32, 1, 'I3DHead'),
    'mmpretrain VisionTransformer (class token)': (
        dict(type='FrameWiseBackbone', backbone=VIT),
        16,
        None,
        None,
    ),
    'mmpretrain VisionTransformer (all tokens)': (
        dict(type='FrameWiseBackbone', backbone=dict(VIT, out_type='raw')),
        16,
        None,
        None,
    ),
    'mmpretrain VisionTransformer (feature maps)': (
        dict(type='FrameWiseBackbone', backbone=dict(VIT, out_type='featmap')),
        16,
        1,
        'I3DHead',
    ),
}


def pairs():
    for name, (_, _, _, head) in PARTNERS.items():
        for part in ('head', 'neck and head', 'neck'):
            if part != 'neck' or head is not None:
                yield pytest.param(name, part, id=f'{name}-{part}')


@pytest.mark.parametrize('name,part', pairs())
def test_partner_trains_a_step_and_predicts(name, part):
    """S4D's head, its neck and head, or its neck with the toolbox's head; on
    clips and (with S4D's head) on images."""
    backbone, channels, image_frames, head = PARTNERS[name]
    if name == 'S4DViT' and part == 'neck':
        backbone = dict(backbone, out_type='avg')  # what TimeSformerHead wants
    cfg = dict(
        type='Recognizer3D',
        data_preprocessor=dict(
            type='DualModalDataPreprocessor',
            mean=[128.0, 128.0, 128.0],
            std=[64.0, 64.0, 64.0],
            image_frames=image_frames,
        ),
        backbone=backbone,
        cls_head=dict(
            type='DualModalHead', in_channels=channels, num_classes=dict(video=7, image=8)
        ),
    )
    if 'neck' in part:
        cfg['neck'] = dict(
            type='MoAENeck', arch=dict(embed_dims=channels, num_layers=1, num_heads=2), num_layers=1
        )
    if part == 'neck':
        cfg['cls_head'] = dict(type=head, num_classes=7, in_channels=channels, average_clips='prob')
    init_default_scope('mmaction')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    shapes = dict(video=(1, 3, 4, 32, 32), image=(1, 3, 32, 32))
    for kind in ('video', 'image') if part != 'neck' else ('video',):
        batch = dict(
            inputs=[torch.randint(0, 256, shapes[kind], dtype=torch.uint8) for _ in range(2)],
            data_samples=[
                ActionDataSample(metainfo=dict(input_type=kind)).set_gt_label(y) for y in (1, 5)
            ],
        )
        before = {k: v.clone() for k, v in model.named_parameters()}
        losses = model.train().train_step(batch, optim)
        assert torch.isfinite(losses['loss'])
        assert ('loss_balance' in losses) == ('neck' in part)
        for name in ('backbone', 'neck', 'cls_head')[:: 1 + (part == 'head')]:
            values = {k: v for k, v in model.named_parameters() if k.startswith(name)}
            changed = [k for k in values if not torch.equal(values[k], before[k])]
            # biases may be so small that a step does not change them
            assert len(changed) > len(values) / 3, name
        with torch.no_grad():
            one = model.eval().test_step(batch)[0].pred_score
        assert one.shape == (8 if kind == 'image' else 7,)
        assert one.sum().item() == pytest.approx(1, abs=1e-4)


IMAGES, CLIPS = (3, 32, 32), (1, 3, 4, 32, 32)
FRAMES_AS_SEGMENTS = (4, 3, 32, 32)


@pytest.mark.parametrize(
    'scope,model,out_type,head,shape',
    [
        ('mmaction', 'Recognizer3D', dict(out_type='avg'), dict(type='TimeSformerHead'), CLIPS),
        ('mmaction', 'Recognizer3D', dict(out_type='featmap'), dict(type='I3DHead'), CLIPS),
        ('mmaction', 'Recognizer3D', dict(out_type='featmap'), dict(type='ClipTSNHead'), CLIPS),
        (
            'mmpretrain',
            'ImageClassifier',
            dict(out_type='avg', out_indices=(-1,)),
            dict(type='LinearClsHead'),
            IMAGES,
        ),
    ],
    ids=['TimeSformerHead', 'I3DHead', 'ClipTSNHead', 'LinearClsHead'],
)
def test_s4d_vit_with_a_head_of_the_toolbox(scope, model, out_type, head, shape):
    backbone = dict(type='S4DViT', arch=ARCH, img_size=32, num_frames=4, **out_type)
    cfg = dict(type=model, backbone=backbone)
    if scope == 'mmaction':
        preprocessor = dict(type='ActionDataPreprocessor', mean=[128.0] * 3, std=[64.0] * 3)
        cfg['data_preprocessor'] = dict(preprocessor, format_shape='NCTHW')
        cfg['cls_head'] = dict(head, num_classes=7, in_channels=16, average_clips='prob')
    else:
        cfg['data_preprocessor'] = dict(num_classes=7, mean=[128.0] * 3, std=[64.0] * 3)
        cfg['head'] = dict(head, num_classes=7, in_channels=16)
    trains_a_step_and_predicts(cfg, scope, shape)


def test_dual_modal_head_on_the_segments_of_tsn():
    """mmaction2's Recognizer2D, in which the frames of a clip are segments and an image has one."""
    cfg = dict(
        type='Recognizer2D',
        data_preprocessor=dict(type='DualModalDataPreprocessor', mean=[128.0] * 3, std=[64.0] * 3),
        backbone=RESNET,
        cls_head=dict(type='DualModalHead', in_channels=32, num_classes=dict(video=7, image=7)),
    )
    trains_a_step_and_predicts(cfg, 'mmaction', FRAMES_AS_SEGMENTS, input_type='video')
    trains_a_step_and_predicts(cfg, 'mmaction', (1, *IMAGES), input_type='image')


def trains_a_step_and_predicts(cfg, scope, shape, **metainfo):
    """A training step on two samples changes all parts; the prediction is of 7 classes."""
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    before = {k: v.clone() for k, v in model.named_parameters()}
    sample = ActionDataSample if scope == 'mmaction' else DataSample
    batch = dict(
        inputs=[torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2)],
        data_samples=[sample(metainfo=metainfo).set_gt_label(y) for y in (1, 5)],
    )
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    losses = model.train().train_step(batch, optim)
    assert torch.isfinite(losses['loss'])
    changed = [k for k, v in model.named_parameters() if not torch.equal(v, before[k])]
    assert {k.split('.')[0] for k in changed} == {k.split('.')[0] for k in before}
    with torch.no_grad():
        score = model.eval().test_step(batch)[0].pred_score
    assert score.shape == (7,) and score.sum().item() == pytest.approx(1, abs=1e-4)


def neck(dims, **kwargs):
    init_default_scope('mmaction')
    torch.manual_seed(0)
    arch = dict(embed_dims=dims, num_layers=2, num_heads=4)
    return MoAENeck(arch, num_layers=1, num_experts=4, **kwargs)


# what the partner backbones return
LAYOUTS = {
    'tokens': lambda c: torch.randn(2, 9, c),
    'pooled': lambda c: torch.randn(2, c),
    'video map': lambda c: torch.randn(2, c, 2, 3, 5),
    'image map': lambda c: torch.randn(2, c, 3, 5),
    'tuple': lambda c: (torch.randn(2, c, 3, 5),),
    'stages': lambda c: (torch.randn(2, 8, 6, 6), torch.randn(2, c, 3, 3)),
    'map and class token': lambda c: ([torch.randn(2, c, 2, 3, 3), torch.randn(2, c)],),
}


def shapes(x):
    if isinstance(x, torch.Tensor):
        return tuple(x.shape)
    return type(x), [shapes(part) for part in x]


def flat(x):
    return [x] if isinstance(x, torch.Tensor) else sum(map(flat, x), [])


class TestLayouts:
    @pytest.mark.parametrize('layout', LAYOUTS)
    def test_neck_returns_the_layout_it_gets(self, layout):
        torch.manual_seed(0)
        x, model = LAYOUTS[layout](32), neck(32).train()
        out, losses = model(x, [])
        assert shapes(out) == shapes(x)
        assert 1 < losses['loss_balance'] * 1e3 < 4
        tokens, restore = to_tokens(x)
        assert all(torch.equal(a, b) for a, b in zip(flat(restore(tokens)), flat(x)))
        # all positions are processed as tokens of one sequence
        model.eval()
        expected = model(tokens)[0]
        torch.testing.assert_close(to_tokens(model(x)[0])[0], expected)
        assert not torch.allclose(expected, tokens, atol=1e-3)

    def test_earlier_stages_are_left_alone(self):
        x = LAYOUTS['stages'](32)
        out, _ = neck(32).eval()(x)
        assert out[0] is x[0] and not torch.equal(out[1], x[1])

    def test_class_token_attends_to_the_map(self):
        model = neck(32).eval()
        features, cls = LAYOUTS['map and class token'](32)[0]
        a = model([features, cls])[0][1]
        b = model([torch.randn_like(features), cls])[0][1]
        assert not torch.allclose(a, b, atol=1e-4)

    def test_wrong_width(self):
        with pytest.raises(ValueError, match="embed_dims=32, but the backbone's features have 48"):
            neck(32).eval()(torch.zeros(1, 48, 2, 2))


class TestFrameWise:
    def test_clip_is_frame_after_frame(self):
        init_default_scope('mmaction')
        import mmpretrain.models  # noqa: F401

        clip = torch.randn(2, 3, 4, 32, 32)
        resnet = dict(type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8)
        vit = dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32),
            img_size=32,
        )
        for cfg, shape, where in [
            (resnet, (2, 64, 4, 1, 1), lambda x, t: x[:, :, t]),
            (dict(vit, out_type='raw'), (2, 20, 16), lambda x, t: x[:, 5 * t : 5 * t + 5]),
            (dict(vit, out_type='cls_token'), (2, 4, 16), lambda x, t: x[:, t]),
        ]:
            model = FrameWiseBackbone(cfg).eval()
            out = model(clip)
            assert out.shape == shape
            for t in range(4):
                image = model(clip[:, :, t])
                torch.testing.assert_close(where(out, t), image, atol=1e-5, rtol=1e-4)


class TestHeads:
    def samples(self, names, labels):
        return [
            ActionDataSample(metainfo=dict(input_type=n)).set_gt_label(y)
            for n, y in zip(names, labels)
        ]

    def test_segments_are_averaged(self):
        init_default_scope('mmaction')
        head = MODELS.build(
            dict(type='DualModalHead', in_channels=16, num_classes=dict(video=7, image=7))
        ).eval()
        maps = torch.randn(6, 16, 2, 2)
        samples = self.samples(['video'] * 2, [1, 2])
        one = head.loss(maps, samples, num_segs=3)
        pooled = maps.mean((2, 3)).view(2, 3, 16).mean(1)
        torch.testing.assert_close(one['loss_cls'], head.loss(pooled, samples)['loss_cls'])
        score = head.predict(maps, samples, num_segs=3)[1].pred_score
        torch.testing.assert_close(score, head(pooled, 'video')[1].softmax(0))

    def test_class_token_of_a_pair_is_used(self):
        head = MODELS.build(dict(type='DualModalHead', in_channels=16, num_classes=dict(video=7)))
        pair = [torch.randn(2, 16, 2, 3, 3), torch.randn(2, 16)]
        assert torch.equal(head.features((pair,)), head.fc_norm(pair[1]))

    def test_tsn_head_reads_the_segments_off_the_map(self):
        init_default_scope('mmaction')
        torch.manual_seed(0)
        head = MODELS.build(dict(type='ClipTSNHead', num_classes=7, in_channels=16)).eval()
        x = torch.randn(2, 16, 4, 3, 3)
        expected = head.fc_cls(x.mean((2, 3, 4)))
        torch.testing.assert_close(head(x), expected)
        frames = x.transpose(1, 2).flatten(0, 1)  # as in Recognizer2D
        torch.testing.assert_close(head(frames, num_segs=4), expected)


def test_images_as_clips():
    init_default_scope('mmaction')
    for frames in (1, 4):
        pre = MODELS.build(
            dict(
                type='DualModalDataPreprocessor',
                mean=[128.0, 128.0, 128.0],
                std=[64.0, 64.0, 64.0],
                image_frames=frames,
            )
        )
        image = torch.randint(0, 255, (1, 3, 8, 8), dtype=torch.uint8)
        clip = torch.randint(0, 255, (1, 3, 4, 8, 8), dtype=torch.uint8)
        out = pre(dict(inputs=[image], data_samples=[ActionDataSample()]))
        assert out['inputs'].shape == (1, 1, 3, frames, 8, 8)
        assert torch.equal(out['inputs'][0, 0, :, -1], (image[0] - 128.0) / 64)
        assert out['data_samples'][0].input_type == 'image'
        out = pre(dict(inputs=[clip], data_samples=[ActionDataSample()]))
        assert out['inputs'].shape == (1, 1, 3, 4, 8, 8)
    with pytest.raises(ValueError, match='image_frames'):
        MODELS.build(dict(type='DualModalDataPreprocessor', mean=[0.0], std=[1.0], image_frames=0))


def test_s4d_vit_stages_for_mmpretrain():
    init_default_scope('mmpretrain')
    cfg = dict(
        type='S4DViT',
        arch=dict(embed_dims=16, num_layers=4, num_heads=2),
        img_size=32,
        num_frames=4,
        out_type='featmap',
        final_norm=True,
    )
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg, out_indices=(1, -1))).eval()
    image, clip = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 4, 32, 32)
    assert [tuple(x.shape) for x in model(image)] == [(2, 16, 2, 2)] * 2
    assert [tuple(x.shape) for x in model(clip)] == [(2, 16, 2, 2, 2)] * 2
    # a clip of one frame is an image, with its layout a clip's
    one = model(image[:, :, None])[1]
    assert torch.equal(one.squeeze(2), model(image)[1])
    plain = MODELS.build(cfg).eval()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(clip), model(clip)[1])
    for bad in [(0,), (3, 3), (4,), ()]:
        with pytest.raises(ValueError, match='out_indices'):
            MODELS.build(dict(cfg, out_indices=bad))


def test_slowfast_is_refused():
    """It returns two pathways; the last is the small one."""
    model = MODELS.build(dict(type='DualModalHead', in_channels=16, num_classes=dict(video=7)))
    pathways = (torch.randn(1, 64, 2, 3, 3), torch.randn(1, 16, 8, 3, 3))
    for part in (model.features, neck(16).eval()):
        with pytest.raises(ValueError, match='parallel pathways'):
            part(pathways)


def test_what_is_no_output_of_a_backbone():
    with pytest.raises(TypeError, match='got a str'):
        neck(16).eval()(('map',))


class TestMoAEImageClassifier:
    def cfg(self, **kwargs):
        init_default_scope('mmpretrain')
        return {
            **dict(
                type='MoAEImageClassifier',
                backbone=dict(type='ResNet', depth=18, stem_channels=4, base_channels=4),
                head=dict(type='LinearClsHead', num_classes=7, in_channels=32),
            ),
            **kwargs,
        }

    @pytest.mark.parametrize(
        'other', [None, dict(type='GlobalAveragePooling')], ids=['none', 'average']
    )
    def test_other_necks(self, other):
        """Without a neck of a loss it is an ImageClassifier."""
        torch.manual_seed(0)
        ours = MODELS.build(self.cfg(neck=other)).eval()
        theirs = MODELS.build(
            self.cfg(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'))
        ).eval()
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(2, 3, 32, 32)
        torch.testing.assert_close(ours(x), theirs(x))

    def test_plain_classifier_names_it(self):
        arch = dict(embed_dims=32, num_layers=1, num_heads=2)
        moae = dict(type='MoAENeck', arch=arch, num_layers=1)
        model = MODELS.build(self.cfg(type='ImageClassifier', neck=moae)).train()
        with pytest.raises(TypeError, match="type='MoAEImageClassifier'"):
            model(torch.zeros(2, 3, 32, 32), [DataSample().set_gt_label(1)] * 2, mode='loss')
