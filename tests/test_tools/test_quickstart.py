# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The quickstart: its drawn data, and tools/quickstart.sh on a few of them."""

import filecmp
import os
import os.path as osp
import re
import subprocess
import sys
from pathlib import Path

import av
import cv2
import drawn_faces as faces
import make_quickstart as quickstart
import numpy as np
import pytest
from helpers import ROOT, process_env

from s4d_mm.media import read_video

SMALL = dict(images=22, clips=15, seed=3, size=48, workers=1)


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
    out = str(tmp_path_factory.mktemp('quickstart') / 'set')
    assert quickstart.make_set(out, **SMALL) == 22 + 15
    return out


def files_of(root):
    return sorted(str(path.relative_to(root)) for path in Path(root).rglob('*.*'))


def test_annotations_name_every_file_once(small_set):
    listed = []
    for split in ('train', 'test'):
        for name, sign, path in (('affectnet', ' ', 'images/{}'), ('dfew', ',', 'clips/{}.mp4')):
            (file,) = Path(small_set, 'annotations').glob(f'{name}_{split}*')
            lines = [line.rsplit(sign, 1) for line in file.read_text().splitlines()]
            if name == 'dfew':
                assert lines.pop(0) == ['video_name', 'label']
            assert {label for _, label in lines} == set('0123456')
            listed += [path.format(name) for name, _ in lines]
    assert quickstart.list_samples('image', 4)[3].label == 'surprise'  # AffectNet's 3
    assert quickstart.list_samples('video', 4)[3].label == 'anger'  # DFEW's 3
    media = [f for f in files_of(small_set) if f.endswith(('jpg', 'mp4'))]
    assert sorted(listed) == media and len(media) == 22 + 15


def test_no_person_is_in_both_splits():
    persons = {}
    for kind in ('image', 'video'):
        for sample in quickstart.list_samples(kind, 420):
            persons.setdefault(repr(sample.identity(0)), set()).add(sample.split)
    assert all(len(splits) == 1 for splits in persons.values()) and len(persons) == 2 * 60


def test_images_and_clips_can_be_read(small_set):
    assert cv2.imread(osp.join(small_set, 'images/test/00000.jpg')).shape == (48, 48, 3)
    with av.open(osp.join(small_set, 'clips/00000.mp4')) as container:
        frames = [f.to_ndarray(format='rgb24') for f in container.decode()]
    drawn = quickstart.draw_clip(quickstart.list_samples('video', 15)[0], 3, 48)
    assert 12 <= len(frames) == len(drawn) <= 19
    assert np.abs(np.subtract(frames, drawn, dtype=float)).mean() < 8


def test_same_settings_same_pictures(small_set, tmp_path, capsys):
    again = str(tmp_path / 'again')
    quickstart.make_set(again, **dict(SMALL, workers=2))
    names = files_of(small_set)
    for name in ('images/train/00021.jpg', 'clips/00002.mp4', 'annotations/dfew_test.csv'):
        os.remove(osp.join(again, name))
    command = [again, '--images', '22', '--clips', '15', '--size', '48']
    assert quickstart.make_set(again, **SMALL) == 2  # an interrupted run goes on
    clips = [name for name in names if name.endswith('.mp4')]
    others = [name for name in names if name not in clips]
    assert filecmp.cmpfiles(small_set, again, others, shallow=False)[0] == others
    for name in clips:  # x264 writes other bytes of the same frames now and then
        one, other = (np.stack(list(read_video(osp.join(d, name)))) for d in (small_set, again))
        assert np.abs(np.subtract(one, other, dtype=float)).mean() < 3
    assert quickstart.make_set(again, **SMALL) == 0
    assert quickstart.main(command) == 1
    assert 'with other settings: seed was 3 and now is 0' in capsys.readouterr().err


def test_every_two_expressions_can_be_told_apart():
    """Same person, pose and light: each expression is its own picture."""
    rng = np.random.default_rng(0)
    who, scene = faces.Identity.draw(rng), faces.Scene(rng, 64)
    expressions = faces.EXPRESSIONS.values()
    pictures = [faces.draw_face(who, ex, faces.Pose(), scene).astype(float) for ex in expressions]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            assert (np.abs(one - other).max(-1) > 40).mean() > 0.01


# ----------------------------------------------------------------- the script
# Its interpreter: nothing is installed, the data are those of the tests, and the trainings are
# short. `$BREAK` is a part of the command that fails.
PYTHON = r"""#!/usr/bin/env bash
case "$*" in
*onedl-*) exit 1 ;;
-I* | '-m pip'*) exit 0 ;;
*make_quickstart.py*) ln -sfn "$TEST_DATA" "$QUICKSTART_DIR/data" && exit ;;
esac
if [ -n "$BREAK" ] && [[ "$*" == *"$BREAK"* ]]; then
    echo 'an earlier line'
    echo 'this is why' >&2
    exit 3
fi
if [[ "$*" == *tools/train.py* ]]; then
    [[ "$*" == *--cfg-options* ]] || set -- "$@" --cfg-options
    set -- "$@" train_cfg.max_epochs=1 train_dataloader.num_workers=0 \
        train_dataloader.persistent_workers=False \
        train_dataloader.batch_sampler.batch_size.video=4 \
        train_dataloader.batch_sampler.batch_size.image=4
fi
exec "$REAL_PYTHON" "$@"
"""


@pytest.fixture
def quickstart_script(quickstart_data, tmp_path):
    """Runs the script; returns its exit code, output, errors and folder."""
    python = tmp_path / 'bin' / 'python'
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(broken=''):
        env = dict(
            process_env(),
            PATH=f'{python.parent}{os.pathsep}{os.environ["PATH"]}',
            REAL_PYTHON=sys.executable,
            TEST_DATA=str(quickstart_data / 'data'),
            QUICKSTART_DIR=str(tmp_path / 'out'),
            BREAK=broken,
        )
        command = ['bash', osp.join(ROOT, 'tools', 'quickstart.sh')]
        done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True)
        return done.returncode, done.stdout, done.stderr, tmp_path / 'out'

    return run


@pytest.mark.skipif(
    not os.environ.get('S4D_SLOW_TESTS'), reason='takes minutes: S4D_SLOW_TESTS=1 runs it'
)
def test_it_ends_in_a_table(quickstart_script):
    code, output, errors, out = quickstart_script()
    assert (code, errors) == (0, ''), output + errors
    for label in ('masked faces', 'with pre-training', 'without pre-training'):
        assert re.search(rf'^  {label}: epoch 1/1  loss \d\.\d+  0:00:00 left$', output, re.M)
    summary = output.split('=== summary ===')[1]
    for row in ('with pre-training', 'without pre-training', 'chance'):
        assert len(re.search(rf'^{row}((?: +[\d.]+)+)$', summary, re.M).group(1).split()) == 4
    for name in re.findall(rf'{re.escape(str(out))}/\S+', summary):
        assert osp.isfile(name), name


def test_a_stage_that_fails_shows_why(quickstart_script):
    code, output, errors, out = quickstart_script('tools/train.py')
    assert code == 3
    assert 'an earlier line\nthis is why' in errors
    assert str(out / 'logs' / 'pretrain.log') in errors
    assert 'fine-tune' not in output
