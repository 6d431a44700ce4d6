# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Write rendered people with known facial actions: pictures and clips to train and test with.

    OUT/images/{train,test}/NNNNNN.jpg, OUT/clips/NNNNNN.mp4    face crops, as `s4d predict` cuts them
    OUT/.../NNNNNN.json             truth: class, person, head pose, 52 facial actions of each frame
    OUT/annotations/affectnet_{train,test}.txt, dfew_{train,test}.csv
    OUT/benchmark.json              settings, classes, the best score that the labels' noise allows

Nobody is in both splits. The same settings give the same files, also after a stop in between.
Needs the extra `bench`.
"""

import argparse
import json
import multiprocessing
import os.path as osp
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from typing import NamedTuple

import cv2
import numpy as np
from clip_files import claim_folder
from facial_actions import COMPOUND, TIMING, course, draw_pattern, gaze
from head_model import HAIR, IRIS, Camera, HeadModel, build
from s4d_mm_alone import media
from s4d_mm_alone.files.atomic_write import atomic_path, atomic_write

AFFECTNET = ('neutral', 'happiness', 'sadness', 'surprise', 'fear', 'disgust', 'anger')
DFEW = ('happiness', 'sadness', 'neutral', 'anger', 'surprise', 'disgust', 'fear')
GRADES = dict(  # classes of the images, and of the clips
    basic=(AFFECTNET, DFEW),
    compound=((*AFFECTNET, *list(COMPOUND)[:5]), (*DFEW, *list(COMPOUND)[3:])),
    timing=(AFFECTNET, ('happiness', 'sadness', 'anger', 'surprise', *TIMING)),
)
KINDS = ('image', 'video')
MARKER, PEOPLE = 'benchmark.json', 'people.npz'
VERSION = 1  # raise when pictures change: old files are not mixed in
TEST_SHARE = 0.15  # of people and of samples
FPS = 12


class Settings(NamedTuple):
    """What decides about every file."""

    grade: str = 'basic'
    images: int = 30000
    clips: int = 1500
    people: int = 400
    frames: int = 16
    size: int = 128
    margin: float = 0.3
    noise: float = 0.0
    seed: int = 0


class Sample(NamedTuple):
    kind: str
    index: int
    split: str
    label: str  # what the face shows
    rated: str  # what the list says
    person: int

    @property
    def path(self) -> str:
        folder = f'images/{self.split}' if self.kind == 'image' else 'clips'
        return f'{folder}/{self.index:06d}.{"jpg" if self.kind == "image" else "mp4"}'


def list_samples(settings: Settings) -> list[Sample]:
    samples, testers = [], max(1, round(settings.people * TEST_SHARE))
    for k, (kind, count) in enumerate(zip(KINDS, (settings.images, settings.clips))):
        classes = GRADES[settings.grade][k]
        for i in range(count):
            rng = np.random.default_rng([settings.seed, 2 + k, i])
            is_test = i // len(classes) < count * TEST_SHARE / len(classes)
            person = rng.integers(*((0, testers) if is_test else (testers, settings.people)))
            label = rated = classes[i % len(classes)]
            if rng.random() < settings.noise:
                rated = str(rng.choice([c for c in classes if c != label]))
            split = 'test' if is_test else 'train'
            samples.append(Sample(kind, i, split, label, rated, int(person)))
    return samples


def draw_person(rng: np.random.Generator, model: HeadModel) -> dict:
    """Colours and hair of a person: values of :class:`head_render.Look`."""
    top, man = model.eyes[0, 2] + 0.06, rng.random() < 0.5
    tone = (1 - rng.uniform(0, 0.72)) ** np.array([0.75, 1, 1.2])
    skin = (np.array([0.95, 0.78, 0.66]) * tone * rng.normal(1, 0.04, 3).clip(0.9, 1.1)) ** 2.2
    lips = skin * [0.8, 0.42, 0.42] * rng.uniform(0.75, 1.1)
    if not man and rng.random() < 0.4:  # painted
        lips = np.array([0.4, 0.04, 0.06]) * rng.uniform(0.5, 1.3)
    hair = np.array(HAIR[rng.choice(len(HAIR), p=[0.3, 0.25, 0.18, 0.12, 0.1, 0.05])])
    look = dict(
        skin=skin, lips=lips, hair=hair * rng.uniform(0.7, 1.3),
        iris=np.array(IRIS[rng.choice(len(IRIS), p=[0.4, 0.3, 0.15, 0.15])]) * rng.uniform(0.8, 1.4),
        cloth=rng.uniform(0.01, 0.6, 3) * rng.uniform(0.2, 1), frame=rng.uniform(0, 0.1, 3),
        eye_left=model.eyes[0], eye_right=model.eyes[1], eye_size=0.0125,
        pupil=rng.uniform(0.15, 0.28), brow=rng.uniform(0.5, 1.6), brow_tilt=rng.normal(0, 0.2),
        brow_height=rng.normal(0, 0.15), mottle=rng.uniform(0.03, 0.12), oil=rng.uniform(0.05, 0.5),
        neck=top - rng.uniform(0.22, 0.3), seed=rng.integers(2**30),
        hairline=9.0 if man and rng.random() < 0.2 else top - rng.uniform(-0.01, 0.012),
        hair_side=9.0, fringe=9.0, length=-9.0, beard=0.0, beard_reach=rng.choice([0.07, 0.2]),
        lashes=rng.uniform(-0.8, -0.2), shadow=0.0, age=rng.beta(1, 2),
    )  # fmt: skip
    if man and rng.random() < 0.5:
        look['beard'] = rng.uniform(0.2, 1.2)
    if not man:
        look.update(
            lashes=rng.uniform(-0.5, 0.1), shadow=rng.uniform(0, 0.6) * (rng.random() < 0.4)
        )
    if rng.random() < (0.1 if man else 0.8):  # long hair
        look.update(hair_side=rng.uniform(-0.075, 0), length=top - rng.uniform(0.12, 0.5),
                    fringe=top - rng.uniform(-0.02, 0.03))  # fmt: skip
    return look


def draw_light(rng: np.random.Generator) -> dict:
    def way() -> np.ndarray:
        across, up = rng.uniform(-1.3, 1.3), rng.uniform(-0.3, 1.1)
        return np.array([np.sin(across) * np.cos(up), -np.cos(across) * np.cos(up), np.sin(up)])

    def tint(spread: float = 0.1) -> np.ndarray:
        return rng.normal(1, spread, 3).clip(0.65, 1.35)

    sky = tint() * rng.uniform(0.2, 0.9)
    return dict(light=tint() * rng.uniform(0.2, 1.3), light_from=way(), fill_from=way(),
                fill=tint() * rng.uniform(0, 0.6), sky=sky, ground=sky * tint() * rng.uniform(0.3, 0.9))  # fmt: skip


def as_look(values: dict, labels: list[str], actions: np.ndarray):
    """A ``Look`` whose wrinkles follow the actions and the person's age."""
    from head_render import Look

    now, age = dict(zip(labels, actions)), values['age']
    forehead = max(now['browInnerUp'], now['browOuterUpLeft'], now['browOuterUpRight'])
    depth = dict(forehead=forehead * 0.9, glabella=now['browDownLeft'] * 0.9,
                 crow=max(now['cheekSquintLeft'], now['eyeSquintLeft'], now['mouthSmileLeft'] * 0.5),
                 fold=max(now['mouthSmileLeft'], now['mouthUpperUpLeft'], now['noseSneerLeft'] * 0.8))  # fmt: skip
    depth = {k: min(1.0, v * (0.5 + 0.7 * age) + 0.4 * age**2) for k, v in depth.items()}
    look = Look()
    for name, value in {**values, **depth}.items():
        if name != 'age':
            setattr(look, name, _as_warp(value))
    return look


