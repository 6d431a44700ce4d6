# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What rendered people do, how they look, and their pictures: see make_benchmark.py."""

import os.path as osp
from functools import lru_cache

import cv2
import numpy as np
import yaml

with open(osp.join(osp.dirname(osp.abspath(__file__)), 'rendered_people.yml')) as f:
    FACTS = yaml.safe_load(f)
EXPRESSIONS, COMPOUNDS, COURSES = (FACTS[k] for k in ('expressions', 'compounds', 'courses'))
UPPER = ('brow', 'eye', 'cheek')


def draw_actions(name: str, labels: list[str], rng: np.random.Generator) -> np.ndarray:
    """Actions (52, ) of an expression at its apex, 0 to 1, and small ones that belong to none."""
    if name in COMPOUNDS:
        lower, upper = (draw_actions(part, labels, rng) for part in COMPOUNDS[name])
        return np.where([label.startswith(UPPER[:2]) for label in labels], upper, lower)
    ways = EXPRESSIONS[name]
    chosen, strength = ways[rng.integers(len(ways))], rng.uniform(0.75, 1.1)
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


def look_at(labels: list[str], across: float, up: float) -> np.ndarray:
    """Actions (52, ) that turn the eyes to the head's left (``across`` > 0) and up."""
    ways = dict(eyeLookOutLeft=across, eyeLookInRight=across, eyeLookInLeft=-across)
    ways |= dict(eyeLookOutRight=-across, eyeLookUpLeft=up, eyeLookUpRight=up)
    ways |= dict(eyeLookDownLeft=-up, eyeLookDownRight=-up)
    return np.clip([ways.get(label, 0) for label in labels], 0, 1)


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


def draw_person(rng: np.random.Generator, top: float) -> dict:
    """Colours and hair; ``top`` is the height of the forehead's upper end."""
    man = rng.random() < 0.5
    tone = (1 - rng.uniform(0, 0.72)) ** np.array([0.75, 1, 1.2])
    skin = (np.array([0.95, 0.78, 0.66]) * tone * rng.normal(1, 0.04, 3).clip(0.9, 1.1)) ** 2.2
    look = dict(skin=skin, lips=skin * [0.8, 0.42, 0.42] * rng.uniform(0.75, 1.1))
    for name in ('hair', 'iris'):
        table = np.array(FACTS[name])
        row = table[rng.choice(len(table), p=table[:, 3] / 100)]
        look[name] = row[:3] * rng.uniform(0.7, 1.3)
    look |= dict(cloth=rng.uniform(0.01, 0.6, 3) * rng.uniform(0.2, 1))
    look |= dict(neck=top - rng.uniform(0.22, 0.3))
    look |= dict(brow=[rng.uniform(0.5, 1.6), rng.normal(0, 0.2), rng.normal(0, 0.15)])
    look |= dict(mottle=rng.uniform(0.03, 0.12), oil=rng.uniform(0.05, 0.5))
    look |= dict(hairline=top + rng.uniform(-0.012, 0.01), long_hair=[9, 9, 0], beard=0.0)
    look |= dict(lashes=rng.uniform(-0.8, -0.2), seed=int(rng.integers(2**30)))
    if man:
        look['beard'] = rng.uniform(0.2, 1.2) * (rng.random() < 0.5)
        look['hairline'] += rng.random() < 0.2  # bald
    else:
        look['lashes'] += 0.3
        if rng.random() < 0.4:
            look['lips'] = np.array([0.4, 0.04, 0.06]) * rng.uniform(0.5, 1.3)
    if rng.random() < (0.1 if man else 0.8):
        ends = top - rng.uniform(0.12, 0.5)
        look['long_hair'] = [rng.uniform(-0.075, 0), top + rng.uniform(-0.03, 0.02), ends]
    return look


def draw_light(rng: np.random.Generator) -> dict:
    """A key light, a fill light, and light from all sides."""
    look = {}
    for name, least, most in (('light', 0.2, 1.3), ('fill', 0, 0.6), ('sky', 0.2, 0.9)):
        across, up = rng.uniform(-1.3, 1.3), rng.uniform(-0.3, 1.1)
        way = [np.sin(across) * np.cos(up), -np.cos(across) * np.cos(up), np.sin(up)]
        tint = rng.normal(1, 0.1, 3).clip(0.65, 1.35)
        look |= {name: tint * rng.uniform(least, most), f'{name}_from': way}
    del look['sky_from']
    return look | dict(ground=look['sky'] * rng.uniform(0.3, 0.9, 3))


