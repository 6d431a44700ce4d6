# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What rendered people do, how they look, and their pictures: see make_benchmark.py."""

import os.path as osp
from functools import lru_cache
from types import SimpleNamespace

import cv2
import numpy as np
import yaml
from scipy.spatial.transform import Rotation

with open(osp.join(osp.dirname(osp.abspath(__file__)), 'rendered_people.yml')) as f:
    FACTS = yaml.safe_load(f)
EXPRESSIONS, COMPOUNDS, COURSES = (FACTS[k] for k in ('expressions', 'compounds', 'courses'))
UPPER = ('brow', 'eye', 'cheek')


def draw_actions(name: str, labels: list[str], rng: np.random.Generator) -> np.ndarray:
    """Actions (52, ) of an expression at its apex, 0 to 1, and small ones that belong to none."""
    if name in COMPOUNDS:
        lower, upper = (draw_actions(part, labels, rng) for part in COMPOUNDS[name])
        return np.where([label.startswith(UPPER[:2]) for label in labels], upper, lower)
    chosen, strength = rng.choice(EXPRESSIONS[name]), rng.uniform(0.75, 1.1)
    uneven = rng.normal(0, 0.05, len(labels))
    values = np.abs(rng.normal(0, 0.05, len(labels))) * (rng.random(len(labels)) < 0.3)
    values[labels.index('tongueOut')] = 0
    for action, (low, high) in chosen.items():
        value = strength * rng.uniform(low, high)
        for i in find_actions(labels, action):
            values[i] = max(values[i], value + uneven[i] * (value > 0.1))
    return np.clip(values, 0, 1)


def find_actions(labels: list[str], name: str) -> list[int]:
    return [i for i, n in enumerate(labels) if n in (name, f'{name}Left', f'{name}Right')]


def rise(t: np.ndarray, start: float, length: float) -> np.ndarray:
    """A smooth step from 0 to 1."""
    x = np.clip((t - start) / length, 0, 1)
    return x * x * (3 - 2 * x)


def draw_course(name: str, labels: list[str], frames: int, rng: np.random.Generator) -> np.ndarray:
    """Actions (frames, 52) of a clip: onset and apex, in some the offset, a blink, speech.

    The two classes of a pair in COURSES have like frames: only when they come differs.
    """
    t = np.linspace(0, 1, frames)[:, None]
    rest = 0.5 * draw_actions('neutral', labels, rng)
    apex = draw_actions(COURSES.get(name, name), labels, rng)
    start, length, late = rng.uniform(-0.15, 0.3), rng.uniform(0.12, 0.35), rng.uniform(0.25, 0.35)
    upper = np.array([label.startswith(UPPER) for label in labels])
    if name in COURSES:
        start = abs(start) + 0.1
    share = rise(t, start, length) * np.ones(len(labels))
    if name == 'smile_offset':
        share = share[::-1]
    elif name.startswith('brow'):
        held = 0.06 if name == 'brow_flash' else late + 0.15
        share = rise(t, start, 0.1) - rise(t, start + 0.1 + held, 0.1)
        apex = np.where([label.startswith('brow') for label in labels], apex, rest)
    elif name.startswith('eyes'):
        squint = find_actions(labels, 'cheekSquint') + find_actions(labels, 'eyeSquint')
        apex[squint] = np.maximum(apex[squint], rng.uniform(0.5, 0.9))
        if name == 'eyes_late':
            share = np.where(upper, rise(t, start + late, length), share)
    elif name not in COURSES and rng.random() < 0.3:
        share = share - rise(t, rng.uniform(0.65, 0.9), 0.3) * rng.uniform(0.3, 0.9)
    values = rest + (apex - rest) * np.clip(share, 0, 1)
    blink, jaw = find_actions(labels, 'eyeBlink'), labels.index('jawOpen')
    shut = np.exp(-(((t - rng.uniform(-0.3, 1.3)) / 0.04) ** 2))
    values[:, blink] = np.maximum(values[:, blink], shut)
    speed, loud = rng.uniform(1, 4), rng.uniform(0, 0.12) * (rng.random() < 0.4)
    values[:, jaw] += loud * (1 + np.sin(2 * np.pi * (speed * t[:, 0] + rng.random())))
    return np.clip(values, 0, 1)


def draw(table: str, rng: np.random.Generator) -> dict:
    """A value of each range in a table of FACTS."""
    return {name: rng.uniform(*limits) for name, limits in FACTS[table].items()}


