# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The recipes of S2D: what they build, sample, train and predict, on real clips."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, write_frames, write_video
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from small_models import write_landmark_net

from s4d_mm.cli import main as s4d
from s4d_mm.files.errors import WeightsError

RECIPES = ('dfew', 'ferv39k', 'mafw')
SIZES = dict(channels=(8, 8, 16), widths=(16, 16, 32, 32), depths=(1, 1))


def recipe(name):
    return Config.fromfile(f'{ROOT}/configs/s2d_finetune_{name}.py')


def make_small(cfg, landmarks):
    """The same recipe with frames of 32 pixels and a ViT of two thin layers."""
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline):
        for step in pipeline:
            if 'scale' in step:
                step['scale'] = (32, 32)
    cfg.model.backbone.update(
        arch=dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64),
        img_size=32,
        patch_size=8,
        landmark=dict(type='LandmarkMobileFaceNet', checkpoint=landmarks, input_size=32, **SIZES),
    )
    cfg.model.cls_head.in_channels = 32
    return cfg


def on_meta(cfg):
    """The model in full size, without memory."""
    parts = dict(cfg.model, data_preprocessor=None)
    with torch.device('meta'):
        return MODELS.build(parts)


@pytest.fixture(scope='module')
def landmarks(tmp_path_factory):
    return write_landmark_net(tmp_path_factory.mktemp('landmarks') / 'net.pth', **SIZES)


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
    video = cfg.train_dataloader.dataset.video
    assert len(DATASETS.get(video.type).METAINFO['classes']) == classes
    blending = cfg.model.data_preprocessor.blending.video
    assert (blending is None) == (name == 'ferv39k')
    for augment in blending.augments if blending else ():
        assert augment.num_classes == classes
    assert cfg.model.cls_head.label_smooth_eps == (0 if name == 'ferv39k' else 0.1)
    assert cfg.train_dataloader.batch_sampler.total_batch_size == dict(video=16)
    assert cfg.train_dataloader.sampler.get('balance') == (('video',) if variant else None)


def test_learning_rate_and_decay():
    """2e-5, from 0 over 2 epochs, then a cosine to 6.25e-10; no decay of what has one dimension."""
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
    (scheduler,) = cfg.param_scheduler
    scheduler = dict(scheduler, end=100, optimizer=optimizer)
    scheduler.pop('convert_to_iter_based')
    cls = PARAM_SCHEDULERS.get(scheduler.pop('type'))
    schedule = cls.build_iter_from_epoch(**scheduler, epoch_length=10)
    rates = []
    for _ in range(1000):
        rates.append(optimizer.param_groups[0]['lr'])
        schedule.step()
    assert rates[0] == 0 and rates[19] == pytest.approx(2e-5) and rates[20] == pytest.approx(2e-5)
    middle = 6.25e-10 + (2e-5 - 6.25e-10) * 0.5
    assert rates[510] == pytest.approx(middle, rel=1e-4)
    assert rates[-1] == pytest.approx(6.25e-10, rel=0.1)
    assert math.isclose(max(rates), 2e-5)


@pytest.mark.parametrize('length', [9, 16, 40])
def test_the_frames_of_a_clip(length, tmp_path):
    """16 frames one after the other; in testing the first 16 and the last 16."""
    from s4d_mm.datasets.transforms.loading import SampleClipViews, SampleClipWindow

    cfg = recipe('dfew')
    window, views = cfg.train_pipeline[1], cfg.test_pipeline[1]
    assert window.type == 'SampleClipWindow' and views.type == 'SampleClipViews'
    results = dict(total_frames=length, start_index=0)
    short = [*range(length), *[length - 1] * (16 - length)]
    starts = set()
    for seed in range(60):
        np.random.seed(seed)
        options = {k: v for k, v in window.items() if k != 'type'}
        frames = SampleClipWindow(**options).transform(dict(results))['frame_inds'].tolist()
        start = frames[0]
        starts.add(start)
        assert frames == (short if length <= 16 else list(range(start, start + 16)))
    # the window that ends at the last frame is never drawn
    assert max(starts) == max(length - 17, 0)
    options = {k: v for k, v in views.items() if k != 'type'}
    out = SampleClipViews(**options).transform(dict(results))
    assert out['num_clips'] == (2 if length > 16 else 1)
    expected = [*range(16), *range(length - 16, length)] if length > 16 else short
    assert out['frame_inds'].tolist() == expected


