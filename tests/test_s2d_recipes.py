# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The recipes of S2D: what they build, sample, train and predict, on real clips."""

import json

import pytest
import torch
from helpers import read_config, without_workers, write_text, write_video
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from small_models import S2D, S2D_NET, write_landmark_net

from s4d_mm.models.landmark_net import cut_tail
from s4d_mm.models.s2d import EmotionAnchorHead

RECIPES = ('dfew', 'ferv39k', 'mafw')


def recipe(name):
    return read_config(f's2d_finetune_{name}')


def make_small(cfg, landmarks):
    """The same recipe with frames of 32 pixels and a ViT of two thin layers."""
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        for step in pipeline:
            if 'scale' in step:
                step['scale'] = (32, 32)
    landmark = dict(S2D['landmark'], checkpoint=landmarks)
    cfg.model.backbone.update(dict(S2D, num_frames=16, landmark=landmark))
    cfg.model.cls_head.in_channels = 32
    return cfg


def on_meta(cfg):
    """The model in full size, without memory."""
    parts = dict(cfg.model, data_preprocessor=None)
    with torch.device('meta'):
        return MODELS.build(parts)


# The authors' scripts, value by value. None stands for "not there".
BLENDED = dict(mixup=0.8, cutmix=1.0, smoothing=0.1, dropout=0.5)
PUBLISHED = dict(
    dfew=dict(classes=7, frames=16, stride=1, folds=5, folder='frames_16f', **BLENDED),
    ferv39k=dict(
        classes=7, frames=16, stride=1, folds=1, folder='frames',
        mixup=None, cutmix=None, smoothing=0, dropout=0,
    ),
    mafw=dict(classes=11, frames=16, stride=1, folds=5, folder='frames', **BLENDED),
)  # fmt: skip


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_is_the_published_one(name):
    """Each value of the authors' table, read from what the config builds."""
    cfg = recipe(name)
    init_default_scope('mmaction')
    model = on_meta(cfg)
    head = model.cls_head
    blending = MODELS.build(cfg.model.data_preprocessor).blending
    augments = blending['video'].augments if blending.get('video') else []
    alphas = {type(a).__name__: round(a.beta.concentration0.item(), 6) for a in augments}
    steps = [Compose(p).transforms for p in (cfg.train_pipeline, cfg.test_pipeline)]
    (frames,) = {s[1].clip_len for s in steps} | {model.backbone.num_frames}
    (stride,) = {s[1].frame_interval for s in steps}
    lists = cfg.train_dataloader.dataset.video.ann_file
    found = dict(
        classes=head.num_classes,
        frames=frames,
        stride=stride,
        folds=5 if 'set_1_' in lists else 1,
        mixup=alphas.get('ReversedMixupBlending'),
        cutmix=alphas.get('ReversedCutmixBlending'),
        smoothing=head.label_smooth_eps,
        dropout=head.dropout.p if head.dropout is not None else 0,
        folder=cfg.train_dataloader.dataset.video.data_prefix.video,
    )
    assert found == PUBLISHED[name]
    if augments:  # always one of the two, each half of the time
        assert len(augments) == 2 and blending['video'].probs is None
        assert [a.num_classes for a in augments] == [found['classes']] * 2
    assert isinstance(head, EmotionAnchorHead) == (name == 'ferv39k')
    if name == 'ferv39k':  # self-distillation: every 100th epoch, 16 anchors, of which 2
        anchors = head.anchors
        assert (head.update_interval, anchors.features.shape[1], anchors.top_k) == (100, 16, 2)
        assert head.loss_weights == ((30, 0.01), (50, 0.1), (60, 0.5), (80, 1.0))
        assert head.start_epoch == 21
        assert head.after_dropout and not head.anchors.clip_negative and not head.sync
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.video.data_prefix == dict(video=found['folder'])
    assert 'train' in lists and 'test' in cfg.val_dataloader.dataset.video.ann_file


