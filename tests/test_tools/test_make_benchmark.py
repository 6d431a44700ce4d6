"""tools/data/make_benchmark.py: who is in which split, what a face does, and the files."""

import importlib.util
import json

import make_benchmark as bench
import numpy as np
import pytest
from rendered_people import draw_course

from s4d_mm.media import read_image, read_video

PAIRS = ('browDown', 'browOuterUp', 'cheekSquint', 'eyeBlink', 'eyeSquint', 'eyeWide', 'mouthSmile')
LABELS = [f'{action}{side}' for action in PAIRS for side in ('Left', 'Right')]
LABELS += ['browInnerUp', 'jawOpen', 'tongueOut']


def courses(name, frames=64, seed=0):
    return draw_course(name, LABELS, frames, np.random.default_rng(seed))


def test_people_are_in_one_split_and_classes_take_turns():
    samples = bench.list_samples(bench.Settings(images=700, clips=140, people=20, noise=0.2))
    people = [{s.person for s in samples if s.split == split} for split in ('train', 'test')]
    assert not people[0] & people[1] and len(people[1]) == 3
    for kind, split, count in (('image', 'test', 15), ('image', 'train', 85), ('video', 'test', 3)):
        labels = [s.label for s in samples if (s.kind, s.split) == (kind, split)]
        assert set(np.unique(labels, return_counts=True)[1]) == {count}
    wrong = np.mean([s.rated != s.label for s in samples])
    assert 0.15 < wrong < 0.25


@pytest.mark.parametrize('grade', bench.GRADES)
def test_every_class_can_be_drawn(grade):
    for name in {*bench.GRADES[grade][0], *bench.GRADES[grade][1]}:
        values = courses(name, frames=8)
        assert values.shape == (8, len(LABELS)) and values.min() >= 0 and values.max() <= 1


def test_pairs_differ_in_their_course_only():
    still = [i for i, name in enumerate(LABELS) if not name.startswith(('eyeBlink', 'jawOpen'))]
    onset, offset = (courses(f'smile_{way}')[:, still] for way in ('onset', 'offset'))
    np.testing.assert_allclose(onset, offset[::-1], atol=1e-12)
    brow = LABELS.index('browInnerUp')
    flash, held = (
        (x := courses(f'brow_{way}')[:, brow]) > x.max() / 2 for way in ('flash', 'raise')
    )
    assert 0 < flash.sum() < held.sum() / 2
    smile, squint = LABELS.index('mouthSmileLeft'), LABELS.index('cheekSquintLeft')
    lag = {}
    for name in ('eyes_late', 'eyes_at_once'):
        x = courses(name)
        lag[name] = np.subtract(*(np.argmax(x[:, i] > x[:, i].max() / 2) for i in (squint, smile)))
    assert abs(lag['eyes_at_once']) < 4 and lag['eyes_late'] > 12


def test_rendered_files_are_the_same_again(tmp_path):
    """With the extra `bench` only: two files of each kind, their truth, and a second call."""
    for module in ('anny', 'warp'):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install -e .[bench]')
    sizes = dict(images=7, clips=7, people=3, frames=3, size=32)
    for out in ('a', 'b'):
        assert bench.make_benchmark(str(tmp_path / out), bench.Settings(**sizes), workers=1) == 14
    path = 'images/train/000003.jpg'
    assert (tmp_path / 'a' / path).read_bytes() == (tmp_path / 'b' / path).read_bytes()
    image = read_image(str(tmp_path / 'a' / path))
    assert image.shape == (32, 32, 3) and image.std() > 5
    frames = list(read_video(str(tmp_path / 'a/clips/000000.mp4')))
    truth = json.loads((tmp_path / 'a/clips/000000.json').read_text())
    assert len(frames) == 3 and truth['label'] == 'happiness'
    assert len(truth['actions']['mouthSmileLeft']) == len(truth['yaw_pitch_roll']) == 3
    (tmp_path / 'a' / path).unlink()
    assert bench.make_benchmark(str(tmp_path / 'a'), bench.Settings(**sizes), workers=1) == 1
    with pytest.raises(ValueError, match='size was 32 and now is 64'):
        bench.make_benchmark(str(tmp_path / 'a'), bench.Settings(**{**sizes, 'size': 64}))
