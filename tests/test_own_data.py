# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The configs of ``configs/own``, with a small model and one epoch, and the lists they read."""

import contextlib
import csv
import glob
import io
import os.path as osp
import re
from collections import Counter
from pathlib import Path

import make_lists
import pytest
import torch
from helpers import ONE_PROCESS, ROOT, run_script
from small_models import ARCH, PRETRAIN, build
from user_files import write_clip, write_picture

OWN = {osp.basename(p)[:-3]: p for p in glob.glob(osp.join(ROOT, 'configs', 'own', '*.py'))}
THREE = ('anger', 'happiness', 'neutral')
SEVEN = ('anger', 'disgust', 'fear', 'happiness', 'neutral', 'sadness', 'surprise')


def lists(*arguments, code=0):
    """Run ``tools/data/make_lists.py``; what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        assert make_lists.main([*map(str, arguments)]) == code, said.getvalue()
    return said.getvalue()


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
            to = mine / f'{kind[:-1]}_lists'
            lists(kind, mine / kind, to, '--person', '(p[0-9])_', '--folds', 2)
    mae = dict(PRETRAIN, backbone=dict(PRETRAIN['backbone'], img_size=160, num_frames=16))
    mae['neck'] = dict(PRETRAIN['neck'], img_size=160, num_frames=16)
    torch.save(dict(state_dict=build(mae).state_dict()), folder / 'pretrained.pth')
    return folder


def small_config(name, folder):
    """A config of ``configs/own`` with a small model (own_small has one); its path."""
    options = dict(_base_=OWN[name])
    if name != 'own_small':
        arch = dict(_delete_=True, **ARCH)
        backbone, neck = dict(arch=arch, depth=2), dict(arch=arch, num_layers=2, num_experts=4)
        options['model'] = dict(backbone=backbone, neck=neck, cls_head=dict(in_channels=32))
        options['load_from'] = str(folder / 'pretrained.pth')
    path = folder / f'{name}.py'
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in options.items()))
    return path


@pytest.mark.parametrize('name', sorted(OWN))
def test_configs_train_test_and_predict(name, place, monkeypatch, capfd):
    """From ``load_from`` to the label of a clip or an image, on a CPU."""
    folder = place / ('seven' if name == 'own_three_classes' else 'three')
    monkeypatch.chdir(folder)
    monkeypatch.setenv('LOCAL_RANK', '0')  # one process, which torchrun would start
    config, work = small_config(name, place), Path('work_dirs', name)
    run_script('tools/train.py', config, '--cfg-options', 'train_cfg.max_epochs=1', *ONE_PROCESS)
    log = capfd.readouterr()
    fitting = re.search(r'[1-9]\d* of \d+ tensors', log.out + log.err)
    assert bool(fitting) is (name != 'own_small')  # of the pre-trained weights
    weights = work / 'epoch_1.pth'
    run_script('tools/test.py', config, weights, '--cfg-options', *ONE_PROCESS[2:])
    log = capfd.readouterr()
    for prefix in ('video/', 'image/') if name == 'own_joint' else ('',):
        assert re.search(rf' {prefix}WAR: [\d.]+', log.out + log.err)
    media = place / ('a.jpg' if name == 'own_images' else 'a.mp4')
    options = ('--faces', 'none', '--model', config, '--weights', weights, '--out', f'out_{name}')
    with contextlib.suppress(SystemExit):
        run_script('tools/predict.py', media, *options)
    classes = dict(own_three_classes=('negative', 'neutral', 'positive'), own_images=SEVEN)
    assert set(rows(f'out_{name}/a.csv')[0]) & set(classes.get(name, THREE))


def test_lists_keep_persons_apart(place):
    folder = place / 'three' / 'data' / 'mine' / 'clip_lists'
    train, test = (rows(folder / f'set_1_{split}.csv') for split in ('train', 'test'))
    persons = [{name.split('/')[1][:2] for name, _ in part} for part in (train, test)]
    assert not persons[0] & persons[1] and len(train) + len(test) == 18
    for part in (train, test):  # each class has its share
        assert Counter(label for _, label in part) == dict.fromkeys(THREE, 3)


def write_samples(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_lists_of_a_table(tmp_path):
    """Semicolons, a header, suffixes, persons, a line without a file."""
    clips = tmp_path / 'clips'
    write_samples(clips, 'a.1/1.jpg', 'a.1/2.jpg', 'b/1.jpg', 'c.mp4', 'd.mp4', 'thumbnail.jpg')
    table = tmp_path / 'labels.csv'
    lines = 'file;emotion;who', 'a.1;sad;A', 'b.mp4;happy;B', 'c.mp4;sad;C', 'd;happy;C', 'x;sad;A'
    table.write_text('\n'.join(lines), encoding='utf-8-sig')
    command = ('clips', clips, tmp_path / 'lists', '--labels', table, '--folds', 3, '--val')
    said = lists(*command)
    assert '1 names of' in said and 'have no file: x' in said and "('happy', 'sad')" in said
    parts = [rows(tmp_path / 'lists' / f'set_1_{p}.csv') for p in ('train', 'val', 'test')]
    assert sorted(sum(parts, [])) == [
        ['a.1', 'sad'], ['b', 'happy'], ['c.mp4', 'sad'], ['d.mp4', 'happy'],
    ]  # fmt: skip
    assert ['c.mp4', 'sad'] in next(p for p in parts if ['d.mp4', 'happy'] in p)  # of one person
    lists(*command)  # again, with the same result
    (clips / 'd.mp4').unlink()
    assert 'exists with other content' in lists(*command, code=2)


@pytest.mark.parametrize(
    'names, arguments, message',
    [
        (['x.txt'], [], 'holds no video files or folders of frames'),
        (['k/a.mp4'], ['--person', '(p[0-9])'], "does not match --person '(p[0-9])'"),
        (['k/a.mp4'], [], '--folds 5: there are only 1 persons'),
    ],
)
def test_a_mistake_is_named_in_a_sentence(names, arguments, message, tmp_path):
    write_samples(tmp_path / 'clips', *names)
    assert message in lists('clips', tmp_path / 'clips', tmp_path / 'x', *arguments, code=2)
    assert not (tmp_path / 'x').exists()
