# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""S4D's parts with other models: configs of ``configs/mix`` in the Runner, then part by part."""

import glob
import os.path as osp
import re

import pytest
import torch
from helpers import ROOT, without_workers
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from small_models import build, write_landmark_net

from s4d_mm.models.tokens import to_tokens
from s4d_mm.weights.s2d import to_s2d_authors

MIXES = sorted(glob.glob(osp.join(ROOT, 'configs', 'mix', '*.py')))


class AtStart(Hook):
    """Keeps the weights that a training starts from."""

    def before_train(self, runner):
        self.weights = {k: v.clone() for k, v in runner.model.state_dict().items()}


def in_own_layout(name, weights):
    """A file of the code that a mix's backbone comes from, with these weights of the backbone."""
    ours = {f'backbone.{k}': v for k, v in weights.items()}
    if name.startswith('s2d'):
        return dict(model=to_s2d_authors(ours)[0])
    if name.startswith('s4d'):
        theirs = {f'encoder.{k}': v for k, v in weights.items()}
        return dict(model={**theirs, 'encoder_to_decoder.weight': torch.zeros(8, 128)})
    if not name.startswith('slowonly'):
        return dict(state_dict=ours)  # of mmpretrain
    out = {}  # torchvision's ResNet, whose kernels have no temporal dimension
    for key, value in weights.items():
        key = re.sub(r'downsample\.(conv|bn)', lambda m: f'downsample.{int(m[1] == "bn")}', key)
        key = re.sub(r'conv(\d)\.bn', r'bn\1', key).replace('.conv.', '.')
        out[key] = value.sum(2) if value.ndim == 5 else value
    return out


@pytest.mark.parametrize('path', MIXES, ids=lambda p: osp.basename(p)[:-3])
def test_mix_trains_and_evaluates(path, tmp_path, quickstart):
    """From weights of its backbone's own layout."""
    cfg, name = without_workers(Config.fromfile(path)), osp.basename(path)
    cfg.train_dataloader.batch_size = 4
    if 'batch_sampler' in cfg.train_dataloader:
        cfg.train_dataloader.batch_sampler.batch_size = 4
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    cfg.param_scheduler = []
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=4)
    cfg.work_dir = str(tmp_path)
    if 'landmark' in cfg.model.backbone:
        cfg.model.backbone.landmark.checkpoint = write_landmark_net(tmp_path / 'landmarks.pth')
    place, file = 'backbone', str(tmp_path / 'weights.pth')
    init_cfg = dict(type='Pretrained', checkpoint=file)
    if name.startswith('mmpretrain'):
        place = 'backbone.backbone'
    if name.startswith(('mmpretrain', 'resnet')):
        init_cfg['prefix'] = 'backbone.'
    slowonly = name.startswith('slowonly')
    cfg.merge_from_dict(
        {'model.backbone.pretrained': file} if slowonly else {f'model.{place}.init_cfg': init_cfg}
    )
    runner, start = Runner.from_cfg(cfg), AtStart()
    runner.register_hook(start)
    given, generator = {}, torch.Generator().manual_seed(1)
    for key, value in runner.model.get_submodule(place).state_dict().items():
        if value.is_floating_point() and not key.startswith('landmark.'):
            given[key] = torch.rand(value.shape, generator=generator) / 20
        if slowonly and value.ndim == 5:  # inflated: the same at all times
            given[key] = given[key].mean(2, keepdim=True).expand_as(value)
    torch.save(in_own_layout(name, given), file)
    runner.train()
    for key, value in given.items():
        torch.testing.assert_close(start.weights[f'{place}.{key}'], value, msg=key)
    trained = {k: v for k, v in runner.model.named_parameters() if v.requires_grad}
    assert [k for k, v in trained.items() if torch.equal(v, start.weights[k])] == []
    logged = runner.message_hub.log_scalars
    losses = [v.data[0] for k, v in logged.items() if k.startswith('train/loss')]
    assert all(torch.tensor(loss).isfinite().all() for loss in losses)
    joint = path.endswith('_joint.py')
    for kind in ('video', 'image'):
        assert (f'train/{kind}_top1_acc' in logged) == joint
    assert ('train/loss_balance' in logged) == ('_moae_' in path)
    # the metric of all test samples, from the predictions
    for kind in ('video/', 'image/') if joint else ('',):
        recalls = [v.current() for k, v in logged.items() if k.startswith(f'val/{kind}recall/')]
        assert len(recalls) == 7
        assert logged[f'val/{kind}UAR'].current() == pytest.approx(sum(recalls) / 7)


