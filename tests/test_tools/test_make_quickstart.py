# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Tests of the drawn quick-start set."""

import filecmp
import os
import os.path as osp

import av
import cv2
import drawn_faces as faces
import make_quickstart as quickstart
import numpy as np
import pytest

SMALL = dict(images=22, clips=15, seed=3, size=48, workers=1)


@pytest.fixture(scope='module')
def small_set(tmp_path_factory):
    out = str(tmp_path_factory.mktemp('quickstart') / 'set')
    assert quickstart.make_set(out, **SMALL) == 22 + 15
    return out


def read_pairs(path, delimiter, header=None):
    with open(path, encoding='utf-8') as f:
        lines = f.read().splitlines()
    if header is not None:
        assert lines.pop(0) == header
    return [(n, int(i)) for n, i in (ln.rsplit(delimiter, 1) for ln in lines)]


def files_of(root):
    return sorted(
        osp.relpath(osp.join(folder, name), root)
        for folder, _, names in os.walk(root)
        for name in names
    )


def test_annotations_name_every_file_once(small_set):
    listed = []
    for split in ('train', 'test'):
        pairs = read_pairs(osp.join(small_set, f'annotations/affectnet_{split}.txt'), ' ')
        assert {label for _, label in pairs} == set(range(7))
        assert all(name.startswith(f'{split}/') for name, _ in pairs)
        listed += [f'images/{name}' for name, _ in pairs]
        pairs = read_pairs(
            osp.join(small_set, f'annotations/dfew_{split}.csv'), ',', 'video_name,label'
        )
        assert {label for _, label in pairs} == set(range(7))
        listed += [f'clips/{name}.mp4' for name, _ in pairs]
    media = [f for f in files_of(small_set) if f.endswith(('jpg', 'mp4'))]
    assert sorted(listed) == media and len(media) == 22 + 15


def test_labels_follow_the_datasets_that_they_imitate():
    samples = quickstart.list_samples('image', 14)
    text = quickstart.annotations(samples)['annotations/affectnet_test.txt']
    assert text.splitlines()[3] == 'test/00003.jpg 3'
    assert samples[3].expression == 'surprise'
    samples = quickstart.list_samples('video', 14)
    text = quickstart.annotations(samples)['annotations/dfew_train.csv']
    assert text.splitlines()[4] == '00010,3'
    assert samples[10].expression == 'anger'


@pytest.mark.parametrize('count', (14, 15, 70, 420))
def test_no_person_is_in_both_splits(count):
    persons = {}
    for kind in ('image', 'video'):
        for sample in quickstart.list_samples(kind, count):
            who = repr(quickstart._identity(0, sample))
            persons.setdefault(who, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in persons.values())
    assert len(persons) == 2 * -(-count // 7)


def test_images_and_clips_can_be_read(small_set):
    image = cv2.imread(osp.join(small_set, 'images/test/00000.jpg'))
    assert image.shape == (48, 48, 3) and image.std() > 10
    with av.open(osp.join(small_set, 'clips/00000.mp4')) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == 'h264'
        assert stream.codec_context.pix_fmt == 'yuv420p'
        frames = [f.to_ndarray(format='rgb24') for f in container.decode()]
    drawn = quickstart.draw_clip(
        quickstart.list_samples('video', 15)[0], SMALL['seed'], SMALL['size']
    )
    assert 32 <= len(frames) == len(drawn) <= 48
    assert np.abs(np.subtract(frames, drawn, dtype=float)).mean() < 8


def test_same_seed_same_files_other_seed_other_files(small_set, tmp_path):
    again = str(tmp_path / 'again')
    quickstart.make_set(again, **dict(SMALL, workers=2))
    names = files_of(small_set)
    assert files_of(again) == names
    assert filecmp.cmpfiles(small_set, again, names, shallow=False)[0] == names
    for kind in ('image', 'video'):
        sample = quickstart.list_samples(kind, 14)[0]
        draw = getattr(quickstart, dict(image='draw_image', video='draw_clip')[kind])
        one, other = draw(sample, 0, 48), draw(sample, 1, 48)
        assert not np.array_equal(one[0], other[0])


def test_an_interrupted_run_goes_on(small_set, tmp_path):
    out = str(tmp_path / 'set')
    quickstart.make_set(out, **SMALL)
    gone = ('images/train/00021.jpg', 'clips/00002.mp4', 'annotations/dfew_test.csv')
    for name in gone:
        os.remove(osp.join(out, name))
    kept = osp.join(out, 'clips/00003.mp4')
    before = os.stat(kept).st_mtime_ns
    assert quickstart.make_set(out, **SMALL) == 2
    assert os.stat(kept).st_mtime_ns == before
    for name in gone:
        assert filecmp.cmp(osp.join(small_set, name), osp.join(out, name), shallow=False)


def test_command_says_that_a_set_is_complete(small_set, capsys):
    options = [f'--{name}={value}' for name, value in SMALL.items()]
    assert quickstart.main([small_set, *options]) == 0
    assert 'already complete' in capsys.readouterr().out


def test_other_settings_and_foreign_folders_are_refused(small_set, tmp_path, capsys):
    with pytest.raises(ValueError, match='seed was 3 and now is 4'):
        quickstart.make_set(small_set, **dict(SMALL, seed=4))
    (tmp_path / 'mine.txt').write_text('mine')
    assert quickstart.main([str(tmp_path)]) == 1
    assert 'is not empty' in capsys.readouterr().err
    assert os.listdir(tmp_path) == ['mine.txt']
    with pytest.raises(ValueError, match='is a file'):
        quickstart.make_set(str(tmp_path / 'mine.txt'), **SMALL)


@pytest.mark.parametrize('change', (dict(images=13), dict(clips=0), dict(size=47), dict(seed=-1)))
def test_bad_numbers_are_named(change, tmp_path):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f'{name}={value}'):
        quickstart.make_set(str(tmp_path / 'set'), **dict(SMALL, **change))
    assert not (tmp_path / 'set').exists()


@pytest.mark.parametrize('seed', range(20))
def test_every_two_expressions_can_be_told_apart(seed):
    """Same person, pose and light: each expression is its own picture, on
    dark skin and in dim light too."""
    rng = np.random.default_rng(seed)
    who, scene = faces.Identity.draw(rng), faces.Scene(rng, 64)
    pictures = [
        faces.draw_face(who, ex, faces.Pose(), scene).astype(float)
        for ex in faces.EXPRESSIONS.values()
    ]
    for i, one in enumerate(pictures):
        for other in pictures[:i]:
            changed = np.abs(one - other).max(-1) > 40
            assert changed.mean() > 0.01


def test_a_clip_starts_neutral_and_ends_at_its_apex():
    sample = quickstart.Sample('video', 4, 'train', 'surprise')
    calm = quickstart.Sample('video', 4, 'train', 'neutral')
    apex, neutral = (quickstart.draw_clip(s, 0, 64) for s in (sample, calm))
    gaps = [np.abs(np.subtract(a, b, dtype=float)).mean() for a, b in zip(apex, neutral)]
    assert gaps[0] < 0.25 * gaps[-1] and gaps[-1] > 2
