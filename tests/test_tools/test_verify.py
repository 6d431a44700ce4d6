# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/data/verify.py finds each kind of trouble that it claims, and none in sound data."""

import os
import os.path as osp
import shutil
from pathlib import Path

import pytest
import verify
from helpers import (
    read_config,
    truncate,
    write_frames,
    write_image,
    write_text,
    write_video,
)
from mmengine.config import Config

from s4d_mm.datasets import DFEW

CONFIG = """
default_scope = 'mmaction'
pipeline = [dict(type='ClipInit'),
            dict(type='SampleClipViews', clip_len=8, frame_interval=1),
            dict(type='ClipDecode')]
clips = dict(type='ExpressionVideoDataset', data_root={root!r},
             metainfo=dict(classes=('calm', 'glad', 'sad')),
             pipeline=pipeline)
train_dataloader = dict(dataset=dict(
    type='DualModalDataset',
    video=dict(ann_file='train.csv', **clips),
    image=dict(type='RAFDB', data_root={root!r}, ann_file='images.txt',
               data_prefix=dict(img='images'))))
val_dataloader = dict(dataset=dict(ann_file='test.csv', **clips))
test_dataloader = dict(dataset=dict(
    ann_file='test.csv', test_mode=True, **clips))
"""


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    """A sound set: video files and folders of frames, images."""
    root = tmp_path_factory.mktemp('sound')
    for i in range(3):
        write_video(root / 'clips' / f'{i}.mp4', 10 + i, first=20 * i)
    write_frames(str(root / 'frames' / 'a'), 12, 40, 50)
    for i in range(12):  # every fifth frame, from 5
        write_image(root / 'frames' / 'b' / f'f_{5 * i + 5}.png', number=40 + i)
    for i in range(7):
        write_image(root / 'images' / f'train_{i}_aligned.jpg', 30, 30, number=i)
    lines = ['video_name,label', 'clips/0.mp4,0', 'clips/1.mp4,glad', '', 'frames/a,2']
    write_text(root / 'train.csv', *lines)
    write_text(root / 'test.csv', 'clips/2.mp4,1', 'frames/b,0')
    write_text(root / 'images.txt', *[f'train_{i}.jpg {i + 1}' for i in range(7)])
    return root


@pytest.fixture
def data(sound, tmp_path):
    """A copy of it, to be damaged, and its config."""
    root = tmp_path / 'data'
    shutil.copytree(sound, root)
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=str(root)))
    return root, str(config)


def append(path, *lines):
    with open(path, 'a', encoding='utf-8') as f:
        f.writelines(f'{line}\n' for line in lines)


def findings(config, **kwargs):
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    return [f for s in verify.verify(cfg, **kwargs) for f in s.findings]


@pytest.mark.parametrize('decode', ['all', 'none'])
def test_sound_data(data, capfd, decode):
    assert verify.main([data[1], '--decode', decode, '--workers', '2']) == 0
    out = capfd.readouterr().out
    assert out.startswith('0 troubles\n')
    train, image, test = out.split('\n\n')[-3:]
    assert 'val/test video' in test  # the same split once
    rows = [line.split()[-1] for line in train.splitlines()[1:]]
    assert rows == ['3', '0', '64', '12', *3 * ['(33.3%)']]
    assert '30 x 30' in image


def copy(root, src, dst, ann_file, label):
    (shutil.copytree if osp.isdir(root / src) else shutil.copy)(root / src, root / dst)
    append(root / ann_file, f'{dst},{label}')


def no_frames(root):
    shutil.rmtree(root / 'frames/a')
    write_text(root / 'frames/a/readme.txt', 'frames')


IMAGE, FRAME = 'images/train_3_aligned.jpg', 'frames/a/00005.jpg'
CLIP_0, CLIP_1 = ('clips/0.mp4', 'train.csv:2', '0 calm'), ('clips/1.mp4', 'train.csv:3', '1 glad')
CLIP_2, FRAMES = ('clips/2.mp4', 'test.csv:1', '1 glad'), ('frames/a', 'train.csv:5', '2 sad')
HAPPY = (IMAGE, 'images.txt:4', '3 happiness')
# path, line and label of the finding; what is said; what is done to the set
DAMAGES = dict(
    missing=(CLIP_1, 'check data_root', lambda r: os.remove(r / 'clips/1.mp4')),
    cut_video=(CLIP_1, 'Cannot open video', lambda r: truncate(r / 'clips/1.mp4')),
    cut_video_with_index=(
        CLIP_2,
        'it is cut off',
        lambda r: truncate(write_video(r / 'clips/2.mp4', 100, faststart=True), 0.6),
    ),
    no_bytes=(CLIP_0, 'Cannot open video', lambda r: (r / 'clips/0.mp4').write_text('')),
    cut_frame=(FRAMES, '00005.jpg', lambda r: truncate(r / FRAME)),
    no_frames=(FRAMES, 'has no image files', no_frames),
    missing_in_steps=(
        ('frames/b', 'test.csv:2', '0 calm'),
        'frames 20-25 are missing',
        lambda r: [os.remove(r / f'frames/b/f_{n}.png') for n in (20, 25)],
    ),
    cut_image=(HAPPY, 'Cannot decode image', lambda r: truncate(r / IMAGE)),
    label_too_large=(
        ('clips/9.mp4,3', 'train.csv:6', ''),
        "unknown label '3'",
        lambda r: append(r / 'train.csv', 'clips/9.mp4,3'),
    ),
    no_list=(('images.txt', '', ''), 'does not exist', lambda r: os.remove(r / 'images.txt')),
    nothing_but_a_header=(
        ('images.txt', '', ''),
        'has no samples',
        lambda r: write_text(r / 'images.txt', 'name label'),
    ),
    same_file_twice=(
        ('clips/../clips/0.mp4', 'train.csv:6', '0 calm'),
        'the same file as',
        lambda r: append(r / 'train.csv', 'clips/../clips/0.mp4,0'),
    ),
    two_labels=(
        ('clips/copy.mp4', 'train.csv:6', '1 glad'),
        'with the label 0',
        lambda r: copy(r, 'clips/0.mp4', 'clips/copy.mp4', 'train.csv', 1),
    ),
    copy_in_train=(
        ('clips/new.mp4', 'test.csv:3', '0 calm'),
        'the same content as',
        lambda r: copy(r, 'clips/0.mp4', 'clips/new.mp4', 'test.csv', 0),
    ),
)
ONLY_DECODED = ('cut_frame', 'cut_image', 'cut_video_with_index')


