# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Render people with known facial actions: pictures and clips to train and to test with.

    OUT/images/{train,test}/NNNNNN.jpg, OUT/clips/NNNNNN.mp4    face crops, as in prediction
    OUT/.../NNNNNN.json             the truth: class, person, pose of the head, actions per frame
    OUT/annotations/affectnet_{train,test}.txt, dfew_{train,test}.csv
    OUT/benchmark.json              settings

Nobody is in both splits. The same settings give the same pictures, also after a stop in between.
docs/data/rendered_people.md is the data sheet. Needs the extra `bench`.
"""

import json
import os.path as osp
import sys
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

import make_quickstart as sets
import numpy as np
from clip_files import claim_folder
from make_quickstart import AFFECTNET, DFEW, KINDS
from rendered_people import COMPOUNDS, COURSES, load, render
from s4d_mm_alone.files.atomic_write import atomic_path, atomic_write

GRADES = dict(  # classes of the pictures, and of the clips; a part of them is in both
    basic=(AFFECTNET, DFEW),
    compound=((*AFFECTNET, *list(COMPOUNDS)[:5]), (*DFEW, *list(COMPOUNDS)[3:])),
    timing=(AFFECTNET, ('happiness', 'sadness', 'anger', 'surprise', *COURSES)),
)
VERSION = 2  # raise when the pictures change: old files are not mixed in
TEST_SHARE = 0.15  # of the people and of the files
FPS = 12


class Settings(NamedTuple):
    """What decides about every file."""

    grade: str = 'basic'
    images: int = 30100
    clips: int = 1050
    people: int = 500
    frames: int = 16
    size: int = 128
    margin: float = 0.3
    noise: float = 0.0
    seed: int = 0


class Sample(sets.Sample):
    """One file."""

    digits = 6


def list_samples(settings: Settings) -> list[Sample]:
    """All files; classes take turns, and the first ones are those for testing."""
    samples, testers = [], max(1, round(settings.people * TEST_SHARE))
    counts = settings.images, settings.clips
    for k, (kind, count, classes) in enumerate(zip(KINDS, counts, GRADES[settings.grade])):
        tests = round(count * TEST_SHARE / len(classes)) * len(classes)
        for i in range(count):
            rng = np.random.default_rng([settings.seed, 2 + k, i])
            people = (0, testers) if i < tests else (testers, settings.people)
            label = rated = classes[i % len(classes)]
            if rng.random() < settings.noise:
                rated = str(rng.choice([c for c in classes if c != label]))
            split, person = 'test' if i < tests else 'train', int(rng.integers(*people))
            samples.append(Sample(kind, i, split, label, rated, person))
    return samples


def make_sample(sample: Sample, out: str, settings: Settings) -> None:
    frames, truth = render(sample, settings, load(osp.join(out, 'people.npz')))
    path = osp.join(out, sample.path)
    atomic_write(osp.splitext(path)[0] + '.json', json.dumps(truth) + '\n')
    sets.write_sample(path, frames, FPS, truth['quality'])  # last: where it is, the truth is


def make_benchmark(out: str, settings: Settings, workers: int | None = None) -> int:
    """Render all files, or those that are missing; returns how many."""
    if missing := [name for name in ('anny', 'warp') if find_spec(name) is None]:
        raise ValueError(f'{missing[0]} is not installed: pip install -e ".[bench]"')
    claim_folder(out, 'benchmark.json', dict(version=VERSION, **settings._asdict()))
    people = osp.join(out, 'people.npz')
    if not osp.isfile(people):
        from head_model import build

        print('making the people, which takes some minutes the first time', flush=True)
        with atomic_path(people) as part, open(part, 'wb') as f:
            np.savez(f, **build(settings.people, settings.seed))
    samples = list_samples(settings)
    made = sets.make_files(partial(make_sample, out=out, settings=settings), samples, out, workers)
    sets.write_lists(samples, out, GRADES[settings.grade])
    for kind, classes in zip(KINDS, GRADES[settings.grade]):
        right = [s.rated == s.label for s in samples if (s.kind, s.split) == (kind, 'test')]
        print(f'{kind}: the best possible WAR is {100 * np.mean(right or [1]):.1f} %')
        print(f'{kind} classes, from 0: {", ".join(classes)}')
    return made


def main(argv: list[str] | None = None) -> int:
    def make(out: str, workers: int | None, **options) -> int:
        return make_benchmark(out, Settings(**options), workers)

    options = dict(Settings()._asdict(), grade=tuple(GRADES))
    return sets.run(make, __doc__, options, argv)


if __name__ == '__main__':
    sys.exit(main())
