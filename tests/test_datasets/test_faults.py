# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files that cannot be read: replaced and counted in training, an error or wrong in testing."""

import os
import os.path as osp
import shutil

import pytest
import torch
from helpers import truncate, write_frames, write_image, write_text, write_video
from mmengine.registry import init_default_scope
from torch.utils.data import DataLoader

from s4d_mm.datasets import ExpressionImageDataset, ExpressionVideoDataset
from s4d_mm.datasets.faults import TooManyFaultsError

CLASSES = ('calm', 'glad')
PACK = dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id', 'filename'))
VIDEO = [
    dict(type='ClipInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=4, num_clips=1, test_mode=True),
    dict(type='ClipDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    PACK,
]
IMAGE = [dict(type='ImageLoad'), dict(type='FormatShape', input_format='NCHW'), PACK]
SIZE = 10


def empty(path):
    open(path, 'wb').close()


def text(path):
    write_text(path, 'this is not a medium')


def to_folder(path):
    """A folder with another file in place of the file."""
    os.remove(path)
    text(osp.join(path, 'a.txt'))


def to_frames(path, damage):
    os.remove(path)
    write_frames(path, 16)
    damage(osp.join(path, '00005.jpg'))  # one of 1, 5, 9, 13


FAULTS = {
    'video missing': ('video', os.remove, 'does not exist'),
    'video of zero bytes': ('video', empty, 'Cannot open video'),
    'video truncated, index at its end': ('video', truncate, 'Cannot open video'),
    'folder with other files': ('video', to_folder, 'no image files'),
    'frame truncated': ('video', lambda p: to_frames(p, truncate), 'Cannot decode image'),
    'image missing': ('image', os.remove, 'does not exist'),
    'image truncated': ('image', truncate, 'Cannot decode image'),
    'text named as image': ('image', text, 'Cannot decode image'),
}


@pytest.fixture
def root(tmp_path):
    """Ten good samples of each modality."""
    init_default_scope('mmaction')
    for i in range(SIZE):
        write_video(tmp_path / 'video' / f'{i}.mp4', 16, first=16 * i)
        write_image(tmp_path / 'image' / f'{i}.jpg', number=16 * i)
    for name, suffix in (('video', 'mp4'), ('image', 'jpg')):
        write_text(tmp_path / f'{name}.csv', *[f'{i}.{suffix},{i % 2}' for i in range(SIZE)])
    return tmp_path


def load(root, modality, **kwargs):
    dataset = dict(video=ExpressionVideoDataset, image=ExpressionImageDataset)[modality]
    return dataset(
        data_root=str(root),
        ann_file=f'{modality}.csv',
        data_prefix={dataset.PREFIX_KEY: modality},
        metainfo=dict(classes=CLASSES),
        pipeline=VIDEO if modality == 'video' else IMAGE,
        **{'max_fault_share': 0.2, **kwargs},
    )


def path_of(root, modality, i=3):
    suffix = dict(video='mp4', image='jpg')[modality]
    return str(root / modality / f'{i}.{suffix}')


@pytest.mark.parametrize('case', FAULTS)
def test_training_replaces(case, root, monkeypatch):
    modality, damage, message = FAULTS[case]
    damage(path_of(root, modality))
    dataset = load(root, modality)
    said = []
    monkeypatch.setattr('s4d_mm.datasets.faults.print_log', lambda text, **_: said.append(text))
    first, second = dataset[3], dataset[3]
    name = first['data_samples'].sample_id
    assert name[0] != '3' and name == second['data_samples'].sample_id  # always the same one
    assert torch.equal(first['inputs'], second['inputs'])
    assert dataset.faults.indices() == [3]
    assert len(said) == 1 and f'{modality}/3.' in said[0]  # once, with the path
    # at test time it is an error that names the file
    test = load(root, modality, test_mode=True)
    with pytest.raises(OSError, match=message) as error:
        test[3]
    assert f'{modality}/3.' in str(error.value)


def test_too_many_stop_training_with_the_list(root):
    """Two workers share the marks with this process."""
    for i in (2, 5):
        os.remove(path_of(root, 'image', i))
    dataset = load(root, 'image')  # up to 20 % of 10
    loader = DataLoader(dataset, num_workers=2, batch_size=2, collate_fn=lambda x: x)
    assert sum(len(batch) for batch in loader) == SIZE
    assert dataset.faults.indices() == [2, 5]
    os.remove(path_of(root, 'image', 8))
    batches = iter(loader)
    with pytest.raises(OSError, match='(?s)30.00%.*max_fault_share=20.00%.*image/8.jpg') as error:
        list(batches)
    batches._shutdown_workers()  # the garbage collector would wait ten seconds for them
    assert all(path_of(root, 'image', i) in str(error.value) for i in (2, 5))
    with pytest.raises(ValueError, match='max_fault_share=1.5'):
        load(root, 'image', max_fault_share=1.5)


def test_replacements_that_fail_are_marked_too(root):
    for i in range(1, SIZE):
        os.remove(path_of(root, 'image', i))
    dataset = load(root, 'image', max_fault_share=1.0)
    assert dataset[3]['data_samples'].sample_id == '0.jpg'
    assert set(dataset.faults.indices()) > {3}
    # in testing each one is marked by itself, without a limit
    dataset = load(root, 'image', test_mode=True, allow_test_faults=True, max_fault_share=0.0)
    sample = dataset[3]['data_samples']
    assert sample.sample_id == '3.jpg' and sample.unreadable and sample.gt_label.tolist() == [1]
    assert dataset.faults.indices() == [3]
    shutil.rmtree(root / 'image')
    with pytest.raises(TooManyFaultsError, match='no readable sample'):
        load(root, 'image', max_fault_share=1.0)[0]