def wrinkles(labels: list[str], actions: np.ndarray, age: float) -> np.ndarray:
    """Depth of the lines of the forehead, between the brows, beside the eyes and the mouth."""
    now = dict(zip((label.removesuffix('Left') for label in labels), actions))
    depth = [
        max(now['browInnerUp'], now['browOuterUp']),
        now['browDown'],
        max(now['cheekSquint'], now['eyeSquint'], now['mouthSmile'] / 2),
        max(now['mouthSmile'], now['mouthUpperUp'], now['noseSneer']),
    ]
    return np.clip(np.array(depth) * (0.4 + 0.5 * age) + 0.4 * (age - 0.5) ** 2, 0, 1)


class Picture:
    """What background, camera and file make of a rendered head; alike in all frames of a clip."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.size = rng, size
        cells = int(rng.integers(2, 9))
        grey = rng.uniform(0.05, 0.7) + rng.uniform(0.05, 0.4) * rng.normal(size=(cells, cells, 1))
        colours = grey + rng.uniform(0, 0.12) * rng.normal(size=(cells, cells, 3))
        way = cv2.INTER_NEAREST if rng.random() < 0.3 else cv2.INTER_CUBIC
        behind = cv2.resize(colours, (size, size), interpolation=way)
        for _ in range(rng.integers(0, 5)):
            corners = rng.integers(-size // 4, size * 5 // 4, (4, 2)).astype(np.int32)
            cv2.fillPoly(behind, [corners], rng.uniform(0.02, 0.8, 3).tolist())
        behind = cv2.GaussianBlur(behind, (0, 0), rng.uniform(0.5, 6) * size / 128)
        self.background = np.clip(behind, 0, 1) ** 2
        self.exposure, self.gamma = rng.uniform(0.75, 1.5), rng.uniform(1.9, 2.5)
        self.blur = rng.uniform(0.2, 1.1) * (rng.random() < 0.5) * size / 128
        self.noise = rng.uniform(0, 9) * (rng.random() < 0.6)
        self.scale = rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 1.0
        self.is_grey, self.quality = rng.random() < 0.06, int(rng.integers(55, 96))
        self.cover = np.zeros((size, size), np.float32)  # something in front of the face
        self.cover_colour = rng.uniform(0.02, 0.6, 3)
        if rng.random() < 0.07:
            middle = rng.uniform(0, 1, 2) * [1, 0.4] + [0, 0.6 * rng.integers(0, 2)]
            axes = rng.uniform(0.12, 0.5, 2) * size
            cv2.ellipse(self.cover, (middle * size, axes, rng.uniform(0, 180)), 1.0, -1)

    def __call__(self, rendered: np.ndarray) -> np.ndarray:
        """RGB, uint8, of linear RGB and the share of the head in each pixel."""
        light = rendered[..., :3] + self.background * (1 - rendered[..., 3:])
        cover = cv2.GaussianBlur(self.cover, (0, 0), 1)[..., None]
        light = (light * (1 - cover) + self.cover_colour * cover) * self.exposure
        image = (light / (1 + 0.25 * light)) ** (1 / self.gamma) * 265
        if (k := self.scale) < 1:
            image = cv2.resize(image, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
            image = cv2.resize(image, (self.size, self.size))
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        image = image + self.rng.normal(0, self.noise, image.shape)
        if self.is_grey:
            image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
        return np.clip(image, 0, 255).astype(np.uint8)


class Camera:
    """A camera that looks at a point; angles in degrees, distance in metres."""

    def __init__(self, target, angles, distance: float) -> None:
        yaw, pitch, roll = np.deg2rad(angles)
        level = np.cos(pitch)
        ahead = np.array([-np.sin(yaw) * level, np.cos(yaw) * level, -np.sin(pitch)])
        right = np.array([np.cos(yaw), np.sin(yaw), 0])
        up = np.cross(right, ahead)
        turned = right * np.cos(roll) + up * np.sin(roll), up * np.cos(roll) - right * np.sin(roll)
        self.axes, self.place = np.stack([*turned, ahead]), target - ahead * distance

    def face_box(self, points: np.ndarray) -> np.ndarray:
        """Middle x, y and longer side of a face's box; mean error to CenterFace's is 2 %."""
        seen = (points - self.place) @ self.axes.T
        low, high = np.quantile(seen[:, :2] / seen[:, 2:], [0, 1], axis=0)
        low[1] += 0.05 * (high[1] - low[1])
        return np.array([*(low + high) / 2, (high - low).max()])

    def rays(self, x: float, y: float, side: float, size: int) -> np.ndarray:
        """Directions (size * size, 3) of a square."""
        at = ((np.arange(size) + 0.5) / size - 0.5) * side
        across, down = np.meshgrid(x + at, y - at)
        rays = np.stack([across, down, np.ones_like(across)], axis=-1).reshape(-1, 3) @ self.axes
        return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(1)
def load(path: str) -> tuple:
    """The model of a file, and its renderers by whether there are long hair and glasses."""
    from head_model import HeadModel
    from head_render import FRAME, HAIR, Renderer

    with np.load(path) as f:
        model = HeadModel(**f)
    renderers = {}
    for key in np.ndindex(2, 2):
        kept = (key[0] | (model.parts != HAIR)) & (key[1] | (model.parts != FRAME)) > 0
        renderers[key] = Renderer(model.faces[kept], model.parts[kept], model.rest, model.paint)
    return model, renderers


def render(sample, settings, model, renderers: dict, actions=None) -> tuple[list, dict]:
    """Frames, RGB, of a ``Sample`` and its ``Settings``, and the truth about them.

    ``actions`` (frames, 52) take the place of those that are drawn for the sample's label.
    """
    labels, size = model.labels.tolist(), settings.size
    is_image = sample.kind == 'image'
    rng = np.random.default_rng([settings.seed, int(not is_image), sample.index])
    person_rng = np.random.default_rng([settings.seed, 4, sample.person])
    look = draw_person(person_rng, model.eye[2] + 0.06) | draw_light(rng) | dict(eye=model.eye)
    renderer = renderers[int(look['long_hair'][0] < 9), int(person_rng.random() < 0.2)]
    if actions is None and is_image:
        actions = draw_actions(sample.label, labels, rng)[None]
    elif actions is None:
        actions = draw_course(sample.label, labels, settings.frames, rng)
    t = np.linspace(0, 1, len(actions))[:, None]
    sway = np.sin(2 * np.pi * (rng.uniform(0.3, 1.2, 3) * t + rng.random(3))) * (not is_image)
    pose = rng.normal(0, 1, 3) * [17, 9, 7] * (1.8 if rng.random() < 0.2 else 1)
    poses = np.clip(pose + rng.uniform(0, 4, 3) * sway, -55, 55)
    to_camera, wander = rng.random() < 0.7, rng.normal(0, 0.15, 2)
    distance, picture = rng.uniform(0.5, 1.8), Picture(rng, size)
    shift, scale = rng.normal(0, 0.025, 2), (1 + settings.margin) * rng.uniform(0.93, 1.1)
    heads, cameras = [], []
    for row, angles in zip(actions, poses):
        eyes = look_at(labels, *(to_camera * angles[:2] / [38, 30] + wander))
        row[:] = np.maximum(row, eyes)
        moved = row.astype(np.float32) @ model.actions.reshape(len(labels), -1)
        heads.append(model.people[sample.person] + moved.reshape(-1, 3))
        cameras.append(Camera(heads[-1][model.marks].mean(axis=0), angles, distance))
    boxes = np.stack([c.face_box(head[model.marks]) for c, head in zip(cameras, heads)])
    padded = np.pad(boxes, ((4, 4), (0, 0)), 'edge')  # smoothed, as the tracker does
    frames = []
    for i, (row, head, camera) in enumerate(zip(actions, heads, cameras)):
        x, y, side = padded[i : i + 9].mean(axis=0)
        look['lines'] = wrinkles(labels, row, model.ages[sample.person])
        rays = camera.rays(x + shift[0] * side, y + shift[1] * side, side * scale, size)
        rendered = renderer(head, look, camera.place, rays)
        frames.append(picture(rendered.reshape(size, size, 4)))
    truth = sample._asdict() | dict(quality=picture.quality, yaw_pitch_roll=poses.round(1).tolist())
    truth['actions'] = {n: a.round(3).tolist() for n, a in zip(labels, actions.T) if a.any()}
    return frames, truth
