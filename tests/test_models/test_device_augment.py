# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Augmentation on the device: mmpretrain's draws and pixels."""

import os.path as osp
import random

import cv2
import numpy as np
import pytest
import torch
from mmaction.structures import ActionDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, init_default_scope
from mmengine.runner import Runner
from test_data_preprocessor import BLENDING, CONFIGS, DEVICES, NORM, batch, joined
from test_host_sync import needs_fake_gpu
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from s4d_mm.datasets import ClipRandomResizedCrop
from s4d_mm.models import BatchRandAugment, BatchRandomErasing, BatchRandomResizedCrop
from s4d_mm.models.data_preprocessors import device_augment

PAD = [124, 116, 104]
RANDAUG = dict(
    policies='timm_increasing',
    num_policies=4,
    magnitude_level=7,
    magnitude_std=0.5,
    hparams=dict(pad_val=PAD, interpolation='bicubic'),
)
CROP = dict(type='BatchRandomResizedCrop', size=8)
BLACK = dict(type='BatchRandomErasing', erase_prob=1.0, fill_color=0)


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


def seed(value):
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def picture(height=64, width=72, number=0):
    """Smooth colours with some noise, uint8 (H, W, 3)."""
    rng = np.random.default_rng(number)
    img = rng.uniform(0, 255, (8, 9, 3))
    img = cv2.resize(img, (width, height), interpolation=cv2.INTER_CUBIC)
    img += rng.normal(0, 5, img.shape)
    return np.clip(img, 10, 240).astype(np.uint8)


def as_image(*pictures):
    """(B, 1, 3, H, W)"""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)[:, None]


def as_clip(*pictures, frames=3):
    """Clips of equal frames, (B, 1, 3, T, H, W)."""
    return as_image(*pictures)[:, :, :, None].repeat(1, 1, 1, frames, 1, 1)


def as_picture(x):
    return x.cpu().permute(1, 2, 0).numpy()


def mmpretrain(name, **kwargs):
    return TRANSFORMS.build(dict(type=name, _scope_='mmpretrain', **kwargs))


def difference(a, b):
    """Mean and largest difference in levels."""
    d = np.abs(a.astype(int) - b)
    return d.mean(), d.max()


SIDE, UP = dict(direction='horizontal'), dict(direction='vertical')
# type, options, whether mmpretrain has to see the channels in reverse, the
# largest mean and single difference. With OpenCV 5 those of the moves are
# 0.01 and 1; older ones round positions.
CASES = [
    ('AutoContrast', dict(), 0, 0.2, 1),
    ('Equalize', dict(), 0, 0, 0),
    ('Invert', dict(), 0, 0, 0),
    ('Posterize', dict(bits=3), 0, 0, 0),
    ('Posterize', dict(bits=0), 0, 0, 0),
    ('Solarize', dict(thr=77.3), 0, 0, 0),
    ('Solarize', dict(thr=256), 0, 0, 0),
    ('SolarizeAdd', dict(magnitude=77.4), 0, 0, 0),
    ('ColorTransform', dict(magnitude=0.63), 1, 1, 2),
    ('ColorTransform', dict(magnitude=-0.63), 1, 1, 2),
    ('Contrast', dict(magnitude=0.63), 1, 1, 2),
    ('Contrast', dict(magnitude=-0.63), 1, 1, 2),
    ('Brightness', dict(magnitude=0.63), 0, 0.05, 1),
    ('Brightness', dict(magnitude=-0.63), 0, 0.05, 1),
    ('Sharpness', dict(magnitude=0.63), 0, 0.1, 1),
    ('Sharpness', dict(magnitude=-0.63), 0, 0.1, 1),
    ('Rotate', dict(angle=21.0), 0, 0.2, 3),
    ('Rotate', dict(angle=-21.0, center=(20, 30), scale=0.8), 0, 0.2, 3),
    ('Shear', dict(magnitude=0.21, **SIDE), 0, 0.2, 3),
    ('Shear', dict(magnitude=-0.21, **UP), 0, 0.2, 3),
    ('Translate', dict(magnitude=0.31, **SIDE), 0, 0.2, 3),
    ('Translate', dict(magnitude=-0.31, **UP), 0, 0.2, 3),
]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('name, options, reverse, mean, most', CASES)
def test_operations_of_mmpretrain(name, options, reverse, mean, most, device):
    policy = dict(type=name, prob=1.0, **options)
    if device_augment.OPERATIONS[name].signed:
        policy['random_negative_prob'] = 0.0
    warps = name in ('Rotate', 'Shear', 'Translate')
    for how in ('bicubic', 'bilinear')[: 1 + warps]:
        if warps:
            policy.update(pad_val=PAD, interpolation=how)
        img = picture()
        there = mmpretrain(name, **{k: v for k, v in policy.items() if k != 'type'})
        step = -1 if reverse else 1  # mmcv's grey is of BGR
        wanted = there(dict(img=img[..., ::step].copy()))['img'][..., ::step]
        part = BatchRandAugment([policy], 1, 0).to(device)
        clips = as_clip(img, picture(number=1)).to(device)
        before = clips.clone()
        out = part(clips)
        assert out.dtype == torch.uint8 and out.shape == clips.shape
        assert out.is_contiguous() and torch.equal(clips, before)
        for t in range(3):
            found = difference(as_picture(out[0, 0, :, t]), wanted)
            assert found[0] <= mean and found[1] <= most, found
        if (name, options) != ('Solarize', dict(thr=256)):
            assert difference(wanted, img)[0] > 1  # it did something
        assert torch.equal(part(as_image(img).to(device))[0], out[0, :, :, 0])


