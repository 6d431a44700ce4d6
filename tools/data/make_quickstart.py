# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write a small set of drawn expressions, for the quickstart.

    OUT/images/{train,test}/NNNNN.jpg     one face at (nearly) its apex
    OUT/clips/NNNNN.mp4                   H.264, from neutral to the apex
    OUT/annotations/affectnet_{train,test}.txt, dfew_{train,test}.csv

The label ids are AffectNet's (7 classes) for images and DFEW's for clips. Nobody is in both splits.
The same settings give the same pictures.
"""

import argparse
import os.path as osp
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from clip_files import claim_folder, in_processes
from drawn_faces import EXPRESSIONS, Expression, Identity, Pose, Scene, draw_face
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_path, atomic_write

AFFECTNET = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger')
DFEW = ('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear')
KINDS = ('image', 'video')
SETTINGS = dict(images=11200, clips=2800, seed=0, size=80)  # counts; pixels of a side
MARKER = 'quickstart.json'  # holds the settings of the set in this folder
DRAWING = 4  # raise when the drawing changes: old files are not mixed in
TEST_SHARE = 0.2
FPS = 10


class Sample(NamedTuple):
    """One file of a set."""

    kind: str  # one of KINDS
    index: int
    split: str
    label: str
    rated: str  # the label in the list; another one where raters are wrong
    person: int
    digits = 5  # of the file's name

    @property
    def path(self) -> str:
        name = f'{self.index:0{self.digits}d}'
        return f'images/{self.split}/{name}.jpg' if self.kind == 'image' else f'clips/{name}.mp4'

    def rng(self, seed: int) -> np.random.Generator:
        return np.random.default_rng([seed, KINDS.index(self.kind), self.index])

    def identity(self, seed: int) -> Identity:
        """Its person; images and clips have no person in common."""
        return Identity.draw(np.random.default_rng([seed, 2 + KINDS.index(self.kind), self.person]))


def list_samples(kind: str, count: int) -> list[Sample]:
    """The samples of one modality: each person shows the 7 expressions; a fifth is for testing."""
    classes = AFFECTNET if kind == 'image' else DFEW
    testers = max(1, round(-(-count // len(classes)) * TEST_SHARE))
    samples = []
    for i in range(count):
        person, label = i // len(classes), classes[i % len(classes)]
        split = 'test' if person < testers else 'train'
        samples.append(Sample(kind, i, split, label, label, person))
    return samples


def draw_image(sample: Sample, seed: int, size: int) -> np.ndarray:
    rng, who = sample.rng(seed), sample.identity(seed)
    pose, scene = Pose.draw(rng), Scene(rng, size)
    return draw_face(who, Expression(*_apex(sample, rng)), pose, scene)


def draw_clip(sample: Sample, seed: int, size: int, fps: int = FPS) -> list[np.ndarray]:
    """Draw the RGB frames of a clip: from neutral to the apex; the head sways, the eyes blink."""
    rng, who = sample.rng(seed), sample.identity(seed)
    pose, scene = Pose.draw(rng), Scene(rng, size)
    apex, rest = _apex(sample, rng), rng.normal(0, 0.04, len(Expression._fields))
    seconds = rng.integers(32, 49) / 25
    onset, rise = rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.35)
    blink = rng.uniform(0.0, 1.0)
    phase, speed = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.5, 1.5, 4)
    frames = []
    for t in np.linspace(0, 1, int(seconds * fps)):
        x = np.clip((t - onset) / rise, 0, 1)
        face = rest + (apex - rest) * x * x * (3 - 2 * x)  # smooth step
        if abs(t - blink) * seconds < 0.08:
            face[Expression._fields.index('eye')] = -1
        sway = np.sin(phase + 2 * np.pi * speed * t)
        angle, scale = pose.angle + 2 * sway[2], pose.scale * (1 + 0.015 * sway[3])
        x, y, yaw = (pose.x, pose.y, pose.yaw) + (0.012, 0.012, 0.2) * sway[[0, 1, 0]]
        now = pose._replace(x=x, y=y, angle=angle, scale=scale, yaw=yaw)
        frames.append(draw_face(who, Expression(*face), now, scene))
    return frames


def _apex(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """The expression at its strongest; each part of the face takes part a little more or less."""
    full = np.array(EXPRESSIONS[sample.label])
    strength = rng.uniform(0.8, 1.15) * rng.uniform(0.85, 1.15, len(full))
    return full * strength + rng.normal(0, 0.04, len(full))


def make_sample(sample: Sample, out: str, seed: int, size: int) -> None:
    is_image = sample.kind == 'image'
    frames = [draw_image(sample, seed, size)] if is_image else draw_clip(sample, seed, size)
    write_sample(osp.join(out, sample.path), frames, FPS)


def make_set(out: str, workers: int | None = None, **options: int) -> int:
    """Make the set of ``SETTINGS`` and options, or what is missing of it; how many were drawn."""
    settings = SETTINGS | options
    claim_folder(out, MARKER, dict(drawing=DRAWING, **settings))
    samples = list_samples('image', settings['images']) + list_samples('video', settings['clips'])
    work = partial(make_sample, out=out, seed=settings['seed'], size=settings['size'])
    made = make_files(work, samples, out, workers)
    write_lists(samples, out, (AFFECTNET, DFEW))
    return made


# ---- for every set that is made: see make_benchmark.py, too
def write_sample(path: str, frames: Sequence[np.ndarray], fps: int, quality: int = 92) -> None:
    with atomic_path(path) as part:
        if path.endswith('.jpg'):
            media.write_image(part, frames[0], '.jpg', quality=quality)
        else:
            media.write_mp4(part, frames, fps)


def make_files(make: Callable, samples: Sequence, out: str, workers: int | None) -> int:
    """Call ``make`` with each sample whose file is missing, in processes; returns how many."""
    todo = [s for s in samples if not osp.isfile(osp.join(out, s.path))]
    made = in_processes(make, todo, workers, partial(cv2.setNumThreads, 0))
    for done, _ in enumerate(made, 1):
        if done % 500 == 0 or done == len(todo):
            print(f'  {done}/{len(todo)} files', flush=True)
    return len(todo)


def write_lists(samples: Sequence, out: str, classes: Sequence) -> None:
    """Write the lists, as AffectNet's and DFEW's; ids follow the classes of each kind."""
    for kind, names in zip(KINDS, classes):
        for split in ('train', 'test'):
            chosen = [s for s in samples if (s.kind, s.split) == (kind, split)]
            lines = [] if kind == 'image' else ['video_name,label']
            for sample in chosen:
                name, label = osp.basename(sample.path), names.index(sample.rated)
                is_image = kind == 'image'
                lines.append(f'{split}/{name} {label}' if is_image else f'{name[:-4]},{label}')
            file = f'affectnet_{split}.txt' if kind == 'image' else f'dfew_{split}.csv'
            atomic_write(osp.join(out, 'annotations', file), ''.join(f'{ln}\n' for ln in lines))


def run(make: Callable, doc: str, options: dict, argv: list[str] | None) -> int:
    """The command line of a tool that makes a set; an option that is a tuple has choices."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument('out', help='folder to write to')
    for name, value in options.items():
        choices = value if isinstance(value, tuple) else None
        default = choices[0] if choices else value
        parser.add_argument(f'--{name}', type=type(default), default=default, choices=choices)
    parser.add_argument('--workers', type=int, help='processes; default: one for each core')
    args = parser.parse_args(argv)
    try:
        made = make(**vars(args))
    except (OSError, ValueError) as e:
        print(f'{parser.prog}: {e}', file=sys.stderr)
        return 1
    print(f'{args.out}: {f"made {made} files" if made else "already complete with these settings"}')
    return 0


def main(argv: list[str] | None = None) -> int:
    return run(make_set, __doc__, SETTINGS, argv)


if __name__ == '__main__':
    sys.exit(main())