@pytest.mark.parametrize('kind', DAMAGES)
def test_each_kind_of_trouble(data, kind):
    root, config = data
    (path, line, label), what, damage = DAMAGES[kind]
    damage(root)
    for decode in ('all',) if kind in ONLY_DECODED else ('all', 'none'):
        (found,) = findings(config, decode=decode)
        assert found.path.endswith(path) and what in found.what
        assert found.line.endswith(line) and bool(line) == bool(found.line)
        assert found.label == label


def test_report(data, capfd):
    """A line for each finding, then how many there are of each kind."""
    root, config = data
    shutil.rmtree(root / 'images')
    append(root / 'train.csv', 'a,3', '=1\x1b[2J.mp4,x')
    assert verify.main([config, '--workers', '2']) == 1
    out = capfd.readouterr().out
    assert '\x1b' not in out
    assert out.splitlines()[9:12] == [
        '9 troubles',
        '  train video: 2 unreadable line',
        '  train image: 7 missing',
    ]


def test_indices_of_the_config(data):
    cfg = Config.fromfile(data[1])
    for indices, labels in ((2, [0, 1]), (-1, [2]), ([2, 0], [2, 0])):
        cfg.train_dataloader.dataset.video.indices = indices
        assert [s.label for s in verify.find_splits(cfg)[0].samples] == labels


def test_train_and_test_are_one_file(data):
    cfg = Config.fromfile(data[1])
    cfg.test_dataloader.dataset.ann_file = 'train.csv'
    (found,) = findings(cfg)
    assert 'train and test are the same' in found.what


def test_a_dataset_of_the_toolbox(data):
    root, _ = data
    write_text(root / 'toolbox.txt', 'clips/0.mp4 1', 'clips/9.mp4 0')
    dataset = dict(
        type='VideoDataset',
        ann_file=str(root / 'toolbox.txt'),
        data_prefix=dict(video=str(root)),
        metainfo=dict(classes=('calm', 'glad')),
    )
    (found,) = findings(Config(dict(train_dataloader=dict(dataset=dataset))))
    assert found.path.endswith('9.mp4') and (found.kind, found.label) == ('missing', '0 calm')


@pytest.mark.parametrize('recipe', ['s2d_finetune_dfew', 's4d_finetune_dfew'])
@pytest.mark.parametrize('frames', [16, 70])
def test_which_dfew_it_is(recipe, frames, tmp_path, monkeypatch):
    """S2D reads the clips of 16 frames, S4D those of all; the other ones are trouble."""
    dfew = Path(tmp_path, 'data', 'DFEW')
    for i in range(2):
        for folder in ('frames', 'frames_16f'):
            write_frames(str(dfew / folder / f'{i:05d}'), frames)
    for part, i in (('train', 0), ('test', 1)):
        write_text(dfew / 'annotations' / f'set_1_{part}.csv', f'{i:05d},{i}')
    monkeypatch.chdir(tmp_path)
    cfg = read_config(recipe)
    clips = [s for s in verify.verify(cfg, decode='none') if s.modality == 'video']
    found = [f for s in clips for f in s.findings if f.kind == 'folder of another recipe']
    right = (recipe[:3] == 's2d') == (frames == 16)
    assert len(found) == (0 if right else 2)
    assert all('clip_224x224_16f' in f.what for f in found)


def test_ids_in_another_order(tmp_path):
    """By the folder that a clip lies in, and by the counts of DFEW."""
    # as DFEW counts: 0 happiness; FERV39k has 0 anger, 3 happiness
    lines = ['Crime/Angry/1,0', 'Crime/Happy/2,0', 'Daily/street/4,0']
    for line in lines:
        write_frames(str(tmp_path / 'frames' / line[:-2]), 2)
    data = dict(data_root=str(tmp_path), data_prefix=dict(video='frames'))
    write_text(tmp_path / 'train.csv', *lines)
    dataset = dict(type='FERV39k', ann_file='train.csv', **data)
    found = findings(Config(dict(train_dataloader=dict(dataset=dataset))))
    (found,) = (f for f in found if f.kind == 'folder of another class')
    assert found.label == '0 anger' and 'happy, which is label 3' in found.what
    ids = [i for i, count in enumerate(DFEW.COUNTS) for _ in range(count // 10)]
    for order, kinds in ((range(7), []), ((1, 4, 0, 6, 5, 3, 2), ['list in another order'])):
        write_text(tmp_path / 'dfew.csv', *[f'{i:05d},{order[n]}' for i, n in enumerate(ids)])
        dataset = dict(type='DFEW', ann_file='dfew.csv', **data)
        (split,) = verify.find_splits(Config(dict(train_dataloader=dict(dataset=dataset))))
        verify.check_order(split)
        assert [f.kind for f in split.findings] == kinds