EXACT = [
    dict(type='Equalize'),
    dict(type='Invert'),
    dict(type='Posterize', magnitude_range=(4, 0)),
    dict(type='Solarize', magnitude_range=(256, 0)),
    dict(type='SolarizeAdd', magnitude_range=(0, 110)),
]
MOVES = [
    dict(type='Rotate', magnitude_range=(0, 30)),
    dict(type='Shear', magnitude_range=(0, 0.3), **SIDE),
    dict(type='Shear', magnitude_range=(0, 0.3), **UP),
    dict(type='Translate', magnitude_range=(0, 0.45), **SIDE),
    dict(type='Translate', magnitude_range=(0, 0.45), **UP),
]


@pytest.mark.parametrize('std', [0.5, 0, 'inf'])
@pytest.mark.parametrize(
    'policies, tolerance',
    [(EXACT, 0), (MOVES, 1), ('timm_increasing', None), ('simple_increasing', None)],
)
def test_draws_of_mmpretrain(policies, tolerance, std):
    """With one seed: the same operations and signs, and the same numbers
    taken from the generator."""
    cfg = dict(RANDAUG, policies=policies, magnitude_std=std)
    there, part = mmpretrain('RandAugment', **cfg), BatchRandAugment(**cfg)
    img, changed = picture(), 0
    for i in range(20):
        out, states = [], []
        for run in (
            lambda: there(dict(img=img.copy()))['img'],
            lambda: as_picture(part(as_image(img))[0, 0]),
        ):
            seed(i)
            out.append(run())
            states.append(np.random.get_state())
        assert states[0][2] == states[1][2]
        assert np.array_equal(states[0][1], states[1][1])
        if tolerance is not None:
            assert difference(*out)[0] <= tolerance
        changed += difference(out[0], img)[0] > 1
    assert changed >= 10


def test_policies_and_strengths_of_the_recipe():
    part = BatchRandAugment(**RANDAUG)
    seed(0)
    draws = [part.draw() for _ in range(3000)]
    counts = np.zeros(15)
    values = {i: [] for i in range(15)}
    for drawn in draws:
        for i, value in drawn:
            counts[i] += 1
            values[i].append(value)
    assert len(part.transform.policies) == 15
    # 4 of 15, each with probability 1/2: 400 each, standard deviation 20
    assert np.abs(counts - 400).max() < 90
    assert abs(np.mean([len(d) for d in draws]) - 2) < 0.1
    names = [type(t).__name__ for t in part.transform]
    angles = np.array(values[names.index('Rotate')])
    assert abs(np.abs(angles).mean() - 21) < 0.4  # level 7 of 10, of 30
    assert abs(np.abs(angles).std() - 1.5) < 0.3  # 0.5 of 10, of 30
    assert 0.4 < (angles < 0).mean() < 0.6
    bits = np.array(values[names.index('Posterize')])
    assert abs(bits.mean() - 1.2) < 0.1 and (bits > 0).all()


