# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""``s4d predict`` with the real inferencer, a small model and real files."""

import csv
import os
import os.path as osp
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT, encode, make_frame, process_env, truncate, write_image, write_video
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from s4d_mm import cli

CONFIG = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')
S4D = osp.join(ROOT, 'tools', 's4d')
EMOTIONS = ['happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Holds clips, an image and weights."""
    folder = tmp_path_factory.mktemp('cli')
    init_default_scope('mmaction')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), folder / 'epoch_1.pth')
    write_video(folder / 'clip.mp4', 40)
    truncate(write_video(folder / 'broken.mp4', 40))
    write_image(folder / 'face.jpg')
    return folder


def predict(capsys, folder, *argv):
    """Exit code, output and error of ``s4d predict`` for pictures that are cut already."""
    model = ['--model', CONFIG, '--weights', str(folder / 'epoch_1.pth'), '--device', 'cpu']
    code = cli.main(['predict', *model, '--faces', 'none', *map(str, argv)])
    return (code, *capsys.readouterr())


def test_a_process_prints_the_faces_and_nothing_else(folder, tmp_path):
    command = [sys.executable, S4D, 'predict', folder / 'clip.mp4', folder / 'face.jpg']
    options = ['--model', CONFIG, '--weights', folder / 'epoch_1.pth', '--faces', 'none']
    done = subprocess.run(
        [*command, *options, '--out', tmp_path / 'out'],
        env=process_env(),
        text=True,
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, '')
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f'{folder}/clip.mp4  0.0-1.6 s  ')
    assert [line for line in lines if line.startswith(f'{folder}/face.jpg  ')]
    names = ['clip.csv', 'clip.json', 'clip.mp4', 'clip_timeline.png']
    names += ['face.csv', 'face.json', 'face.png']
    assert lines[-1] == f'written to {tmp_path}/out: {", ".join(names)}'
    assert sorted(os.listdir(tmp_path / 'out')) == names
    with open(tmp_path / 'out' / 'clip.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0])[11:] == EMOTIONS
    assert rows[-1]['end_frame'] == '40' and rows[-1]['face'] == ''


def test_of_many_inputs_one_is_broken(folder, capsys, tmp_path):
    media = folder / 'broken.mp4', folder / 'nowhere.mp4', folder / 'face.jpg'
    code, out, err = predict(capsys, folder, *media, '--out', tmp_path, '--no-pictures')
    assert code == 1 and f'{folder}/face.jpg  ' in out
    assert 'broken.mp4' in err and 'nowhere.mp4' in err and 'Traceback' not in err
    assert sorted(os.listdir(tmp_path)) == ['face.csv', 'face.json']


def test_escape_codes_in_names_do_not_reach_the_terminal(folder, capsys, tmp_path):
    name = tmp_path / 'a\x1b[31m[b].mp4'
    write_video(name, 8)
    truncate(write_video(tmp_path / 'a\x1b[2J.mp4', 40))
    code, out, err = predict(capsys, folder, tmp_path, '--out', tmp_path / 'out', '--no-pictures')
    assert code == 1 and '\x1b' not in out + err
    assert 'a\\x1b[31m[b].mp4  0.0' in out and 'a\\x1b[31m[b].csv' in out
    assert 'a\\x1b[2J.mp4' in err
    assert predict(capsys, folder, tmp_path / '\x1b')[2].count('\\x1b') > 0


@pytest.mark.parametrize(
    'argv, code, message',
    [
        (['nowhere.mp4'], 1, 'nowhere.mp4'),
        (['broken.mp4'], 1, 'broken.mp4'),
        (['epoch_1.pth'], 2, "has the suffix '.pth'"),
        (['clip.mp4', '--batch-size', '0'], 2, 'batch_size=0'),
        (['clip.mp4', '--model', 's4d_finetune_dfw'], 2, 'Do you mean s4d_finetune_dfew'),
        (['clip.mp4', '--model', 'nowhere.py'], 2, 'nowhere.py'),
        (['clip.mp4', '--weights', 'nowhere.pth'], 2, 'nowhere.pth'),
        (['clip.mp4', '--weights', 'face.jpg'], 2, 'face.jpg'),
        (['clip.mp4', '--model', CONFIG.replace('finetune', 'pretrain')], 2, 'pre-training'),
    ],
)
def test_one_sentence_says_what_is_wrong(folder, capsys, monkeypatch, argv, code, message):
    monkeypatch.chdir(folder)
    found, out, err = predict(capsys, folder, *argv)
    assert (found, out) == (code, '') and message in err and err.count('\n') == 1


def test_ctrl_c_leaves_no_half_file(folder, tmp_path):
    clip = encode(tmp_path / 'long.mp4', [make_frame(i % 256) for i in range(3000)])
    command = [sys.executable, S4D, 'predict', clip, '--model', CONFIG]
    options = ['--weights', folder / 'epoch_1.pth', '--faces', 'none', '--out', tmp_path / 'out']
    with subprocess.Popen(
        [*command, *options], env=process_env(), text=True, stderr=subprocess.PIPE
    ) as process:
        while not osp.isdir(tmp_path / 'out') and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
    assert (process.returncode, error) == (130, 's4d predict: stopped\n')
    assert os.listdir(tmp_path / 'out') == []