def _as_warp(value):
    import warp as wp

    if np.ndim(value):
        return wp.vec3(*map(float, value))
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Colour fields, some with edges, out of focus; linear RGB."""
    cells = int(rng.integers(2, 9))
    grey = rng.uniform(0.05, 0.7) + rng.uniform(0.05, 0.4) * rng.normal(size=(cells, cells, 1))
    colours = (grey + rng.uniform(0, 0.12) * rng.normal(size=(cells, cells, 3))).astype(np.float32)
    way = cv2.INTER_NEAREST if rng.random() < 0.3 else cv2.INTER_CUBIC
    image = cv2.resize(colours, (size, size), interpolation=way)
    for _ in range(rng.integers(0, 5)):
        corners = rng.integers(-size // 4, size * 5 // 4, (4, 2))
        cv2.fillPoly(image, [corners.astype(np.int32)], rng.uniform(0.02, 0.8, 3).tolist())
    return np.clip(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 6) * size / 128), 0, 1) ** 2


class Finish:
    """What a camera and a file make of rendered light, alike in all frames of a clip."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size, self.rng = size, rng
        self.background = background(rng, size)
        self.exposure = rng.uniform(0.75, 1.5)
        self.gamma = rng.uniform(1.9, 2.5)
        self.blur = rng.uniform(0, 1.1) * (rng.random() < 0.5) * size / 128
        self.noise = rng.uniform(0, 9) * (rng.random() < 0.6)
        self.scale = rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 1.0
        self.grey = rng.random() < 0.06
        self.quality = int(rng.integers(55, 96))
        self.hidden = None
        if rng.random() < 0.07:  # something in front of the face
            middle = rng.uniform(0, 1, 2) * [1, 0.4] + [0, 0.65 * rng.integers(0, 2)]
            axes = rng.uniform(0.06, 0.25, 2)
            shape = (middle * size, axes * 2 * size, rng.uniform(0, 180))
            self.hidden = shape, rng.uniform(0.02, 0.6, 3)

    def __call__(self, light: np.ndarray, cover: np.ndarray) -> np.ndarray:
        image = light * cover + self.background * (1 - cover)
        if self.hidden:
            mask = np.zeros((self.size, self.size), np.float32)
            cv2.ellipse(mask, self.hidden[0], 1.0, -1)
            mask = cv2.GaussianBlur(mask, (0, 0), 1.0)[..., None]
            image = image * (1 - mask) + self.hidden[1] * mask
        image = np.clip(image * self.exposure, 0, None)
        image = (image / (1 + 0.25 * image)) ** (1 / self.gamma) * 265
        if self.scale < 1:
            small = cv2.resize(
                image, None, fx=self.scale, fy=self.scale, interpolation=cv2.INTER_AREA
            )
            image = cv2.resize(small, (self.size, self.size), interpolation=cv2.INTER_LINEAR)
        if self.blur > 0.2:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        image = image + self.rng.normal(0, self.noise, image.shape)
        if self.grey:
            image = np.repeat(image.mean(-1, keepdims=True), 3, -1)
        return np.clip(image, 0, 255).astype(np.uint8)