@pytest.mark.parametrize('device', DEVICES)
def test_frames_alike_and_samples_not(device):
    part = BatchRandAugment(**RANDAUG).to(device)
    crop = BatchRandomResizedCrop(size=48, flip_ratio=0.5)
    clips = as_clip(*[picture()] * 6).expand(-1, 2, -1, -1, -1, -1).to(device)
    images = as_image(*[picture()] * 6).to(device)
    for augment in (part, crop):
        seed(3)
        out = augment(clips)
        assert out.shape[:4] == (6, 2, 3, 3)
        # all views and frames of a sample
        assert torch.equal(out, out[:, :1, :, :1].expand_as(out))
        assert len({o.cpu().numpy().tobytes() for o in out[:, 0, :, 0]}) >= 5
        seed(3)
        assert torch.equal(augment(images)[:, 0], out[:, 0, :, 0])


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_crops_of_the_workers(interpolation, device):
    imgs = [picture(number=i) for i in range(4)]
    options = dict(size=40, interpolation=interpolation, area_range=(0.2, 1.0), flip_ratio=0.5)
    seed(0)
    out = BatchRandomResizedCrop(**options)(as_clip(*imgs).to(device))
    assert out.dtype == torch.uint8 and out.shape == (4, 1, 3, 3, 40, 40)
    seed(0)
    there = ClipRandomResizedCrop(**options)
    for img, found in zip(imgs, out):
        wanted = there(dict(imgs=[img] * 3))['imgs']
        for t in range(3):
            assert difference(as_picture(found[0, :, t]), wanted[t])[1] <= 1


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('color', [0, (10, 200, 30)])
def test_erasing_of_mmpretrain(device, color):
    cfg = dict(erase_prob=0.5, min_area_ratio=0.02, max_area_ratio=1 / 3, fill_color=color)
    there = mmpretrain('RandomErasing', **cfg)
    part = BatchRandomErasing(**cfg).to(device)
    imgs = [picture(number=i) for i in range(8)]
    clips = as_clip(*imgs).to(device)
    before = clips.clone()
    seed(1)
    out = part(clips)
    assert torch.equal(clips, before)
    seed(1)
    erased = 0
    for img, found in zip(imgs, out):
        wanted = there(dict(img=img.copy()))['img']
        erased += (wanted != img).any()
        for t in range(3):
            assert np.array_equal(as_picture(found[0, :, t]), wanted)
    assert 0 < erased < 8
    seed(1)
    assert torch.equal(part(as_image(*imgs).to(device)), out[:, :, :, 0])


@pytest.mark.parametrize('device', DEVICES)
def test_noise(device):
    """Normal noise in white clips, then uniform noise in black ones."""
    clips = torch.full((16, 1, 3, 4, 60, 80), 255, dtype=torch.uint8)
    mean, std = (124, 116, 104), (25, 20, 10)
    part = BatchRandomErasing(1.0, 0.3, 0.4, mode='rand', fill_color=mean, fill_std=std).to(device)
    seed(0)
    out = part(clips.to(device)).cpu()
    window = out != 255
    # a window of the same place in all frames and channels
    assert torch.equal(window, window[:, :, :1, :1].expand_as(window))
    share = window[:, 0, 0, 0].float().mean((1, 2))
    assert share.min() > 0.2 and share.max() < 0.41  # cut by the border
    rows, columns = (window[:, 0, 0, 0].any(d).sum(-1) for d in (2, 1))
    torch.testing.assert_close(share * 60 * 80, (rows * columns).float())
    for c in range(3):
        noise = out[:, :, c][window[:, :, c]].float()
        assert abs(noise.mean() - mean[c]) < 1  # half a level is cut off
        assert abs(noise.std() - std[c]) < 0.5
    assert not torch.equal(out[:, :, :, 0], out[:, :, :, 1])
    seed(0)
    assert torch.equal(part(clips.to(device)).cpu(), out)

    part = BatchRandomErasing(1.0, 0.3, 0.4, mode='rand').to(device)
    seed(0)
    noise = part(torch.zeros_like(clips).to(device)).cpu()
    noise = noise[window].float()
    assert abs(noise.mean() - 127.5) < 1 and abs(noise.std() - 73.9) < 1
    assert noise.min() == 0 and noise.max() == 255