def draw_person(rng: np.random.Generator) -> dict:
    """Colours and hair."""
    look = draw('looks', rng)
    tone = (1 - rng.uniform(0, 0.72)) ** np.array([0.75, 1, 1.2])
    look['skin'] = (np.array([0.95, 0.78, 0.66]) * tone * rng.uniform(0.93, 1.07, 3)) ** 2.2
    look['lips'] = look['skin'] * [0.8, 0.42, 0.42] * rng.uniform(0.75, 1.1)
    for name in ('hair', 'iris'):
        table = np.array(FACTS[name])
        look[name] = rng.choice(table, p=table[:, 3] / 100)[:3] * rng.uniform(0.7, 1.3)
    if rng.random() < 0.5:
        look['long_hair'] = [9, 9, 0]  # nowhere
    return look | dict(noise=rng.uniform(-0.9, 0.9, (32, 32, 32)))


def draw_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Linear RGB: spots of any size."""
    cells = int(rng.integers(2, 9))
    colours = rng.normal(rng.uniform(0.1, 0.7), rng.uniform(0.05, 0.3), (cells, cells, 1))
    colours = colours + rng.normal(0, 0.06, (cells, cells, 3))
    return cv2.resize(colours, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1) ** 2


def take(light: np.ndarray, camera: dict, rng: np.random.Generator) -> np.ndarray:
    """The picture, RGB, uint8, of linear RGB."""
    light = light * camera['exposure'] * camera['tint']
    image = (light / (1 + 0.25 * light)) ** (1 / camera['gamma']) * 265
    image = cv2.GaussianBlur(image, (0, 0), max(camera['blur'], 0.1) * len(image) / 128)
    image += rng.normal(0, max(camera['noise'], 0), image.shape)
    return image.clip(0, 255).astype(np.uint8)


@lru_cache(1)
def load(path: str) -> SimpleNamespace:
    """What ``head_model.build`` has made."""
    with np.load(path) as f:
        return SimpleNamespace(**f)


def render(sample, settings, model: SimpleNamespace, actions=None) -> tuple[list, dict]:
    """Frames, RGB, of a ``Sample`` and its ``Settings``, and the truth about them.

    ``actions`` (frames, 52) take the place of those that are drawn for the sample's label.
    """
    from head_render import render_head, unit

    labels, size = model.labels.tolist(), settings.size
    is_image = sample.kind == 'image'
    rng = np.random.default_rng([settings.seed, int(not is_image), sample.index])
    look = draw_person(np.random.default_rng([settings.seed, 4, sample.person]))
    look |= draw('lights', rng) | dict(eye=model.eye)
    if actions is None:
        actions = draw_course(sample.label, labels, settings.frames, rng)
        if is_image:
            actions = draw_actions(sample.label, labels, rng)[None]
    t = np.linspace(0, 1, len(actions))[:, None]
    sway = np.sin(2 * np.pi * (rng.uniform(0.3, 1.2, 3) * t + rng.random(3))) * (not is_image)
    pose = rng.normal(0, 1, 3) * [17, 9, 7] * (1.8 if rng.random() < 0.2 else 1)
    poses = np.clip(pose + rng.uniform(0, 4, 3) * sway, -55, 55)  # yaw, pitch, roll
    heads = model.people[sample.person] + np.tensordot(actions, model.actions, 1)
    # the cameras look at the middle of the face; the box is a detector's, with 2 % error
    turns = Rotation.from_euler('ZXY', poses * [1, -1, -1], degrees=True).as_matrix()
    axes = turns[:, :, [0, 2, 1]]  # right, up, ahead: the last index
    marks = heads[:, model.marks]
    places = marks.mean(axis=1) - axes[:, :, 2] * rng.uniform(0.5, 1.8)
    seen = (marks - places[:, None]) @ axes
    seen = seen[..., :2] / seen[..., 2:]
    low, high = seen.min(axis=1).mean(axis=0), seen.max(axis=1).mean(axis=0)
    side = (high - low).max()
    x, y = (low + high) / 2 + rng.normal(0, 0.025, 2) * side
    at = np.linspace(-0.5, 0.5, size) * side * (1 + settings.margin) * rng.uniform(0.93, 1.1)
    across, down = np.meshgrid(x + at, y - at)
    rays = unit(np.stack([across, down, np.ones_like(across)], axis=-1).reshape(-1, 3))
    background, camera, frames = draw_background(size, rng), draw('cameras', rng), []
    folds = [[labels.index(name) for name in line['actions']] for line in FACTS['lines']]
    for row, head, place, axis in zip(actions, heads, places, axes):
        depths = [row[names].max() * look['wrinkles'] for names in folds]
        look['lines'] = [(d, *line['at']) for d, line in zip(depths, FACTS['lines'])]
        rendered = render_head(model, look, head, place, rays @ axis.T).reshape(size, size, 4)
        light = rendered[..., :3] + background * (1 - rendered[..., 3:])
        frames.append(take(light, camera, rng))
    truth = sample._asdict() | dict(quality=int(camera['quality']))
    truth['yaw_pitch_roll'] = poses.round(1).tolist()
    truth['actions'] = {n: a.round(3).tolist() for n, a in zip(labels, actions.T) if a.any()}
    return frames, truth
