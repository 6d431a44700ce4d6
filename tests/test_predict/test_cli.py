# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The command s4d, with a small model and real files; what it hands over, with a stand-in."""

import csv
import json
import os
import os.path as osp
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT, encode, make_frame, process_env, truncate, write_image, write_video
from user_files import CLASSES, CONFIG, write_checkpoint

from s4d_mm.predict import cli

S4D = osp.join(ROOT, 'tools', 's4d')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Holds clips, an image and weights."""
    folder = tmp_path_factory.mktemp('cli')
    write_checkpoint(folder / 'epoch_1.pth')
    write_video(folder / 'clip.mp4', 40)
    truncate(write_video(folder / 'broken.mp4', 40))
    write_image(folder / 'face.jpg')
    return folder


def predict(capsys, folder, *argv):
    """Exit code, standard output and error of ``s4d predict`` for face crops."""
    model = ['--model', CONFIG, '--weights', folder / 'epoch_1.pth', '--device', 'cpu']
    code = cli.main(list(map(str, ['predict', *model, '--faces', 'none', *argv])))
    return (code, *capsys.readouterr())


def test_a_process_prints_the_faces_and_nothing_else(folder, tmp_path):
    model = ['--model', CONFIG, '--weights', folder / 'epoch_1.pth', '--faces', 'none']
    media = folder / 'clip.mp4', folder / 'face.jpg'
    command = [sys.executable, S4D, 'predict', *media, *model, '--out', tmp_path / 'out']
    done = subprocess.run(command, env=process_env(), text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, '')
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f'{folder}/clip.mp4  0.0-1.6 s  ')
    assert [line for line in lines if line.startswith(f'{folder}/face.jpg  ')]
    assert lines[-2] == 'the model was trained on: drawn faces'
    names = ['clip.csv', 'clip.json', 'clip.mp4', 'clip_timeline.png']
    names += ['face.csv', 'face.json', 'face.png']
    assert lines[-1] == f'written to {tmp_path}/out: {", ".join(names)}'
    assert sorted(os.listdir(tmp_path / 'out')) == names
    with open(tmp_path / 'out' / 'clip.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0])[11:] == list(CLASSES)
    assert rows[-1]['end_frame'] == '40' and rows[-1]['face'] == ''


def test_without_a_model_it_is_the_one_in_the_package(folder, capsys, tmp_path):
    media = [str(folder / name) for name in ('clip.mp4', 'face.jpg')]
    options = ['--faces', 'none', '--device', 'cpu', '--out', str(tmp_path)]
    assert cli.main(['predict', *media, *options]) == 0
    assert 'the model was trained on: rendered people only\n' in capsys.readouterr().out
    for name in ('clip', 'face'):
        (found,) = json.loads((tmp_path / f'{name}.json').read_text())['media']
        assert found['trained_on'] == 'rendered people only'
    assert cli.main(['models']) == 0
    assert 'trained on: rendered people only         weights: in' in capsys.readouterr().out
    assert cli.main(['predict', media[1], '--weights', 'x.pth']) == 2
    assert "weights='x.pth': give their config, too, as model" in capsys.readouterr().err


def test_escape_codes_in_names_do_not_reach_the_terminal(folder, capsys, tmp_path):
    write_video(tmp_path / 'a\x1b[31m[b].mp4', 8)
    truncate(write_video(tmp_path / 'a\x1b[2J.mp4', 40))
    options = ['--no-pictures', '--features', '--window-stride', 4, '--batch-size', 2]
    code, out, err = predict(capsys, folder, tmp_path, '--out', tmp_path / 'out', *options)
    assert code == 1 and '\x1b' not in out + err
    assert '"features": [' in (tmp_path / 'out' / 'a\\x1b[31m[b].json').read_text()
    assert 'a\\x1b[31m[b].mp4  0.0' in out and 'a\\x1b[31m[b].csv' in out
    assert 'a\\x1b[2J.mp4' in err
    assert predict(capsys, folder, tmp_path / '\x1b')[2].count('\\x1b') > 0


@pytest.mark.parametrize(
    'argv, code, message',
    [
        (['nowhere.mp4'], 1, 'nowhere.mp4'),
        (['epoch_1.pth'], 2, 'epoch_1.pth'),
        (['clip.mp4', '--batch-size', '0'], 2, 'batch_size=0'),
        (['clip.mp4', '--model', 's4d_finetune_dfw'], 2, 'yml: s4d_finetune_dfew'),
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
    ) as running:
        while not osp.isdir(tmp_path / 'out') and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        error = running.communicate()[1]
    assert (running.returncode, error) == (130, 's4d predict: stopped\n')
    assert os.listdir(tmp_path / 'out') == []