def preprocessor(**kwargs):
    return MODELS.build(dict(type='DualModalDataPreprocessor', **NORM, **kwargs))


def randaugment(**kwargs):
    return dict(RANDAUG, type='BatchRandAugment', **kwargs)


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('input_type', ['video', 'image'])
def test_the_chain_in_order_and_in_training_only(device, input_type):
    chain = [CROP, BLACK]
    part = preprocessor(augments={input_type: chain}).to(device)
    other = {'video': 'image', 'image': 'video'}[input_type]
    for kind, training in [(input_type, False), (other, True)]:
        assert torch.equal(
            part(batch(kind), training=training)['inputs'].cpu(),
            preprocessor()(batch(kind))['inputs'],
        )
    shape = (1, 3, 4, 24, 30) if input_type == 'video' else (1, 3, 24, 30)
    data = batch(input_type, shape=shape)
    with torch.autocast(device, torch.bfloat16):
        out = part(data, training=True)['inputs']
    assert out.shape == (4, *shape[:-2], 8, 8)
    assert out.dtype == torch.float32 and out.device.type == device
    # black is normalised, and it is in the result of the crop
    black = -torch.tensor(NORM['mean']) / torch.tensor(NORM['std'])
    found = out.cpu().movedim(2, -1) == black
    assert (found.all(-1).flatten(1).float().mean(1) > 0.01).all()
    assert part.state_dict() == {}


def test_blending_comes_after():
    """The label is blended, and so is the black window."""
    mixup = dict(BLENDING, augments=BLENDING['augments'][:1])
    part = preprocessor(augments=dict(video=[BLACK]), blending=dict(video=mixup))
    data = batch('video')
    for x in data['inputs']:
        x[:] = 255
    seed(1)
    out = part(data, training=True)
    labels = torch.stack([s.gt_label for s in out['data_samples']])
    share = labels.max(1).values.min()
    assert 0.5 < share < 1
    levels = out['inputs'][:, :, 0] * NORM['std'][0] + NORM['mean'][0]
    # white and black, and the two blends of them
    found = levels.round().unique()
    wanted = torch.stack([share * 0, 1 - share, share, share * 0 + 1]) * 255
    torch.testing.assert_close(found, wanted.round())


def test_mixed_batches():
    augments = dict(video=[CROP, BLACK], image=[randaugment()])
    part = preprocessor(augments=augments, mixed=True)
    big = batch('video', 2, (1, 3, 4, 24, 24))
    seed(0)
    out = part(joined(big, batch('image', 3, (1, 3, 24, 24))), training=True)
    assert out['inputs']['video'].shape == (2, 1, 3, 4, 8, 8)
    assert out['inputs']['image'].shape == (3, 1, 3, 24, 24)
    assert [s.input_type for s in out['data_samples']] == (['video'] * 2 + ['image'] * 3)


def test_a_stream_for_each_process(monkeypatch):
    def run(number, rank):
        monkeypatch.setattr(device_augment, 'get_rank', lambda: rank)
        part = preprocessor(augments=dict(video=[CROP]))
        seed(number)
        data = batch('video', shape=(1, 3, 4, 24, 24))
        out = [part(data, training=True)['inputs'] for _ in range(2)]
        return (torch.stack(out), np.random.rand(), random.random())

    a, b, c, d = run(0, 0), run(0, 0), run(0, 1), run(1, 0)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[0][0], a[0][1])
    assert not torch.equal(a[0], c[0]) and not torch.equal(a[0], d[0])
    # one number was taken from those outside
    assert a[1:] == b[1:] == c[1:]
    seed(0)
    np.random.randint(2**31 - 1)
    assert a[1:] == (np.random.rand(), random.random())


@pytest.mark.parametrize(
    'augments',
    [
        [randaugment()],
        dict(audio=[randaugment()]),
        dict(video=randaugment()),
        dict(video=['BatchRandAugment']),
    ],
)
def test_wrong_augments(augments):
    with pytest.raises(ValueError, match='must be a dict like'):
        preprocessor(augments=augments)