# partner backbones, small: config, channels, frames that an image needs, and the head that the
# toolbox uses with it after MoAENeck
ARCH = dict(embed_dims=16, num_layers=2, num_heads=2)
SIZE = dict(img_size=32, num_frames=4)
S4D = dict(type='S4DViT', arch=ARCH, **SIZE)
VIDEOMAE = dict(type='VisionTransformer', embed_dims=16, depth=2, num_heads=2, **SIZE)
SWIN = dict(
    type='SwinTransformer3D',
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    window_size=(2, 2, 2),
    pretrained2d=False,
)
MVIT = dict(
    type='MViT',
    arch=dict(embed_dims=8, num_layers=3, num_heads=1, downscale_indices=[1]),
    spatial_size=32,
    temporal_size=4,
)
SLOW = dict(type='ResNet3dSlowOnly', depth=18, base_channels=4, pretrained=None, norm_eval=False)
UNIFORMER = dict(type='UniFormer', depth=[1] * 4, embed_dim=[8, 8, 16, 16], head_dim=8)
TIMESFORMER = dict(
    type='TimeSformer',
    patch_size=16,
    embed_dims=16,
    num_heads=2,
    num_transformer_layers=2,
    **SIZE,
)
RESNET = dict(type='mmpretrain.ResNet', depth=18, stem_channels=4, base_channels=4)
VIT_ARCH = dict(**ARCH, feedforward_channels=32)
VIT = dict(type='mmpretrain.VisionTransformer', arch=VIT_ARCH, img_size=32)


def frame_wise(backbone, **options):
    return dict(type='FrameWiseBackbone', backbone=dict(backbone, **options))


PARTNERS = {
    'S4DViT': (S4D, 16, None, 'TimeSformerHead'),
    'S4DViT (feature maps)': (dict(S4D, out_type='featmap'), 16, 4, 'I3DHead'),
    'VisionTransformer': (VIDEOMAE, 16, 4, 'TimeSformerHead'),
    'VisionTransformer (feature maps)': (dict(VIDEOMAE, return_feat_map=True), 16, 4, 'I3DHead'),
    'SwinTransformer3D': (SWIN, 64, 4, 'I3DHead'),
    'MViT': (MVIT, 16, 4, 'MViTHead'),
    'ResNet3dSlowOnly': (SLOW, 32, 1, 'I3DHead'),
    'UniFormer': (dict(UNIFORMER, pretrained2d=False), 16, 4, 'I3DHead'),
    'TimeSformer': (TIMESFORMER, 16, 4, 'TimeSformerHead'),
    'ResNet': (frame_wise(RESNET), 32, 1, 'I3DHead'),
    'ViT (class token)': (frame_wise(VIT), 16, None, None),
    'ViT (all tokens)': (frame_wise(VIT, out_type='raw'), 16, None, None),
    'ViT (feature maps)': (frame_wise(VIT, out_type='featmap'), 16, 1, 'I3DHead'),
}
PAIRS = [
    pytest.param(name, part, id=f'{name}-{part}')
    for name, (_, _, _, head) in PARTNERS.items()
    for part in ('head', 'neck and head', 'neck')
    if part != 'neck' or head is not None
]
PIXELS = dict(mean=[128.0] * 3, std=[64.0] * 3)
SHAPES = dict(video=(1, 3, 4, 32, 32), image=(1, 3, 32, 32))


