# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/data/browse.py: its pictures show the frames of the files and the tensor of the model."""

import os.path as osp

import browse
import cv2
import numpy as np
import pytest
from helpers import frame_number, write_image, write_text, write_video
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

META = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id'))
SHAPE = [dict(type='FormatShape', input_format='NCTHW'), META]
SIZE = dict(type='Resize', scale=(40, 32), keep_ratio=False)
FLIP = dict(type='Flip', flip_ratio=1.0)
VIEWS = dict(type='SampleClipViews', clip_len=4, frame_interval=5)


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp('browse')
    for i in range(3):
        write_video(root / 'clips' / f'c {i}.mp4', 60, 48, 64)
    for i in range(4):
        write_image(root / 'images' / 'x' / f'{i}.png', 60, 80, number=50 + i)
    write_text(root / 'video.csv', 'c 0,0', 'c 1,1', 'c 2,2')
    write_text(root / 'image.txt', *[f'x/{i}.png {i}' for i in range(4)])
    video = dict(type='DFEW', data_root=str(root / 'clips'), ann_file=str(root / 'video.csv'))
    video.update(data_prefix=dict(video=''), suffix='.mp4')
    image = dict(type='AffectNet', data_root=str(root / 'images'), data_prefix=dict(img=''))
    image['ann_file'] = str(root / 'image.txt')
    start = [dict(type='ClipInit'), VIEWS, dict(type='ClipDecode')]
    video['pipeline'] = [*start, SIZE, FLIP, *SHAPE]
    shape = dict(type='FormatShape', input_format='NCHW')
    image['pipeline'] = [dict(type='ImageLoad'), SIZE, shape, META]
    crop = dict(type='ClipRandomResizedCrop', size=32, times=3, area_range=(0.2, 0.6))
    sample = dict(type='SampleFrames', clip_len=10, frame_interval=5, num_clips=1, test_mode=True)
    crops = [start[0], sample, start[2], crop, *SHAPE]
    cfg = Config(
        dict(
            default_scope='mmaction',
            train_dataloader=dict(dataset=dict(type='DualModalDataset', video=video, image=image)),
            val_dataloader=dict(dataset=dict(video, pipeline=crops)),
        )
    )
    path = str(root / 'config.py')
    cfg.dump(path)
    return path


def rows_of(path, count, height=32):
    picture = cv2.imread(path)[..., ::-1]
    assert len(picture) == count * (height + browse.GAP)
    return [picture[y : y + height] for y in range(0, len(picture), height + browse.GAP)]


def frames_of(row, width, count):
    return [row[:, i * (width + browse.GAP) :][:, :width] for i in range(count)]


def test_frames_are_those_of_the_files(config, tmp_path, monkeypatch):
    """Two views of a clip, flipped; and an image."""
    monkeypatch.chdir(tmp_path)
    browse.main([config, '--num', '8'])
    folder = tmp_path / 'work_dirs' / 'browse' / 'config_train'
    assert len([*folder.iterdir()]) == 4 + 3
    for row, first in zip(rows_of(str(folder / 'video_000000_c_0.png'), 2), (0, 40)):
        frames = frames_of(row, 40, 4)
        assert all(frame_number(f) == -1 for f in frames)  # flipped
        assert [frame_number(f[:, ::-1]) for f in frames] == [first + 5 * i for i in range(4)]
    (image,) = rows_of(str(folder / 'image_000001_x_1.png.png'), 1)
    assert frame_number(image[:, :40]) == 51


def test_it_is_the_tensor(config, tmp_path):
    """Pixel by pixel what the dataset gives, with the same seeds."""
    cfg = Config.fromfile(config)
    paths = browse.browse(cfg, 'val', 2, str(tmp_path), seed=4)
    init_default_scope('mmaction')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    for path in paths:
        idx = int(osp.basename(path).split('_')[1])
        browse.seed_generators(4 + idx)
        inputs = dataset[idx]['inputs']
        after = rows_of(path, 3)
        assert len(after) == len(inputs) == 3  # views
        for row, view in zip(after, inputs):
            for i, frame in zip(np.linspace(0, 9, 8), frames_of(row, 32, 8)):
                assert np.array_equal(frame, view[:, round(i)].permute(1, 2, 0).numpy())
        assert not np.array_equal(after[0], after[1])


def test_errors(config, tmp_path):
    cfg = Config.fromfile(config)
    with pytest.raises(ValueError, match='has no test_dataloader'):
        browse.browse(cfg, 'test', 1, 'out')
    del cfg.val_dataloader.dataset.pipeline[-2]
    with pytest.raises(ValueError, match='must be uint8'):
        browse.browse(cfg, 'val', 1, str(tmp_path))
