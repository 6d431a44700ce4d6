# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""DualModalDataset: one index over videos and images, from file to batch."""

import numpy as np
import pytest
import torch
from helpers import write_image, write_text, write_video
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner

import s4d_mm  # noqa: F401
from s4d_mm.datasets import DualModalBatchSampler, DualModalDataset, DualModalSampler


@DATASETS.register_module()
class TinyExpressions(BaseDataset):
    METAINFO = dict(classes=('calm', 'glad'), origin='nowhere')

    def __init__(self, labels=(0, 1), **kwargs):
        self.labels = labels
        super().__init__(**{'serialize_data': False, **kwargs})

    def load_data_list(self):
        return [
            dict(label=label, name=f'{len(self.labels)}/{i}') for i, label in enumerate(self.labels)
        ]


def tiny(*labels, **kwargs):
    return dict(type='TinyExpressions', labels=labels, **kwargs)


def test_videos_come_first():
    dataset = DualModalDataset(
        video=tiny(1, 0, 1), image=tiny(0, 2, metainfo=dict(classes=['a', 'b', 'c'], other=1))
    )
    assert len(dataset) == 5
    assert [dataset[i]['name'] for i in range(5)] == ['3/0', '3/1', '3/2', '2/0', '2/1']
    assert [dataset.input_type_of(i) for i in range(5)] == ['video'] * 3 + ['image'] * 2
    assert dataset.modality_range('video') == range(0, 3)
    assert dataset.modality_range('image') == range(3, 5)
    assert dataset.metainfo == dict(classes=dict(video=('calm', 'glad'), image=('a', 'b', 'c')))
    labels = dataset.get_gt_labels('image')
    assert labels.dtype == np.int64 and labels.tolist() == [0, 2]
    assert dataset.get_gt_labels('video').tolist() == [1, 0, 1]


def test_built_and_lazy_datasets():
    video = TinyExpressions((0, 1, 1), lazy_init=True)
    dataset = DualModalDataset(
        video=video, image=dict(type='RepeatDataset', times=2, dataset=tiny(0, 1)), lazy_init=True
    )
    assert not video._fully_initialized
    assert dataset.metainfo['classes']['image'] == ('calm', 'glad')
    assert dataset.modality_range('image') == range(3, 7)
    assert video._fully_initialized
    assert dataset.get_gt_labels('image').tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize('missing', ['video', 'image'])
def test_missing_modality(missing):
    cfg = dict(type='DualModalDataset', video=tiny(0), image=tiny(1))
    del cfg[missing]
    error = f'needs the key {missing!r}.*{missing}=dict'
    with pytest.raises(ValueError, match=error):
        DATASETS.build(cfg)


def test_one_modality():
    dataset = DualModalDataset(video=tiny(1, 0), modalities=('video',))
    assert dataset.metainfo == dict(classes=dict(video=('calm', 'glad')))
    sampler = DualModalSampler(dataset, seed=0, balance=('video',))
    batches = list(DualModalBatchSampler(sampler, total_batch_size=dict(video=2)))
    assert [len(batch) for batch in batches] == [2]
    for wrong in (('clips',), ('image', 'video'), ()):
        with pytest.raises(ValueError, match='modalities of DualModalDataset must be'):
            DualModalDataset(video=tiny(0), modalities=wrong)
    with pytest.raises(ValueError, match="modalities=.'video',., but got the key 'image'"):
        DualModalDataset(video=tiny(0), image=tiny(1), modalities=('video',))


def test_wrong_use(tmp_path):
    with pytest.raises(ValueError, match='The image dataset .* no samples'):
        DualModalDataset(video=tiny(0), image=tiny())
    dataset = DualModalDataset(video=tiny(0), image=tiny(1))
    with pytest.raises(ValueError, match="modality must be .*'img'"):
        dataset.modality_range('img')
    clips = dict(type='DFEW', ann_file=write_text(tmp_path / 'a.csv', 'a,0'))
    error = "DFEW.*'video', under the key 'image"
    with pytest.raises(ValueError, match=error):
        DualModalDataset(video=tiny(0), image=clips)


@pytest.mark.parametrize('scope', ['mmaction', 'mmpretrain'])
def test_from_files_to_model_input(tmp_path, scope):
    init_default_scope(scope)
    for i in range(3):
        write_video(tmp_path / f'v{i}.mp4', 6, first=i)
    for i in range(5):
        write_image(tmp_path / f'i{i}.jpg', 40, 30, number=i)
    write_text(tmp_path / 'v.csv', *(f'v{i},{i}' for i in range(3)))
    write_text(tmp_path / 'i.txt', *(f'i{i}.jpg {i}' for i in range(5)))
    pack = dict(type='mmaction.PackActionInputs', meta_keys=('input_type', 'sample_id'))
    resize = dict(type='mmaction.Resize', scale=(16, 16), keep_ratio=False)

    def pipeline(*load, layout):
        shape = dict(type='mmaction.FormatShape', input_format=layout)
        return [*load, resize, shape, pack]

    clip_steps = [
        dict(type='ClipInit'),
        dict(type='SampleClipViews', clip_len=4, frame_interval=1),
        dict(type='ClipDecode'),
    ]
    loader = Runner.build_dataloader(
        dict(
            batch_size=dict(video=2, image=3),
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_sampler=dict(type='DualModalBatchSampler'),
            dataset=dict(
                type='DualModalDataset',
                video=dict(
                    type='DFEW',
                    data_root=str(tmp_path),
                    ann_file='v.csv',
                    suffix='.mp4',
                    pipeline=pipeline(*clip_steps, layout='NCTHW'),
                ),
                image=dict(
                    type='AffectNet',
                    data_root=str(tmp_path),
                    ann_file='i.txt',
                    pipeline=pipeline(dict(type='ImageLoad'), layout='NCHW'),
                ),
            ),
        ),
        seed=0,
    )
    preprocess = MODELS.build(dict(type='DualModalDataPreprocessor', mean=[0] * 3, std=[1] * 3))
    shapes, samples = [], []
    for batch in loader:
        assert all(x.dtype == torch.uint8 for x in batch['inputs'])
        out = preprocess(batch)
        shapes.append(tuple(out['inputs'].shape))
        samples += out['data_samples']
    views = shapes[0][1]
    assert shapes == [
        (2, views, 3, 4, 16, 16),
        (1, views, 3, 4, 16, 16),
        (3, 1, 3, 16, 16),
        (2, 1, 3, 16, 16),
    ]
    assert [s.sample_id for s in samples] == ['v0', 'v1', 'v2', *(f'i{i}.jpg' for i in range(5))]
    assert [s.input_type for s in samples] == ['video'] * 3 + ['image'] * 5
    assert [int(s.gt_label) for s in samples] == [0, 1, 2, 0, 1, 2, 3, 4]