@lru_cache(1)
def load(path: str) -> tuple:
    """The model of a file, and its renderers by whether there are long hair and glasses."""
    import warp as wp

    wp.config.quiet = True
    from head_render import FRAME, Renderer
    from head_render import HAIR as LONG

    with np.load(path) as f:
        model = HeadModel(**f)
    renderers = {}
    for key in ((long, glasses) for long in (False, True) for glasses in (False, True)):
        kept = (key[0] | (model.parts != LONG)) & (key[1] | (model.parts != FRAME))
        renderers[key] = Renderer(model.faces[kept], model.parts[kept], model.rest, model.paint)
    return model, renderers


def face_box(camera: Camera, points: np.ndarray) -> np.ndarray:
    """Middle x, y and longer side of the box that the face detector would give, seen by a camera."""
    seen = camera.project(points)
    low, high = seen.min(0), seen.max(0)
    low[1] += 0.05 * (high[1] - low[1])  # what CenterFace's boxes are on average
    return np.array([*(low + high) / 2, (high - low).max()])


def make_sample(sample: Sample, out: str, settings: Settings) -> None:
    cv2.setNumThreads(1)
    model, renderers = load(osp.join(out, PEOPLE))
    labels = model.labels.tolist()
    rng = np.random.default_rng([settings.seed, KINDS.index(sample.kind), sample.index])
    person_rng = np.random.default_rng([settings.seed, 4, sample.person])
    person, size = draw_person(person_rng, model), settings.size
    glasses = bool(person_rng.random() < 0.2)
    count = settings.frames if sample.kind == 'video' else 1
    if count == 1:
        actions = draw_pattern(sample.label, labels, rng)[None]
    else:
        actions = course(sample.label, labels, count, rng)
    pose = rng.normal(0, 1, 3) * [17, 9, 7] * (1 if rng.random() < 0.8 else 1.8)
    t = np.linspace(0, 1, count)[:, None]
    sway = rng.uniform(0, 4, 3) * np.sin(2 * np.pi * (rng.uniform(0.3, 1.2, 3) * t + rng.random(3)))
    poses = np.clip(pose + sway * (count > 1), -55, 55)
    to_camera, wander = float(rng.random() < 0.7), rng.normal(0, 0.15, 2)
    values = {**person, **draw_light(rng)}
    finish = Finish(rng, size)
    distance, shift = rng.uniform(0.5, 1.8), rng.normal(0, 0.025, 2)
    scale = (1 + settings.margin) * rng.uniform(0.93, 1.1)
    cameras, heads = [], []
    for row, (yaw, pitch, roll) in zip(actions, poses):
        look_at = to_camera * np.array([yaw, pitch]) / [38, 30] + wander
        row[:] = np.maximum(row, gaze(labels, *look_at))
        heads.append(
            model.people[sample.person] + np.tensordot(row.astype(np.float32), model.actions, 1)
        )
        cameras.append(Camera(heads[-1][model.marks].mean(0), yaw, pitch, roll, distance))
    boxes = np.stack([face_box(c, v[model.marks]) for c, v in zip(cameras, heads)])
    if count > 1:  # as the tracker smooths them
        padded = np.pad(boxes, ((4, 4), (0, 0)), 'edge')
        boxes = np.stack([padded[i : i + 9].mean(0) for i in range(count)])
    frames = []
    for row, camera, vertices, (x, y, side) in zip(actions, cameras, heads, boxes):
        camera.window = (x + shift[0] * side, y + shift[1] * side, side / 2 * scale)
        renderer = renderers[person['fringe'] < 9, glasses]
        fine = max(size * 5 // 4, 16)  # rays per side of the picture
        light, cover = renderer(vertices, as_look(values, labels, row), camera, fine)
        light, cover = (
            cv2.resize(x, (size, size), interpolation=cv2.INTER_AREA) for x in (light, cover)
        )
        frames.append(finish(light, cover[..., None]))
    truth = dict(label=sample.label, rated=sample.rated, person=sample.person,
                 yaw_pitch_roll=poses.round(1).tolist(),
                 actions={n: a.round(3).tolist() for n, a in zip(labels, actions.T) if a.any()})  # fmt: skip
    path = osp.join(out, sample.path)
    atomic_write(osp.splitext(path)[0] + '.json', json.dumps(truth) + '\n')
    with atomic_path(path) as part:  # last: a file that is there is whole
        if sample.kind == 'image':
            media.write_image(part, frames[0], '.jpg', quality=finish.quality)
        else:
            media.write_mp4(part, frames, FPS)


def write_lists(samples: list[Sample], out: str, settings: Settings) -> dict:
    """Write the annotation files; returns what the labels' noise lets the best model reach."""
    best = {}
    for kind, classes in zip(KINDS, GRADES[settings.grade]):
        for split in ('train', 'test'):
            chosen = [s for s in samples if (s.kind, s.split) == (kind, split)]
            stems = [osp.splitext(osp.basename(s.path))[0] for s in chosen]
            ids = [classes.index(s.rated) for s in chosen]
            if kind == 'image':
                lines, name = (
                    [f'{split}/{n}.jpg {i}\n' for n, i in zip(stems, ids)],
                    'affectnet_{}.txt',
                )
            else:
                lines, name = [f'{n},{i}\n' for n, i in zip(stems, ids)], 'dfew_{}.csv'
                lines.insert(0, 'video_name,label\n')
            atomic_write(osp.join(out, 'annotations', name.format(split)), ''.join(lines))
            right = [s.rated == s.label for s in chosen]
            best[f'{kind}/{split}'] = dict(
                count=len(chosen), best_war=round(100 * float(np.mean(right)), 2) if right else None
            )
    return best


def make_benchmark(out: str, settings: Settings, workers: int | None = None) -> int:
    """Make the benchmark, or what is missing of it; returns how many files were rendered."""
    claim_folder(out, MARKER, dict(version=VERSION, **settings._asdict()))
    people = osp.join(out, PEOPLE)
    if not osp.isfile(people):
        print('making the people; the first time this takes two minutes', flush=True)
        with atomic_path(people) as part, open(part, 'wb') as f:
            np.savez(f, **build(settings.people, settings.seed)._asdict())
    samples = list_samples(settings)
    todo = [s for s in samples if not osp.isfile(osp.join(out, s.path))]
    work = partial(make_sample, out=out, settings=settings)
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn')) as pool:
        for done, _ in enumerate(pool.map(work, todo, chunksize=8), 1):
            if done % 500 == 0 or done == len(todo):
                print(f'  {done}/{len(todo)} files', flush=True)
    for part, found in write_lists(samples, out, settings).items():
        print(f'{part}: {found["count"]} files; no model can score above {found["best_war"]} % WAR')
    return len(todo)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', help='folder to write to')
    for name, default in Settings()._asdict().items():
        choices = list(GRADES) if name == 'grade' else None
        parser.add_argument(f'--{name}', type=type(default), default=default, choices=choices)
    parser.add_argument('--workers', type=int, help='processes; default: all cores')
    args = vars(parser.parse_args(argv))
    out, workers = args.pop('out'), args.pop('workers')
    try:
        made = make_benchmark(out, Settings(**args), workers)
    except (ImportError, OSError, ValueError) as e:
        print(f'make_benchmark: {e}', file=sys.stderr)
        return 1
    print(f'{out}: {f"rendered {made} files" if made else "already complete with these settings"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