@pytest.mark.parametrize(
    'part, options, error',
    [
        (BatchRandAugment, dict(RANDAUG, policies='none'), 'timm_increasing'),
        (
            BatchRandAugment,
            dict(RANDAUG, policies=[dict(type='None')]),
            'takes the options of mmpretrain.*Invalid policy type',
        ),
        (
            BatchRandAugment,
            dict(RANDAUG, policies=[dict(type='Cutout', shape=3)]),
            "policies of BatchRandAugment must be of the types .* got 'Cutout'",
        ),
        (
            BatchRandAugment,
            dict(RANDAUG, policies=[dict(type='Contrast', magnitude=-1.5)]),
            r'magnitude of Contrast .* from -1 to 1 .*, but got \[-1.5\]',
        ),
        (
            BatchRandAugment,
            dict(RANDAUG, num_policies=0),
            'num_policies of BatchRandAugment must be a positive int, but got 0',
        ),
        (
            BatchRandAugment,
            dict(RANDAUG, magnitude_level=11),
            'magnitude_level .* from 0 to total_level=10, but got 11',
        ),
        (BatchRandAugment, dict(RANDAUG, magnitude_std='no'), "or 'inf'"),
        (BatchRandAugment, dict(RANDAUG, total_level=0), 'above 0, but got 0'),
        (
            BatchRandAugment,
            dict(RANDAUG, hparams=dict(interpolation='lanczos')),
            "interpolation of Rotate .* one of .*'bicubic'.*, but got 'lanczos'",
        ),
        (
            BatchRandAugment,
            dict(RANDAUG, hparams=dict(pad_val=[1, 2])),
            'pad_val .* one for each of 3 channels, but got',
        ),
        (BatchRandomResizedCrop, dict(size=0), 'size .* positive int, but got 0'),
        (
            BatchRandomResizedCrop,
            dict(size=8, interpolation='area'),
            "interpolation .* but got 'area'",
        ),
        (BatchRandomResizedCrop, dict(size=8, times=2), 'times .* one window'),
        (BatchRandomResizedCrop, dict(size=8, area_range=(0, 1)), 'area_range'),
        (BatchRandomErasing, dict(erase_prob=2), 'erase_prob .* but got 2'),
        (BatchRandomErasing, dict(min_area_ratio=0.5), 'the smaller one first'),
        (BatchRandomErasing, dict(aspect_range=(3, 1)), 'aspect_range'),
        (BatchRandomErasing, dict(mode='pixel'), "mode .* but got 'pixel'"),
        (BatchRandomErasing, dict(fill_color=(1, 2)), 'fill_color'),
        (BatchRandomErasing, dict(fill_std=(1, 2)), 'fill_std'),
    ],
)
def test_wrong_options(part, options, error):
    with pytest.raises(ValueError, match=error):
        part(**options)


@pytest.mark.parametrize(
    'x',
    [
        torch.zeros(1, 1, 3, 8, 8),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(1, 1, 1, 8, 8, dtype=torch.uint8),
    ],
)
def test_wrong_batches(x):
    with pytest.raises(ValueError, match='needs uint8 clips .* but got'):
        BatchRandomErasing()(x)


class Copies(TorchDispatchMode):
    """Copies from the host to the device for which the host waits."""

    def __init__(self):
        super().__init__()
        self.copies, self.waits = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default:
            device = kwargs.get('device')
            if device is not None and device != args[0].device:
                self.copies += 1
                if not kwargs.get('non_blocking'):
                    self.waits.append(func)
        return func(*args, **kwargs)


@needs_fake_gpu
@pytest.mark.parametrize('frames', [(), (2,)])
def test_the_host_does_not_wait_for_the_device(frames):
    """On a device that has no numbers, so that none can be read."""
    augment = BatchRandAugment(**RANDAUG)
    augment.transform.random_policy_indices = lambda: range(15)
    for transform in augment.transform:
        transform.random_disable = lambda: False
    chain = torch.nn.Sequential(
        augment,
        BatchRandomResizedCrop(size=16, flip_ratio=0.5),
        *[
            BatchRandomErasing(1.0, mode=mode, fill_std=std)
            for mode, std in [('const', None), ('rand', None), ('rand', 9)]
        ],
    )
    with FakeTensorMode(allow_non_fake_inputs=True), Copies() as copies:
        x = torch.empty(2, 1, 3, *frames, 24, 24, dtype=torch.uint8, device='cuda')
        with pytest.raises(Exception):
            x.sum().item()
        for part in chain.modules():
            for name, value in part.named_buffers(recurse=False):
                setattr(part, name, torch.empty_like(value, device='cuda'))
        out = chain(x)
        assert copies.copies == 1 and not copies.waits  # the windows
        torch.tensor([1.0], device='cuda')  # one that would be found
    assert len(copies.waits) == 1
    assert out.device.type == 'cuda' and out.shape == (2, 1, 3, *frames, 16, 16)


