# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Each dataset from its archive to a trained model: a miniature of the
official layout goes through prepare, verify and a training."""

import os
import os.path as osp

import cv2
import numpy as np
import prepare
import pytest
import verify
from face_scenes import make_finder, scene, write_clip
from helpers import write_text
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

# name of the dataset: files of the archive, lines of its annotation file
# ('' lists the folder), and the arguments that a config states
VIDEOS = {
    'DFEW': (['2522.mp4', '11.mp4'], ['video_name,label', '2522,7', '11,3'], {}),
    'FERV39k': (
        ['Crime/Angry/0063.mp4', 'Daily/Happy/0001.mp4'],
        ['Crime/Angry/0063 Angry', 'Daily/Happy/0001 Happy'],
        {},
    ),
    'MAFW': (['03747.mp4', '00002.mp4'], ['03747.mp4 anger', '00002.mp4 surprise'], {}),
    'CREMAD': (['1001_DFA_ANG_XX.avi', '1002_IEO_SAD_HI.avi'], '', {}),
    'RAVDESS': (
        ['Actor_01/01-01-03-01-02-01-01.mp4', 'Actor_12/01-01-08-01-02-01-12.mp4'],
        '',
        dict(subjects=[1, 12]),
    ),
    'ENTERFACE05': (
        ['subject 1/anger/sentence 1/s1_an_1.avi', 'subject 2/fear/sentence 2/s2_fe_2.avi'],
        '',
        {},
    ),
    'CAER': (['Anger/0001.avi', 'Happy/0002.avi'], '', {}),
    'VoxCeleb2': (['id1/a/00001.mp4', 'id2/b/00002.mp4'], '', {}),
}
IMAGES = {
    'AffectNet': (['1/a.jpg', '2/b.jpg'], ['1/a.jpg 0', '2/b.jpg 6'], {}),
    'RAFDB': (
        ['train_00001_aligned.jpg', 'train_00002_aligned.jpg'],
        ['train_00001.jpg 5', 'train_00002.jpg 1'],
        dict(split='train'),
    ),
    'FERPlus': (['fer0000000.png', 'fer0000001.png'], ['fer0000000.png 0', 'fer0000001.png 7'], {}),
    'CAERS': (['Anger/0001.png', 'Happy/0002.png'], '', {}),
}
SIZE = 32
TAIL = [
    dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=False),
    dict(type='PackActionInputs', meta_keys=('input_type', 'sample_id')),
]


def pipeline(kind):
    first, layout = ([dict(type='ImageLoad')], 'NCHW')
    if kind == 'video':
        first, layout = (
            [
                dict(type='ClipInit'),
                dict(
                    type='SampleFrames',
                    clip_len=4,
                    frame_interval=1,
                    num_clips=1,
                    out_of_bound_opt='repeat_last',
                ),
                dict(type='ClipDecode'),
            ],
            'NCTHW',
        )
    return [*first, TAIL[0], dict(type='FormatShape', input_format=layout), TAIL[1]]


def model(kind, classes):
    arch = dict(embed_dims=16, num_layers=2, num_heads=2)
    size = dict(img_size=SIZE, num_frames=4)
    preprocessor = dict(
        type='DualModalDataPreprocessor',
        mean=[124.0, 116.0, 104.0],
        std=[58.0, 57.0, 57.0],
        merge_views=not classes,
    )
    if not classes:  # masked pre-training
        return dict(
            type='mmpretrain.MAE',
            data_preprocessor=preprocessor,
            backbone=dict(type='S4DMAEViT', arch=arch, mask_ratio=0.5, **size),
            neck=dict(type='S4DMAEDecoder', in_channels=16, arch=arch, **size),
            head=dict(type='S4DMAEHead', mean=preprocessor['mean'], std=preprocessor['std']),
        )
    return dict(
        type='Recognizer3D',
        data_preprocessor=preprocessor,
        backbone=dict(type='S4DViT', arch=arch, depth=1, **size),
        neck=dict(type='MoAENeck', arch=arch, num_layers=1, num_experts=2),
        cls_head=dict(type='DualModalHead', in_channels=16, num_classes={kind: classes}),
    )


def write_archive(root, kind, names):
    for k, name in enumerate(names):
        path = osp.join(root, name)
        frames = [scene((20 + 3 * k + t, 30, 30)) for t in range(6)]
        for frame in frames:  # no two pictures are the same
            frame[35 + 8 * k : 38 + 8 * k, 35:45] = 120
        if kind == 'video':
            write_clip(path, frames)
        else:
            os.makedirs(osp.dirname(path), exist_ok=True)
            cv2.imwrite(path, frames[0])


@pytest.mark.parametrize('name', [*VIDEOS, *IMAGES])
def test_from_archive_to_training(name, tmp_path):
    kind = 'video' if name in VIDEOS else 'image'
    names, lines, extra = {**VIDEOS, **IMAGES}[name]
    data = tmp_path / 'data'
    write_archive(str(tmp_path / 'archive'), kind, names)
    records = prepare.prepare(
        name,
        str(tmp_path / 'archive'),
        str(data / 'faces'),
        size=SIZE,
        workers=1,
        make_detector=make_finder,
    )
    assert [r['status'] for r in records] == ['ok', 'ok']

    dataset = dict(
        type=name,
        data_root=str(data),
        data_prefix={'video' if kind == 'video' else 'img': 'faces'},
        pipeline=pipeline(kind),
        **extra,
    )
    if lines:
        write_text(data / 'train.txt', *lines)
        dataset['ann_file'] = 'train.txt'
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dataset,
    )

    init_default_scope('mmaction')
    built = DATASETS.build(dataset)
    assert len(built) == 2
    # the pixels are a cut-out: the white square fills most of it
    picture = np.asarray(built[0]['inputs'])
    assert picture.shape[-2:] == (SIZE, SIZE) and picture.mean() > 120

    splits, media = verify.verify(Config(dict(train_dataloader=loader)))
    trouble = [f for s in splits for f in s.findings if f.level == 'trouble']
    assert not trouble and len(media) == 2

    classes = len(built.metainfo['classes'] or ())
    runner = Runner(
        model=model(kind, classes),
        work_dir=str(tmp_path / 'work'),
        train_dataloader=loader,
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        custom_hooks=[dict(type='ClassCheckHook')],
        default_scope='mmaction',
        experiment_name=f'path_{name}',
    )
    before = {k: v.clone() for k, v in runner.model.state_dict().items()}
    runner.train()
    assert runner.iter == 1
    changed = [k for k, v in runner.model.state_dict().items() if not v.equal(before[k])]
    assert any('patch_embed' in k for k in changed)
