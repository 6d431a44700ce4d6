# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Render people with known facial actions: pictures and clips to train and to test with.

    OUT/images/{train,test}/NNNNNN.jpg, OUT/clips/NNNNNN.mp4    face crops, as in prediction
    OUT/.../NNNNNN.json             the truth: class, person, pose of the head, actions per frame
    OUT/annotations/affectnet_{train,test}.txt, dfew_{train,test}.csv
    OUT/benchmark.json              settings

Nobody is in both splits. The same settings give the same pictures, also after a stop in between.
docs/data/rendered_people.md is the data sheet. Needs the extra `bench`.
"""

import argparse
import json
import os.path as osp
import sys
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from clip_files import claim_folder, make_files
from make_quickstart import AFFECTNET, DFEW, KINDS
from rendered_people import COMPOUNDS, COURSES, load, render
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_path, atomic_write

GRADES = dict(  # classes of the pictures, and of the clips; a part of them is in both
    basic=(AFFECTNET, DFEW),
    compound=((*AFFECTNET, *list(COMPOUNDS)[:5]), (*DFEW, *list(COMPOUNDS)[3:])),
    timing=(AFFECTNET, ('happiness', 'sadness', 'anger', 'surprise', *COURSES)),
)
VERSION = 1  # raise when the pictures change: old files are not mixed in
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


class Sample(NamedTuple):
    """One file."""

    kind: str  # one of KINDS
    index: int
    split: str
    label: str
    rated: str  # the label in the list: another one in a share `noise` of the files
    person: int

    @property
    def path(self) -> str:
        is_image = self.kind == 'image'
        folder, end = (f'images/{self.split}', 'jpg') if is_image else ('clips', 'mp4')
        return f'{folder}/{self.index:06d}.{end}'


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
    cv2.setNumThreads(1)
    frames, truth = render(sample, settings, *load(osp.join(out, 'people.npz')))
    path = osp.join(out, sample.path)
    atomic_write(osp.splitext(path)[0] + '.json', json.dumps(truth) + '\n')
    with atomic_path(path) as part:  # last: where it is, the truth is
        if sample.kind == 'image':
            media.write_image(part, frames[0], '.jpg', quality=truth['quality'])
        else:
            media.write_mp4(part, frames, FPS)


def write_lists(samples: list[Sample], out: str, grade: str) -> None:
    """Write the annotation files, and print their sizes and the best possible score."""
    for kind, classes in zip(KINDS, GRADES[grade]):
        for split in ('train', 'test'):
            chosen = [s for s in samples if (s.kind, s.split) == (kind, split)]
            ids = [classes.index(s.rated) for s in chosen]
            if kind == 'image':
                name, lines = f'affectnet_{split}.txt', []
                lines += [f'{split}/{s.index:06d}.jpg {i}' for s, i in zip(chosen, ids)]
            else:
                name, lines = f'dfew_{split}.csv', ['video_name,label']
                lines += [f'{s.index:06d},{i}' for s, i in zip(chosen, ids)]
            atomic_write(osp.join(out, 'annotations', name), '\n'.join(lines) + '\n')
            best = 100 * sum(s.rated == s.label for s in chosen) / max(len(chosen), 1)
            print(f'{name}: {len(chosen)} files; the best possible WAR is {best:.1f} %')
        print(f'{kind} classes, from 0: {", ".join(classes)}')


def make_benchmark(out: str, settings: Settings, workers: int | None = None) -> int:
    """Render all files, or those that are missing; returns how many."""
    claim_folder(out, 'benchmark.json', dict(version=VERSION, **settings._asdict()))
    people = osp.join(out, 'people.npz')
    if not osp.isfile(people):
        from head_model import build

        print('making the people, which takes some minutes the first time', flush=True)
        with atomic_path(people) as part, open(part, 'wb') as f:
            np.savez(f, **build(settings.people, settings.seed)._asdict())
    samples = list_samples(settings)
    todo = [s for s in samples if not osp.isfile(osp.join(out, s.path))]
    work = partial(make_sample, out=out, settings=settings)
    make_files(work, todo, workers)
    write_lists(samples, out, settings.grade)
    return len(todo)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='folder to write to')
    for name, default in Settings()._asdict().items():
        choices = list(GRADES) if name == 'grade' else None
        parser.add_argument(f'--{name}', type=type(default), default=default, choices=choices)
    parser.add_argument('--workers', type=int, help='processes; default: one for each core')
    args = vars(parser.parse_args(argv))
    out, workers = args.pop('out'), args.pop('workers')
    try:
        made = make_benchmark(out, Settings(**args), workers)
    except ImportError as e:
        print(f'make_benchmark: {e}. Install the extra: pip install -e ".[bench]"', file=sys.stderr)
        return 1
    except (OSError, ValueError) as e:
        print(f'make_benchmark: {e}', file=sys.stderr)
        return 1
    print(f'{out}: {f"rendered {made} files" if made else "already complete with these settings"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