def test_options_of_the_recipe():
    """The config takes steps from the pipelines and puts the same ones on the
    device."""
    plain, device = (
        Config.fromfile(osp.join(CONFIGS, f's4d_finetune_dfew{end}.py'))
        for end in ('', '_device-augment')
    )
    augments = device.model.data_preprocessor.augments
    for kind in ('video', 'image'):
        steps = []
        for step in plain.train_dataloader.dataset[kind].pipeline:
            steps += step.get('transforms', [step])
        left = device.train_dataloader.dataset[kind].pipeline
        assert all(step in steps for step in left)
        gone = {s.type: s for s in steps if s not in left}
        ours = {s.type.replace('Batch', ''): s for s in augments[kind]}
        for name, options in ours.items():
            options = dict(options, type=name)
            wanted = dict(gone.pop(name))
            wanted.pop('_scope_', None)
            if name == 'RandomResizedCrop':
                size, flip = options.pop('size'), options.pop('flip_ratio')
                assert (size, size) == steps[3].scale
                assert gone.pop('Flip').flip_ratio == flip
            assert options == wanted
        assert not gone, kind
    assert device.model.data_preprocessor.blending == (plain.model.data_preprocessor.blending)


@pytest.mark.parametrize('batching', ['modal', 'mixed'])
def test_trains_on_drawn_faces(batching, quickstart, tmp_path):
    cfg = Config.fromfile(osp.join(CONFIGS, 's4d_quickstart_finetune.py'))
    cfg.merge_from_dict(
        {
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.batch_sampler.batch_size': dict(video=2, image=4),
            'default_hooks.logger.interval': 1,
        }
    )
    if batching == 'mixed':
        cfg.model.type = 'DualModalRecognizer'
        cfg.model.data_preprocessor.mixed = True
        cfg.train_dataloader.batch_sampler.batching = 'mixed'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    cfg.param_scheduler = None
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    crop = dict(CROP, size=80, flip_ratio=0.5)
    cfg.model.data_preprocessor.augments = dict(
        video=[randaugment(), crop, BLACK], image=[randaugment(), BLACK]
    )
    pipeline = cfg.train_dataloader.dataset.video.pipeline
    cfg.train_dataloader.dataset.video.pipeline = [*pipeline[:3], pipeline[4], *pipeline[-2:]]
    cfg.work_dir = str(tmp_path)
    cfg.experiment_name = f'augment_{batching}'
    runner = Runner.from_cfg(cfg)
    shares = []

    def watch(module, args, out):
        x = out['inputs']
        for x in x.values() if isinstance(x, dict) else [x]:
            assert x.shape[-2:] == (80, 80)
            black = -module.mean / module.std
            shares.append((x.movedim(2, -1) == black).all(-1).float().mean())

    runner.model.data_preprocessor.register_forward_hook(watch)
    runner.train()
    assert runner.iter == 2 and len(shares) >= 2
    assert min(shares) > 0.01  # every batch has black windows
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 2 and np.isfinite(losses).all()


def test_windows_for_another_size_are_an_error():
    part = MODELS.build(
        dict(
            type='DualModalDataPreprocessor',
            mean=[0.0] * 3,
            std=[1.0] * 3,
            crops=dict(image=dict(size=16)),
            augments=dict(image=[dict(type='BatchRandomResizedCrop', size=24)]),
        )
    )
    sample = ActionDataSample(metainfo=dict(crop_boxes=np.array([[0, 0, 30, 30, 0]])))
    data = dict(inputs=[torch.zeros(1, 3, 32, 32, dtype=torch.uint8)], data_samples=[sample])
    with pytest.raises(ValueError, match=r'of \(24, 24\) out of \(32, 32\)'):
        part(data, training=True)
    assert part(data)['inputs'].shape == (1, 1, 3, 16, 16)
