# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Tests of tools/data/browse.py: the pictures show the frames of the files and
the tensor that the model gets."""

import os
import os.path as osp

import browse
import cv2
import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    frame_number,
    make_public_layout,
    truncate,
    write_frames,
    write_image,
    write_text,
    write_video,
)
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from s4d_mm.datasets import MediaReadError

STEP = 5  # frames between the ones of a clip
META = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id'))


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp('browse')
    for i in range(3):
        write_video(root / 'clips' / f'c {i}.mp4', 60, 48, 64)
    write_frames(str(root / 'clips' / 'folder.mp4'), 60, 48, 64)
    for i in range(4):
        write_image(root / 'images' / 'x' / f'{i}.png', 60, 80, number=50 + i)
    write_text(root / 'video.csv', 'c 0,0', 'c 1,1', 'c 2,2', 'folder,6')
    write_text(root / 'image.txt', *[f'x/{i}.png {i}' for i in range(4)])
    size = dict(type='Resize', scale=(40, 32), keep_ratio=False)
    video = dict(
        type='DFEW',
        data_root=str(root),
        ann_file='video.csv',
        data_prefix=dict(video='clips'),
        suffix='.mp4',
    )
    image = dict(
        type='AffectNet', data_root=str(root), ann_file='image.txt', data_prefix=dict(img='images')
    )
    sample = dict(
        type='SampleFrames', clip_len=10, frame_interval=STEP, num_clips=1, test_mode=True
    )
    shape = dict(type='FormatShape', input_format='NCTHW')
    cfg = Config(
        dict(
            default_scope='mmaction',
            train_dataloader=dict(
                dataset=dict(
                    type='DualModalDataset',
                    video=dict(
                        pipeline=[
                            dict(type='ClipInit'),
                            sample,
                            dict(type='ClipDecode'),
                            size,
                            dict(type='Flip', flip_ratio=1.0),
                            shape,
                            META,
                        ],
                        **video,
                    ),
                    image=dict(
                        pipeline=[
                            dict(type='ImageLoad'),
                            size,
                            dict(type='FormatShape', input_format='NCHW'),
                            META,
                        ],
                        **image,
                    ),
                )
            ),
            val_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='ClipInit'),
                        sample,
                        dict(type='ClipDecode'),
                        dict(
                            type='ClipRandomResizedCrop',
                            size=32,
                            times=3,
                            area_range=(0.2, 0.6),
                        ),
                        shape,
                        META,
                    ],
                    **video,
                )
            ),
            test_dataloader=dict(
                dataset=dict(
                    test_mode=True,
                    pipeline=[
                        dict(type='ClipInit'),
                        dict(type='SampleClipViews', clip_len=4, frame_interval=STEP),
                        dict(type='ClipDecode'),
                        size,
                        shape,
                        META,
                    ],
                    **video,
                )
            ),
        )
    )
    path = str(root / 'config.py')
    cfg.dump(path)
    return path


def rows_of(path, height=32):
    """Rows of frames in a picture, found by its layout."""
    picture = cv2.imread(path)[..., ::-1]
    y, rows = 2 * browse.LINE, []
    end = picture.shape[0]
    while y + browse.LINE < end:
        line = picture[y : y + browse.LINE]
        # a line of text begins with black on white; a row with colours
        if (line[..., 0] == line[..., 1]).all() and line[:, :2].min() > 200:
            y += browse.LINE
            continue
        rows.append(picture[y : y + height])
        y += height + browse.GAP
    assert y == end
    return rows


def frames_of(row, width, count):
    return [row[:, i * (width + browse.GAP) :][:, :width] for i in range(count)]


def test_before_and_after(config, tmp_path, monkeypatch):
    texts = []
    draw_line = browse.text_line
    monkeypatch.setattr(browse, 'text_line', lambda t: texts.append(t) or draw_line(t))
    cfg = Config.fromfile(config)
    paths = browse.browse(cfg, 'train', 8, str(tmp_path))
    assert [osp.basename(p) for p in paths] == [
        'video_000000_c_0.png',
        'video_000001_c_1.png',
        'video_000002_c_2.png',
        'video_000003_folder.png',
        'image_000000_x_0.png.png',
        'image_000001_x_1.png.png',
        'image_000002_x_2.png.png',
        'image_000003_x_3.png.png',
    ]
    assert texts[:4] == ['c 0: 0 happiness', 'inputs (1, 3, 10, 32, 40)', 'before:', 'after:']
    assert 'folder: 6 fear' in texts and 'x/3.png: 3 surprise' in texts
    assert 'inputs (1, 3, 32, 40)' in texts
    for path in (paths[0], paths[3]):
        before, after = rows_of(path)
        numbers = [frame_number(f) for f in frames_of(before, 43, 8)]
        start = numbers[0]  # the test's clip is centred
        assert numbers == [start + STEP * round(i) for i in np.linspace(0, 9, 8)]
        after = frames_of(after, 40, 8)
        assert all(frame_number(f) == -1 for f in after)  # flipped
        assert [frame_number(f[:, ::-1]) for f in after] == numbers
    before, after = rows_of(paths[5])
    assert frame_number(before[:, :43]) == frame_number(after[:, :40]) == 51


def test_after_is_the_tensor(config, tmp_path):
    """Pixel by pixel what the dataset gives, with the same seeds."""
    cfg = Config.fromfile(config)
    paths = browse.browse(cfg, 'val', 2, str(tmp_path), seed=4)
    init_default_scope('mmaction')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    for path in paths:
        idx = int(osp.basename(path).split('_')[1])
        browse.random.seed(4 + idx)
        np.random.seed(4 + idx)
        inputs = dataset[idx]['inputs']
        before, *after = rows_of(path)
        assert len(after) == len(inputs) == 3  # views
        for row, view in zip(after, inputs):
            for i, frame in zip(np.linspace(0, 9, 8), frames_of(row, 32, 8)):
                assert np.array_equal(frame, view[:, round(i)].permute(1, 2, 0).numpy())
        assert not np.array_equal(after[0], after[1])


def test_temporal_views(config, tmp_path):
    (path,) = browse.browse(Config.fromfile(config), 'test', 1, str(tmp_path))
    rows = rows_of(path)
    assert len(rows) == 4
    for row, width in zip(rows, (43, 43, 40, 40)):
        numbers = [frame_number(f) for f in frames_of(row, width, 4)]
        first = 0 if row is rows[0] or row is rows[2] else 40
        assert numbers == [first + STEP * i for i in range(4)]


def test_seed_chooses_samples_and_crops(config, tmp_path):
    cfg = Config.fromfile(config)

    def run(name, num, seed):
        paths = browse.browse(cfg, 'val', num, str(tmp_path / name), seed)
        return {osp.basename(p): open(p, 'rb').read() for p in paths}

    two, again, all_ = run('a', 2, 0), run('b', 2, 0), run('c', 9, 0)
    assert two == again and len(all_) == 4
    assert two.items() <= all_.items()
    assert run('d', 9, 1)['video_000000_c_0.png'] != (all_['video_000000_c_0.png'])


def test_command(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    browse.main(
        [
            config,
            '--split',
            'test',
            '--num',
            '1',
            '--cfg-options',
            'test_dataloader.dataset.indices=1',
        ]
    )
    folder = tmp_path / 'work_dirs' / 'browse' / 'config_test'
    assert os.listdir(folder) == ['video_000000_c_0.png']
    assert '1 pictures in' in capsys.readouterr().out


def test_recipe(tmp_path, monkeypatch):
    make_public_layout(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ('s4d_finetune_dfew', 's4d_pretrain'):
        cfg = Config.fromfile(osp.join(ROOT, 'configs', f'{name}.py'))
        paths = browse.browse(cfg, 'train', 1, name)
        assert len(paths) == 2
        assert len(rows_of(paths[0], 160)) == (2 if name == 's4d_finetune_dfew' else 5)


def test_errors(config, tmp_path):
    cfg = Config.fromfile(config)
    with pytest.raises(ValueError, match='has no val_dataloader'):
        browse.browse(Config(dict(train_dataloader=None)), 'val', 1, 'out')
    del cfg.test_dataloader.dataset.pipeline[-2:]
    with pytest.raises(ValueError, match='video.csv must decode imgs'):
        browse.browse(cfg, 'test', 1, str(tmp_path))
    clip = truncate(write_video(tmp_path / 'cut.mp4'))
    ann = write_text(tmp_path / 'cut.csv', 'cut,0')
    cfg.val_dataloader.dataset.update(
        ann_file=ann, data_root=str(tmp_path), data_prefix=dict(video='')
    )
    with pytest.raises(MediaReadError, match=clip):
        browse.browse(cfg, 'val', 1, str(tmp_path))


def test_bad_arguments(config, capsys):
    for arguments, message in (
        (['none.py'], 'none.py does not exist'),
        ([config, '--num', '0'], 'must be 1 or more'),
    ):
        with pytest.raises(SystemExit):
            browse.parse_args(arguments)
        assert message in capsys.readouterr().err


def test_draws_tall_and_single_frames():
    frames = [np.zeros((90, 30, 3), np.uint8)]
    inputs = torch.full((1, 3, 16, 16), 7, dtype=torch.uint8)
    picture = browse.draw(frames, inputs, ['Ümläut 名'])
    assert (picture[-16 - browse.GAP : -browse.GAP, :16] == 7).all()
