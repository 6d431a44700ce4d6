# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Files that cannot be read: replaced and counted in training, an error or a
wrong prediction in testing."""

import logging
import os
import os.path as osp
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import truncate, write_frames, write_image, write_text, write_video
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import DataLoader

from s4d_mm.datasets.media_faults import FaultLedger, TooManyFaultsError
from s4d_mm.engine import MediaFaultHook
from s4d_mm.evaluation import ExpressionMetric
from s4d_mm.media import MediaReadError

CLASSES = ('calm', 'glad')
META = ('input_type', 'sample_id', 'filename')
VIDEO = [
    dict(type='ClipInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=4, num_clips=1, test_mode=True),
    dict(type='ClipDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs', meta_keys=META),
]
IMAGE = [
    dict(type='ImageLoad'),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs', meta_keys=META),
]
SIZE = 10


def empty(path):
    open(path, 'wb').close()


def text(path):
    write_text(path, 'this is not a medium')


def overwrite_start(path):
    with open(path, 'r+b') as f:
        f.write(bytes(200))


def to_folder(path, *names):
    """A folder in place of the file."""
    os.remove(path)
    os.makedirs(path)
    for name in names:
        text(osp.join(path, name))


def to_frames(path, damage):
    os.remove(path)
    write_frames(path, 16)
    damage(osp.join(path, '00005.jpg'))  # one of 1, 5, 9, 13


FAULTS = {
    'video missing': ('video', os.remove, 'does not exist'),
    'video of zero bytes': ('video', empty, 'Cannot open video'),
    'video truncated, index at its end': ('video', truncate, 'Cannot open video'),
    'video without its start': ('video', overwrite_start, 'Cannot open video'),
    'text named as video': ('video', text, 'Cannot open video'),
    'folder without frames': ('video', to_folder, 'no image files'),
    'folder with other files': ('video', lambda p: to_folder(p, 'a.txt'), 'no image files'),
    'frame of zero bytes': ('video', lambda p: to_frames(p, empty), 'Cannot decode image'),
    'frame truncated': ('video', lambda p: to_frames(p, truncate), 'Cannot decode image'),
    'text named as frame': ('video', lambda p: to_frames(p, text), 'Cannot decode image'),
    'image missing': ('image', os.remove, 'does not exist'),
    'image of zero bytes': ('image', empty, 'Cannot decode image'),
    'image truncated': ('image', truncate, 'Cannot decode image'),
    'image without its start': ('image', overwrite_start, 'Cannot decode image'),
    'text named as image': ('image', text, 'Cannot decode image'),
    'folder named as image': ('image', to_folder, 'Cannot decode image'),
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Ten good samples of each modality."""
    root = tmp_path_factory.mktemp('whole')
    for i in range(SIZE):
        write_video(root / 'video' / f'{i}.mp4', 16, first=16 * i)
        write_image(root / 'image' / f'{i}.jpg', number=16 * i)
    for name, suffix in (('video', 'mp4'), ('image', 'jpg')):
        write_text(root / f'{name}.csv', *[f'{i}.{suffix},{i % 2}' for i in range(SIZE)])
    return root


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmaction')


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / 'data')


def load(root, modality, **kwargs):
    return DATASETS.build(
        dict(
            type=f'Expression{modality.capitalize()}Dataset',
            data_root=str(root),
            ann_file=f'{modality}.csv',
            data_prefix={dict(video='video', image='img')[modality]: modality},
            metainfo=dict(classes=CLASSES),
            pipeline=VIDEO if modality == 'video' else IMAGE,
            **{'max_fault_share': 0.2, **kwargs},
        )
    )


def path_of(root, modality, i=3):
    suffix = dict(video='mp4', image='jpg')[modality]
    return str(root / modality / f'{i}.{suffix}')


@pytest.mark.parametrize('case', FAULTS)
def test_training_replaces(case, root):
    modality, damage, message = FAULTS[case]
    damage(path_of(root, modality))
    dataset = load(root, modality)
    first, second = dataset[3], dataset[3]
    name = first['data_samples'].sample_id
    assert name != path_of(root, modality)
    assert name == second['data_samples'].sample_id  # always the same one
    assert torch.equal(first['inputs'], second['inputs'])
    assert first['data_samples'].input_type == modality
    assert dataset.faults.indices() == [3]
    # at test time it is an error that names the file
    test = load(root, modality, test_mode=True)
    with pytest.raises(OSError, match=message) as error:
        test[3]
    assert f'{modality}/3.' in str(error.value)


def test_log_names_the_path_once(root, capfd):
    os.remove(path_of(root, 'image'))
    dataset = load(root, 'image')
    MMLogger.get_instance('faults')
    for _ in range(3):
        dataset[3]
    captured = capfd.readouterr()
    assert (captured.out + captured.err).count('image/3.jpg does not') == 1