def test_the_pipelines_on_a_folder_of_frames(tmp_path):
    cfg = recipe('dfew')
    init_default_scope('mmaction')
    write_frames(str(tmp_path / 'clip'), 20)
    np.random.seed(0)
    sample = dict(filename=str(tmp_path / 'clip'), label=3, input_type='video', sample_id='clip')
    sample.update(modality='RGB', start_index=0)
    for pipeline, views in ((cfg.train_pipeline, 1), (cfg.test_pipeline, 2)):
        packed = Compose(pipeline)(dict(sample))
        assert packed['inputs'].shape == (views, 3, 16, 224, 224)
        assert packed['inputs'].dtype == torch.uint8


@pytest.fixture(scope='module')
def trained(landmarks, tmp_path_factory):
    """A training of the small recipe on three clips a class, by mmengine's Runner."""
    folder = tmp_path_factory.mktemp('s2d')
    lines = ['video_name,label']
    for i in range(6):
        write_video(str(folder / 'clips' / f'{i:05d}.mp4'), num_frames=18)
        lines.append(f'{i:05d},{i}')
    for part in ('train', 'test'):
        (folder / f'set_1_{part}.csv').write_text('\n'.join(lines) + '\n')
    cfg = make_small(recipe('dfew_oversample'), landmarks)
    for stage in ('train', 'val', 'test'):
        loader = cfg[f'{stage}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
        loader.dataset.video.update(
            data_root=str(folder),
            ann_file=f'set_1_{"train" if stage == "train" else "test"}.csv',
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
    cfg.dump(str(folder / 'config.py'))
    runner = Runner.from_cfg(cfg)
    runner.train()
    return folder, runner


def test_a_small_training(trained, landmarks):
    folder, runner = trained
    wanted = {k for k, v in runner.model.named_parameters() if v.requires_grad}
    before, after = (
        torch.load(folder / 'run' / f'epoch_{n}.pth', weights_only=True)['state_dict']
        for n in (1, 2)
    )
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == wanted
    state = torch.load(folder / 'run' / 'epoch_2.pth', weights_only=True)
    # the frozen part costs no state of the optimizer
    assert len(state['optimizer']['state']) == len(wanted)
    net = torch.load(landmarks, weights_only=True)['state_dict']
    for name, value in net.items():
        assert torch.equal(state['state_dict'][f'backbone.landmark.{name}'], value), name
    summary = json.loads(next((folder / 'run').glob('**/summary.json')).read_text())
    assert 'WAR' in json.dumps(summary)


def test_prediction(trained, tmp_path, capsys):
    """Windows of 16 frames one after the other; the checkpoint holds the landmark network."""
    folder, _ = trained
    cfg = Config.fromfile(str(folder / 'config.py'))
    cfg.model.backbone.landmark.checkpoint = None
    cfg.dump(str(tmp_path / 'config.py'))
    clip = write_video(str(tmp_path / 'clip.mp4'), num_frames=40)
    code = s4d(
        ['predict', clip, '--faces', 'none', '--model', str(tmp_path / 'config.py')]
        + ['--weights', str(folder / 'run' / 'epoch_2.pth'), '--out', str(tmp_path / 'out')]
    )
    assert code == 0, capsys.readouterr().err
    table = (tmp_path / 'out' / 'clip.csv').read_text().splitlines()
    assert len(table) == 1 + 3  # windows of 40 frames, the last of which moves back
    assert 'happiness' in table[0]


def test_landmark_weights_are_never_random(trained, tmp_path, capsys):
    folder, _ = trained
    cfg = Config.fromfile(str(folder / 'config.py'))
    cfg.model.backbone.landmark.checkpoint = None
    state = torch.load(folder / 'run' / 'epoch_2.pth', weights_only=True)['state_dict']
    state = {k: v for k, v in state.items() if 'landmark.' not in k}
    torch.save(dict(state_dict=state), tmp_path / 'bare.pth')
    cfg.dump(str(tmp_path / 'config.py'))
    clip = write_video(str(tmp_path / 'clip.mp4'), num_frames=20)
    code = s4d(
        ['predict', clip, '--faces', 'none', '--model', str(tmp_path / 'config.py')]
        + ['--weights', str(tmp_path / 'bare.pth')]
    )
    assert code == 2
    error = capsys.readouterr().err
    assert 'mobilefacenet_model_best.pth.tar' in error and 'licence' in error
    model = MODELS.build(cfg.model.backbone)
    with pytest.raises(WeightsError, match='no trained weights'):
        model(torch.zeros(1, 3, 32, 32))


def test_the_readme_of_the_recipes_is_true():
    page = Path(ROOT, 'docs', 's2d.md').read_text(encoding='utf-8')
    for name in RECIPES:
        assert f's2d_finetune_{name}.py' in page