def trains_a_step_and_predicts(cfg, scope, cases):
    """A step on two samples of each case changes all parts; the prediction is of its classes."""
    model, sample = build(cfg, scope), ActionDataSample if scope == 'mmaction' else DataSample
    optim = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    for meta, shape, classes in cases:
        batch = dict(
            inputs=[torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2)],
            data_samples=[sample(metainfo=meta).set_gt_label(y) for y in (1, 5)],
        )
        before = {k: v.clone() for k, v in model.named_parameters()}
        losses = model.train().train_step(batch, optim)
        assert torch.isfinite(losses['loss'])
        assert ('loss_balance' in losses) == (dict(cfg.get('neck') or {}).get('type') == 'MoAENeck')
        changed = [k for k, v in model.named_parameters() if not torch.equal(v, before[k])]
        for part in {k.split('.')[0] for k in before}:
            count = sum(k.startswith(f'{part}.') for k in before)
            # biases may be so small that a step does not change them
            assert sum(k.startswith(f'{part}.') for k in changed) > count / 3, part
        with torch.no_grad():
            score = model.eval().test_step(batch)[0].pred_score
        assert score.shape == (classes,) and score.sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize('name, part', PAIRS)
def test_partner_trains_a_step_and_predicts(name, part):
    """S4D's head, its neck and head, or its neck with the toolbox's head, on clips and images."""
    backbone, channels, image_frames, head = PARTNERS[name]
    if name == 'S4DViT' and part == 'neck':
        backbone = dict(backbone, out_type='avg')  # what TimeSformerHead wants
    pixels = dict(type='DualModalDataPreprocessor', image_frames=image_frames, **PIXELS)
    both = dict(type='DualModalHead', in_channels=channels, num_classes=dict(video=7, image=8))
    cfg = dict(type='Recognizer3D', backbone=backbone, data_preprocessor=pixels, cls_head=both)
    if 'neck' in part:
        arch = dict(embed_dims=channels, num_layers=1, num_heads=2)
        cfg['neck'] = dict(type='MoAENeck', arch=arch, num_layers=1)
    cases = [(dict(input_type='video'), SHAPES['video'], 7)]
    if part == 'neck':
        cfg['cls_head'] = dict(type=head, num_classes=7, in_channels=channels, average_clips='prob')
    else:
        cases += [(dict(input_type='image'), SHAPES['image'], 8)]
    trains_a_step_and_predicts(cfg, 'mmaction', cases)


def classifier(**options):
    cfg = dict(
        type='MoAEImageClassifier',
        backbone=dict(type='ResNet', depth=18, stem_channels=4, base_channels=4),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=32),
        data_preprocessor=dict(num_classes=7, **PIXELS),
    )
    return {**cfg, **options}


def test_image_classifiers():
    """S4DViT in mmpretrain's, MoAENeck in ours, which with another neck is as mmpretrain's."""
    moae = dict(type='MoAENeck', arch=dict(ARCH, embed_dims=32), num_layers=1)
    s4d = classifier(
        type='ImageClassifier',
        backbone=dict(S4D, out_type='avg', out_indices=(-1,)),
        head=dict(type='LinearClsHead', num_classes=7, in_channels=16),
    )
    for cfg in (s4d, classifier(neck=moae)):
        trains_a_step_and_predicts(cfg, 'mmpretrain', [({}, (3, 32, 32), 7)])
    average, x = dict(type='GlobalAveragePooling'), torch.randn(2, 3, 32, 32)
    theirs = build(classifier(type='ImageClassifier', neck=average), 'mmpretrain').eval()
    for neck in (None, average):
        ours = build(classifier(neck=neck), 'mmpretrain').eval()
        ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours(x), theirs(x))


