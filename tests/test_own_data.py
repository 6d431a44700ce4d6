# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The configs of ``configs/own`` train, test and predict, on drawn faces laid out as the page says.

They run as they are but for the model, which is a small one, and the number of epochs.
"""

import csv
import glob
import os.path as osp
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import ROOT, process_env
from small_models import ARCH, PRETRAIN, build
from user_files import write_clip, write_picture

OWN = {osp.basename(p)[:-3]: p for p in glob.glob(osp.join(ROOT, 'configs', 'own', '*.py'))}
TOOLS = Path(ROOT, 'tools')
THREE = ('anger', 'happiness', 'neutral')
SEVEN = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')


def run(folder, *command, code=0):
    """Run a tool in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=process_env(),
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-6000:]
    return done.stdout + done.stderr


def make_lists(folder, *arguments, code=0):
    return run(folder, TOOLS / 'data' / 'make_lists.py', *arguments, code=code)


def rows(path):
    with open(path, newline='') as f:
        return list(csv.reader(f))[1:]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Two folders in which somebody has cut out faces, made lists, and has pre-trained weights.

    In ``three`` the clips have three classes, in ``seven`` seven; the images always have seven.
    """
    folder = tmp_path_factory.mktemp('own')
    clip, picture = write_clip(folder / 'a.mp4', 20), write_picture(folder / 'a.jpg')
    for name, classes in dict(three=THREE, seven=SEVEN).items():
        for kind, file, labels in (('clips', clip, classes), ('images', picture, SEVEN)):
            mine = folder / name / 'data' / 'mine'
            for label in labels:
                for person in range(1, 7):
                    target = mine / kind / label / f'p{person}_{label}{osp.splitext(file)[1]}'
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.symlink_to(file)
            lists = mine / f'{kind[:-1]}_lists'
            make_lists(folder, kind, mine / kind, lists, '--person', '(p[0-9])_', '--folds', 2)
    mae = dict(PRETRAIN, backbone=dict(PRETRAIN['backbone'], img_size=160, num_frames=16))
    mae['neck'] = dict(PRETRAIN['neck'], img_size=160, num_frames=16)
    torch.save(dict(state_dict=build(mae).state_dict()), folder / 'pretrained.pth')
    return folder


def small_config(name, folder):
    """A config of ``configs/own`` with a small model, for an epoch; its path."""
    arch = dict(_delete_=True, **ARCH)
    options = dict(
        _base_=OWN[name],
        model=dict(
            backbone=dict(arch=arch, depth=2),
            neck=dict(arch=arch, num_layers=2, num_experts=4),
            cls_head=dict(in_channels=32),
        ),
        load_from=str(folder / 'pretrained.pth'),
    )
    path = folder / f'{name}.py'
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in options.items()))
    return path


@pytest.mark.parametrize('name', sorted(OWN))
def test_configs_train_test_and_predict(name, place):
    """One process on a CPU, from ``load_from`` to the label of a clip or an image."""
    folder = place / ('seven' if name == 'own_three_classes' else 'three')
    config = small_config(name, place)
    loaders = [
        f'{stage}_dataloader.{option}'
        for stage in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ]
    options = ['--cfg-options', 'train_cfg.max_epochs=1', *loaders]
    log = run(folder, TOOLS / 'train.py', config, *options)
    assert re.search(r'\d+ of \d+ tensors', log) or 'pretrained.pth' in log
    work = folder / 'work_dirs' / name
    test = run(folder, TOOLS / 'test.py', config, work / 'epoch_1.pth', *options[:1], *loaders[2:])
    joint = name == 'own_joint'
    for prefix in ('video/', 'image/') if joint else ('',):
        assert re.search(rf'{prefix}WAR: [\d.]+', test)
    images = name == 'own_images'
    media = place / ('a.jpg' if images else 'a.mp4')
    out = folder / f'{name}_out'
    run(folder, '-m', 's4d_mm', 'predict', media, '--faces', 'none', '--model', config,
        '--weights', work / 'epoch_1.pth', '--out', out)  # fmt: skip
    label = rows(out / 'a.csv')[0]
    classes = dict(own_three_classes=('negative', 'neutral', 'positive'), own_images=SEVEN)
    assert set(label) & set(classes.get(name, THREE))