@pytest.mark.parametrize('modality', ['video', 'image'])
def test_too_many_stop_training_with_the_list(root, modality):
    for i in (1, 4, 7):
        os.remove(path_of(root, modality, i))
    dataset = load(root, modality)  # up to 20 % of 10
    with pytest.raises(TooManyFaultsError) as error:
        for i in range(SIZE):
            dataset[i]
    message = str(error.value)
    assert '30.00%' in message and 'max_fault_share=20.00%' in message
    for i in (1, 4, 7):
        assert path_of(root, modality, i) in message


def test_wrong_root_stops_training(root):
    shutil.rmtree(root / 'image')
    with pytest.raises(TooManyFaultsError, match='no readable sample'):
        load(root, 'image', max_fault_share=1.0)[0]
    with pytest.raises(ValueError, match='max_fault_share.*1.5'):
        load(root, 'image', max_fault_share=1.5)


def test_replacements_that_fail_are_marked_too(root):
    for i in range(1, SIZE):
        os.remove(path_of(root, 'image', i))
    dataset = load(root, 'image', max_fault_share=1.0)
    assert dataset[3]['data_samples'].sample_id == '0.jpg'
    assert set(dataset.faults.indices()) > {3}


def test_long_lists_are_cut(tmp_path):
    write_text(tmp_path / 'image.csv', *[f'{i}.jpg,0' for i in range(30)])
    dataset = load(tmp_path, 'image')
    dataset.faults.marks[:23] = 1
    lines = dataset.describe_faults().splitlines()
    assert len(lines) == 21 and lines[-1].strip() == '... and 3 more'
    assert lines[19].endswith('19.jpg')


def test_workers_count_together(root):
    """Two worker processes share the marks with this process."""
    for i in (2, 5):
        os.remove(path_of(root, 'image', i))
    dataset = load(root, 'image')
    loader = DataLoader(dataset, num_workers=2, batch_size=2, collate_fn=lambda x: x)
    assert sum(len(batch) for batch in loader) == SIZE
    assert dataset.faults.indices() == [2, 5]
    os.remove(path_of(root, 'image', 8))
    batches = iter(loader)
    with pytest.raises(OSError, match='(?s)30.00%.*image/8.jpg'):
        list(batches)
    batches._shutdown_workers()  # the garbage collector would wait ten seconds for them


def test_test_time_faults_count_as_wrong(root):
    """All predictions are right but for the samples that were not read."""
    os.remove(path_of(root, 'image', 3))
    dataset = load(root, 'image', test_mode=True, allow_test_faults=True)
    metric = ExpressionMetric(classes=CLASSES)
    for i in range(SIZE):
        sample = dataset[i]['data_samples']
        assert sample.sample_id == f'{i}.jpg'
        assert sample.gt_label.tolist() == [i % 2]
        score = torch.zeros(2)
        score[i % 2] = 1.0
        sample.set_pred_score(score)
        metric.process({}, [sample.to_dict()])
    values = metric.compute_metrics(metric.results)
    assert values['WAR'] == pytest.approx(90.0)
    assert values['recall/glad'] == pytest.approx(80.0)
    assert values['UAR'] == pytest.approx(90.0)
    assert values['unreadable'] == 1
    assert values['weighted_F1'] < 100
    matrix = metric.confusion_matrices['image']
    np.testing.assert_array_equal(matrix, [[5, 0], [0, 4]])


def test_test_time_faults_have_no_limit(root):
    """Each one is marked by itself, and a replacement that fails too is not."""
    for i in range(1, SIZE):
        os.remove(path_of(root, 'image', i))
    dataset = load(root, 'image', test_mode=True, allow_test_faults=True, max_fault_share=0.0)
    sample = dataset[3]['data_samples']
    assert sample.sample_id == '3.jpg' and sample.unreadable
    assert dataset.faults.indices() == [3]


def test_hook_writes_the_list(root, tmp_path, caplog):
    os.remove(path_of(root, 'video', 6))
    video, image = load(root, 'video'), load(root, 'image')
    video[6]
    logger = logging.getLogger('hook')
    runner = SimpleNamespace(
        work_dir=str(tmp_path),
        rank=0,
        logger=logger,
        train_dataloader=SimpleNamespace(
            dataset=DATASETS.build(dict(type='DualModalDataset', video=video, image=image))
        ),
    )
    hook = MediaFaultHook()
    with caplog.at_level(logging.WARNING, logger='hook'):
        hook.after_train_epoch(runner)
        hook.after_train_epoch(runner)  # nothing new: nothing more to say
    assert len(caplog.records) == 2
    assert '1 of 10 video samples' in caplog.text
    lines = (tmp_path / 'unreadable.csv').read_text().splitlines()
    assert len(lines) == 2 and lines[1].endswith(path_of(root, 'video', 6))
    video.faults.marks[:3] = 1  # as if other processes had found more
    with pytest.raises(TooManyFaultsError, match='40.00%'):
        hook.after_train_epoch(runner)


def test_ledger():
    ledger = FaultLedger(4)
    assert ledger.share() == 0 and ledger.indices() == []
    assert ledger.add(2) and not ledger.add(2)
    assert ledger.share() == 0.25 and ledger.indices() == [2]
    assert issubclass(TooManyFaultsError, MediaReadError)