def test_dual_modal_head_on_the_segments_of_tsn():
    """mmaction2's Recognizer2D, in which the frames of a clip are segments and an image has one."""
    cfg = dict(
        type='Recognizer2D',
        data_preprocessor=dict(type='DualModalDataPreprocessor', **PIXELS),
        backbone=RESNET,
        cls_head=dict(type='DualModalHead', in_channels=32, num_classes=dict(video=7, image=7)),
    )
    cases = [(dict(input_type='video'), (4, 3, 32, 32), 7)]
    cases += [(dict(input_type='image'), SHAPES['image'], 7)]
    trains_a_step_and_predicts(cfg, 'mmaction', cases)


def neck(dims=32):
    arch = dict(embed_dims=dims, num_layers=2, num_heads=4)
    return build(dict(type='MoAENeck', arch=arch, num_layers=1, num_experts=4))


# what the partner backbones return
LAYOUTS = {
    'tokens': lambda: torch.randn(2, 9, 32),
    'pooled': lambda: torch.randn(2, 32),
    'video map': lambda: torch.randn(2, 32, 2, 3, 5),
    'image map': lambda: torch.randn(2, 32, 3, 5),
    'tuple': lambda: (torch.randn(2, 32, 3, 5),),
    'stages': lambda: (torch.randn(2, 8, 6, 6), torch.randn(2, 32, 3, 3)),
    'map and class token': lambda: ([torch.randn(2, 32, 2, 3, 3), torch.randn(2, 32)],),
}


def flat(x):
    return [x] if isinstance(x, torch.Tensor) else sum(map(flat, x), [])


@pytest.mark.parametrize('layout', LAYOUTS)
def test_neck_returns_the_layout_it_gets(layout):
    torch.manual_seed(0)
    x, model = LAYOUTS[layout](), neck().train()
    out, losses = model(x, [])
    assert type(out) is type(x) and [p.shape for p in flat(out)] == [p.shape for p in flat(x)]
    assert 1 < losses['loss_balance'] * 1e3 < 4
    tokens, restore = to_tokens(x)
    assert all(torch.equal(a, b) for a, b in zip(flat(restore(tokens)), flat(x)))
    # all positions are processed as tokens of one sequence, earlier stages left alone
    out, expected = model.eval()(x)[0], model(tokens)[0]
    torch.testing.assert_close(to_tokens(out)[0], expected)
    assert not torch.allclose(expected, tokens, atol=1e-3)
    assert layout != 'stages' or out[0] is x[0]


def test_two_pathways_of_slowfast_are_refused():
    pathways = (torch.randn(1, 64, 2, 3, 3), torch.randn(1, 16, 8, 3, 3))
    with pytest.raises(ValueError, match='parallel pathways'):
        neck(16).eval()(pathways)


@pytest.mark.parametrize(
    'backbone, shape, frame',
    [
        (RESNET, (2, 32, 4, 1, 1), lambda x, t: x[:, :, t]),
        (dict(VIT, out_type='raw'), (2, 20, 16), lambda x, t: x[:, 5 * t : 5 * t + 5]),
        (dict(VIT, out_type='cls_token'), (2, 4, 16), lambda x, t: x[:, t]),
    ],
)
def test_frame_wise_backbone(backbone, shape, frame):
    model, clip = build(frame_wise(backbone)).eval(), torch.randn(2, 3, 4, 32, 32)
    out = model(clip)
    assert out.shape == shape
    for t in range(4):
        torch.testing.assert_close(frame(out, t), model(clip[:, :, t]), atol=1e-5, rtol=1e-4)


def test_tsn_head_reads_the_segments_off_the_map():
    head = build(dict(type='ClipTSNHead', num_classes=7, in_channels=16)).eval()
    x = torch.randn(2, 16, 4, 3, 3)
    expected = head.fc_cls(x.mean((2, 3, 4)))
    torch.testing.assert_close(head(x), expected)
    frames = x.transpose(1, 2).flatten(0, 1)  # as in Recognizer2D
    torch.testing.assert_close(head(frames, num_segs=4), expected)
