# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Data flow, step 0 (quick start): write a small set of drawn expressions.

    OUT/images/{train,test}/NNNNN.jpg     one face at (nearly) its apex
    OUT/clips/NNNNN.mp4                   H.264, from neutral to the apex
    OUT/annotations/affectnet_{train,test}.txt   `train/00001.jpg label`
    OUT/annotations/dfew_{train,test}.csv        `video_name,label`

The label ids are AffectNet's (7 classes) for images and DFEW's for clips.
Nobody who is in a test split is in a training split, in either modality. The
same settings give the same pictures and the same frames. A run that was
interrupted goes on where it stopped; a set that is complete stays as it is.
"""

import argparse
import multiprocessing
import os
import os.path as osp
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
from drawn_faces import EXPRESSIONS, Expression, Identity, Pose, Scene, draw_face
from output_folder import claim_folder, write_text
from s4d_mm_alone import media

AFFECTNET = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger')
DFEW = ('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear')
MARKER = 'quickstart.json'  # holds the settings of the set in this folder
DRAWING = 3  # raise when the drawing changes: old files are not mixed in
TEST_SHARE = 0.2
FPS = 25


class Sample(NamedTuple):
    """One file of the set."""

    kind: str  # 'image' or 'video'
    index: int
    split: str
    expression: str

    @property
    def path(self) -> str:
        """Path inside the set."""
        if self.kind == 'image':
            return f'images/{self.split}/{self.index:05d}.jpg'
        return f'clips/{self.index:05d}.mp4'


def list_samples(kind: str, count: int) -> list[Sample]:
    """The samples of one modality.

    Each person shows the 7 expressions in turn; the first fifth of the persons
    is for testing.
    """
    classes = AFFECTNET if kind == 'image' else DFEW
    persons = -(-count // len(classes))
    testers = max(1, round(persons * TEST_SHARE))
    return [
        Sample(
            kind, i, 'test' if i // len(classes) < testers else 'train', classes[i % len(classes)]
        )
        for i in range(count)
    ]


def draw_image(sample: Sample, seed: int, size: int) -> np.ndarray:
    """Draw the RGB picture of an image sample."""
    rng = _rng(seed, sample)
    who = _identity(seed, sample)
    pose, scene = Pose.draw(rng), Scene(rng, size)
    return draw_face(who, Expression(*_apex(sample, rng)), pose, scene)


def draw_clip(sample: Sample, seed: int, size: int) -> list[np.ndarray]:
    """Draw the RGB frames of a clip.

    The expression grows from neutral to its apex and stays, while the head
    sways and the eyes blink once.
    """
    rng = _rng(seed, sample)
    who = _identity(seed, sample)
    pose, scene = Pose.draw(rng), Scene(rng, size)
    apex, rest = _apex(sample, rng), rng.normal(0, 0.04, len(_FIELDS))
    length = int(rng.integers(32, 49))
    onset, rise = rng.uniform(0.05, 0.3), rng.uniform(0.2, 0.35)
    blink = rng.uniform(0.0, 1.0)
    phase, speed = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.5, 1.5, 4)
    frames = []
    for t in np.linspace(0, 1, length):
        x = np.clip((t - onset) / rise, 0, 1)
        face = rest + (apex - rest) * x * x * (3 - 2 * x)  # smooth step
        if abs(t - blink) < 2.0 / length:
            face[_FIELDS.index('eye')] = -1
        sway = np.sin(phase + 2 * np.pi * speed * t)
        now = Pose(
            x=pose.x + 0.012 * sway[0],
            y=pose.y + 0.012 * sway[1],
            angle=pose.angle + 2 * sway[2],
            scale=pose.scale * (1 + 0.015 * sway[3]),
            yaw=pose.yaw + 0.2 * sway[0],
            gaze_x=pose.gaze_x,
            gaze_y=pose.gaze_y,
        )
        frames.append(draw_face(who, Expression(*face), now, scene))
    return frames


_FIELDS = list(Expression.__dataclass_fields__)


def _rng(seed: int, sample: Sample) -> np.random.Generator:
    kind = ('image', 'video').index(sample.kind)
    return np.random.default_rng([seed, kind, sample.index])


def _identity(seed: int, sample: Sample) -> Identity:
    """The person of a sample.

    Images and clips number their persons apart, so that no one is in the
    training split of one and the test split of the other.
    """
    kind = ('image', 'video').index(sample.kind)
    return Identity.draw(np.random.default_rng([seed, 2 + kind, sample.index // len(EXPRESSIONS)]))


def _apex(sample: Sample, rng: np.random.Generator) -> np.ndarray:
    """The sample's expression at its strongest.

    Each part of the face takes part a little more or less than in the textbook.
    """
    full = EXPRESSIONS[sample.expression].vector()
    strength = rng.uniform(0.8, 1.15) * rng.uniform(0.85, 1.15, len(full))
    return full * strength + rng.normal(0, 0.04, len(full))


def make_sample(sample: Sample, out: str, seed: int, size: int) -> None:
    """Draw and write one sample; its file appears only when it is whole."""
    cv2.setNumThreads(1)
    path = osp.join(out, sample.path)
    part = f'{path}.part'
    if sample.kind == 'image':
        media.write_image(part, draw_image(sample, seed, size), '.jpg', quality=92)
    else:
        media.write_mp4(part, draw_clip(sample, seed, size), FPS)
    os.replace(part, path)


def annotations(samples: list[Sample]) -> dict:
    """The annotation files: path inside the set -> text."""
    texts = {}
    for split in ('train', 'test'):
        images = [
            f'{split}/{osp.basename(s.path)} {AFFECTNET.index(s.expression)}'
            for s in samples
            if s.kind == 'image' and s.split == split
        ]
        clips = [
            f'{s.index:05d},{DFEW.index(s.expression)}'
            for s in samples
            if s.kind == 'video' and s.split == split
        ]
        texts[f'annotations/affectnet_{split}.txt'] = images
        texts[f'annotations/dfew_{split}.csv'] = ['video_name,label'] + clips
    return {k: '\n'.join(v) + '\n' for k, v in texts.items()}


def make_set(
    out: str,
    images: int = 5600,
    clips: int = 1400,
    seed: int = 0,
    size: int = 112,
    workers: int | None = None,
) -> int:
    """Make the set, or what is missing of it.

    Args:
        out: Folder to write to.
        images: Number of images. Defaults to 5600.
        clips: Number of clips. Defaults to 1400.
        seed: Seed of all randomness. Defaults to 0.
        size: Side of images and frames in pixels. Defaults to 112.
        workers: Number of processes. Defaults to the number of CPUs.

    Returns:
        int: How many files were drawn; 0 if the set was complete.

    Raises:
        ValueError: If a number is out of range or `out` is not ours.
    """
    least = 2 * len(EXPRESSIONS)  # one person to train on, one to test on
    for name, value in (('images', images), ('clips', clips)):
        if value < least:
            raise ValueError(
                f'{name}={value}: at least {least} are needed, one person for each split'
            )
    if size < 32 or size % 2:
        raise ValueError(f'size={size}: must be even (H.264) and at least 32')
    if seed < 0:
        raise ValueError(f'seed={seed}: must not be negative')
    claim_folder(
        out, MARKER, dict(drawing=DRAWING, images=images, clips=clips, seed=seed, size=size)
    )
    samples = list_samples('image', images) + list_samples('video', clips)
    for folder in ('images/train', 'images/test', 'clips', 'annotations'):
        os.makedirs(osp.join(out, folder), exist_ok=True)
    todo = [s for s in samples if not osp.isfile(osp.join(out, s.path))]
    work = partial(make_sample, out=out, seed=seed, size=size)
    # not forked: a fork of a process in which OpenCV has threads can hang
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for done, _ in enumerate(pool.map(work, todo, chunksize=4), 1):
            if done % 500 == 0 or done == len(todo):
                print(f'  {done}/{len(todo)} files', flush=True)
    for path, text in annotations(samples).items():
        write_text(osp.join(out, path), text)
    return len(todo)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description='Make a small set of drawn facial expressions')
    parser.add_argument('out', help='folder to write to')
    parser.add_argument('--images', type=int, default=5600, help='number of images')
    parser.add_argument('--clips', type=int, default=1400, help='number of clips')
    parser.add_argument('--seed', type=int, default=0, help='random seed')
    parser.add_argument('--size', type=int, default=112, help='side of images and frames')
    parser.add_argument('--workers', type=int, help='processes (default: all CPUs)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; returns its exit code."""
    args = parse_args(argv)
    start = time.time()
    try:
        made = make_set(**vars(args))
    except ValueError as e:
        print(f'make_quickstart: {e}', file=sys.stderr)
        return 1
    if made:
        print(f'{args.out}: drew {made} files in {time.time() - start:.0f} s')
    else:
        print(f'{args.out}: already complete with these settings')
    return 0


if __name__ == '__main__':
    sys.exit(main())