@pytest.mark.parametrize('name', RECIPES)
def test_pipelines_are_the_published_ones(name):
    cfg = recipe(name)
    init_default_scope('mmaction')
    train, test = (
        {type(t).__name__: t for t in Compose(p).transforms}
        for p in (cfg.train_pipeline, cfg.test_pipeline)
    )
    assert list(train) == [
        *('ClipInit', 'SampleClipWindow', 'ClipDecode', 'ClipResize', 'ClipRandAugment'),
        *('RandomResizedCrop', 'Resize', 'Flip', 'TransformBroadcaster', 'FormatShape'),
        'PackActionInputs',
    ]
    for step in (train['ClipResize'], train['Resize'], test['ClipResize']):
        assert tuple(step.scale) == (224, 224)
    augment = train['ClipRandAugment'].augment
    assert (augment.num_policies, augment.level, augment.std) == (4, 7 / 10, 0.5 / 10)
    assert (augment.resampling.name, augment.color) == ('BICUBIC', (128,) * 3)
    crop = train['RandomResizedCrop']
    assert tuple(crop.area_range) == (0.08, 1.0)
    assert tuple(crop.aspect_ratio_range) == (3 / 4, 4 / 3)
    assert train['Flip'].flip_ratio == 0.5
    (erasing,) = train['TransformBroadcaster'].transforms
    assert (erasing.erase_prob, erasing.mode) == (0.25, 'rand')
    assert (erasing.min_area_ratio, erasing.max_area_ratio) == (0.02, 1 / 3)
    assert erasing.aspect_range == (3 / 10, 10 / 3)
    assert test['SampleClipViews'].num_views == 2
    assert cfg.model.cls_head.average_clips == 'prob'
    # of ImageNet, in pixels of 0 to 255
    normalise = MODELS.build(cfg.model.data_preprocessor)
    mean, std = (255 * torch.tensor(v) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.allclose(normalise.mean.flatten(), mean, atol=1e-3)
    assert torch.allclose(normalise.std.flatten(), std, atol=1e-3)


@pytest.mark.parametrize('name', RECIPES)
def test_schedule_is_the_published_one(name):
    cfg = recipe(name)
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.type == 'AdamW' and 'eps' not in optimizer  # torch's, 1e-8
    assert (optimizer.betas, optimizer.weight_decay) == ((0.9, 0.999), 0.05)
    assert 'clip_grad' not in cfg.optim_wrapper
    assert cfg.optim_wrapper.type == 'CpuFallbackAmpOptimWrapper'
    assert 'constructor' not in cfg.optim_wrapper  # no decay by layer
    assert cfg.train_dataloader.batch_sampler.total_batch_size == dict(video=2 * 8)
    assert optimizer.lr == 1e-5 * 16 / 8
    assert cfg.train_cfg.max_epochs == 100
    (scheduler,) = cfg.param_scheduler
    assert (scheduler.type, scheduler.warmup_share) == ('WarmupCosineLR', 2 / 100)
    assert scheduler.get('start_ratio', 0) == 0
    assert scheduler.end_ratio == pytest.approx(1e-8 * 16 / 256 / 2e-5)
    assert cfg.default_hooks.checkpoint.save_best == 'WAR'
    assert 'EMAHook' not in str(cfg.get('custom_hooks'))


@pytest.mark.parametrize('variant', ['', '_oversample'])
@pytest.mark.parametrize('name', RECIPES)
def test_sizes_classes_and_sampling(name, variant):
    cfg = recipe(name + variant)
    init_default_scope('mmaction')
    model = on_meta(cfg)
    count = {True: 0, False: 0}
    for key, value in model.named_parameters():
        if 'landmark.' not in key:
            count[value.requires_grad] += value.numel()
    classes = cfg.model.cls_head.num_classes
    # the authors' model without the norm that nothing uses (1,536 numbers)
    head = 769 * classes
    assert count[True] - head == 9_256_915 - 5_383
    assert sum(count.values()) - head == 95_054_035 - 5_383
    backbone, block = model.backbone, model.backbone.prompt_blocks[0]
    assert [layer.attn.num_heads for layer in backbone.layers] == [12] * 12
    assert block.temporal.t_adapter.attn.num_heads == 8
    assert (backbone.ln1.eps, backbone.layers[0].ln1.eps) == (1e-6, 1e-6)
    assert block.temporal.norm.eps == 1e-5
    video = cfg.train_dataloader.dataset.video
    assert len(DATASETS.get(video.type).METAINFO['classes']) == classes
    assert cfg.train_dataloader.sampler.get('balance') == (('video',) if variant else None)


def test_what_has_one_dimension_does_not_decay():
    cfg = recipe('dfew')
    init_default_scope('mmaction')
    model = on_meta(cfg)
    wrapper = dict(cfg.optim_wrapper, type='OptimWrapper')
    wrapper['optimizer'] = dict(wrapper['optimizer'], fused=False)
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    names = {id(p): n for n, p in model.named_parameters()}
    for group in optimizer.param_groups:
        (parameter,) = group['params']
        if parameter.requires_grad:
            flat = parameter.ndim == 1 or 'temporal_embedding' in names[id(parameter)]
            assert group['weight_decay'] == (0 if flat else 0.05), names[id(parameter)]
            assert group['lr'] == 2e-5


def test_a_small_training(tmp_path):
    """The small recipe on a clip a class, by mmengine's Runner."""
    folder, landmarks = tmp_path, write_landmark_net(tmp_path / 'net.pth', **S2D_NET)
    lines = ['video_name,label', *(f'{i:05d},{i}' for i in range(6))]
    write_text(folder / 'set_1.csv', '\n'.join(lines))
    for i in range(6):
        write_video(folder / 'clips' / f'{i:05d}.mp4', 18)
    cfg = without_workers(make_small(recipe('dfew_oversample'), landmarks))
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.video.update(
            data_root=str(folder),
            ann_file='set_1.csv',
            data_prefix=dict(video='clips'),
            suffix='.mp4',
        )
    cfg.train_dataloader.dataset.video.pipeline = cfg.train_pipeline
    for stage in ('val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.pipeline = cfg.test_pipeline
    cfg.train_dataloader.batch_sampler.total_batch_size = dict(video=2)
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    cfg.work_dir = str(folder / 'run')
    cfg.randomness = dict(seed=0)
    runner = Runner.from_cfg(cfg)
    runner.train()
    wanted = {k for k, v in runner.model.named_parameters() if v.requires_grad}
    paths = [folder / 'run' / f'epoch_{n}.pth' for n in (1, 2)]
    before, state = (torch.load(path, weights_only=True) for path in paths)
    before, after = before['state_dict'], state['state_dict']
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    # a scale is 10, and a step may be below what float32 can tell there
    scales = {k for k in wanted if k.endswith('fovea.smooth')}
    assert wanted - scales <= changed <= wanted
    # the frozen part costs no state of the optimizer
    assert len(state['optimizer']['state']) == len(wanted)
    net = cut_tail(torch.load(landmarks, weights_only=True)['state_dict'], landmarks)
    for name, value in net.items():
        assert torch.equal(after[f'backbone.landmark.{name}'], value), name
    summary = json.loads(next((folder / 'run').glob('**/summary.json')).read_text())
    assert 'WAR' in json.dumps(summary)
