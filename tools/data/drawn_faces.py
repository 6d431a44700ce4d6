# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Draw faces that show an expression, for the quickstart.

Coordinates are those of the face: the origin between eyes and mouth, y downwards, chin at y = 1;
left and right are the picture's.
"""

from collections import namedtuple
from typing import NamedTuple

import cv2
import numpy as np

Color = tuple[int, int, int]

SUPERSAMPLING = 2  # canvas pixels per picture pixel, on top of drawn AA
SUBPIXEL_BITS = 4  # fixed-point bits of OpenCV's drawing coordinates

SKINS = ((250, 220, 196), (238, 196, 160), (214, 164, 124), (178, 124, 86))
SKINS += ((146, 100, 70), (118, 80, 58))
HAIRS = ((28, 22, 20), (70, 44, 28), (120, 78, 40), (196, 156, 88), (150, 60, 30), (160, 160, 164))
IRISES = ((60, 40, 26), (70, 100, 140), (76, 110, 70), (96, 76, 40))
FEATURES = dict(  # ranges of lengths, in face units
    eye_x=(0.31, 0.40),
    eye_y=(-0.20, -0.10),
    eye_size=(0.15, 0.19),
    brow_weight=(0.065, 0.095),
    nose_length=(0.30, 0.40),
    nose_width=(0.09, 0.14),
    mouth_y=(0.52, 0.58),
    mouth_width=(0.27, 0.34),
)
LOOKS = ('width', 'jaw', 'skin', 'hair', 'hair_style', 'iris', 'lip', 'clothes', *FEATURES)
HAIR_STYLES = ('bald', 'short', 'fringe', 'long')


class Expression(NamedTuple):
    """What a face does; all zero is a neutral face."""

    curve: float = 0.0  # mouth corners up (1) or down (-1)
    open: float = 0.0  # how far the mouth is open
    width: float = 0.0  # mouth wider (1) or narrower (-1)
    teeth: float = 0.0  # share of the open mouth that the upper teeth fill
    press: float = 0.0  # lips pressed together
    sneer: float = 0.0  # upper lip raised beside the nose
    brow: float = 0.0  # brows up (1) or down (-1)
    inner: float = 0.0  # inner ends of the brows up (1) or down (-1)
    eye: float = 0.0  # eyes wide open (1) or shut (-1)
    nose: float = 0.0  # nose wrinkled and lifted
    cheek: float = 0.0  # cheeks raised


EXPRESSIONS = dict(
    neutral=Expression(),
    happiness=Expression(curve=1.0, open=0.45, width=0.45, teeth=0.75, eye=-0.3, cheek=1.0),
    sadness=Expression(curve=-1.0, width=-0.1, brow=0.1, inner=1.0, eye=-0.4),
    surprise=Expression(open=1.2, width=-0.45, brow=1.0, eye=0.9),
    fear=Expression(curve=-0.55, open=0.5, width=0.45, teeth=0.5, brow=0.55, inner=0.95, eye=0.8),
    disgust=Expression(-0.6, 0.25, 0.05, 1.0, 0.0, 1.0, -0.45, -0.25, -0.6, 1.0, 0.5),
    anger=Expression(curve=-0.3, width=-0.25, press=1.0, brow=-0.75, inner=-1.1, eye=0.1),
)


class Identity(namedtuple('Identity', LOOKS)):
    """Whom the drawing shows."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> 'Identity':
        first = rng.integers(len(SKINS) - 1)
        skin = _mix(*SKINS[first : first + 2], rng.random())
        hair = _jitter(HAIRS[rng.integers(len(HAIRS))], rng, 12)
        return cls(
            rng.uniform(0.70, 0.88),
            rng.uniform(0.0, 0.34),
            skin,
            hair,
            HAIR_STYLES[rng.integers(len(HAIR_STYLES))],
            _jitter(IRISES[rng.integers(len(IRISES))], rng, 12),
            _mix(skin, (170, 40, 50), rng.uniform(0.4, 0.7)),
            _color(rng.integers(30, 226, 3)),
            *rng.uniform(*zip(*FEATURES.values())),
        )


class Pose(namedtuple('Pose', 'x y angle scale yaw gaze_x gaze_y', defaults=(0, 0, 0, 1, 0, 0, 0))):
    """Where the head is: shift in picture widths, angle in degrees."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> 'Pose':
        low, high = (-0.04, -0.03, -9, 0.92, -1, -1, -1), (0.04, 0.05, 9, 1.08, 1, 1, 1)
        return cls(*rng.uniform(low, high))


class Scene:
    """Background and light of one picture or clip, whose side is ``size`` pixels."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        side = size * SUPERSAMPLING
        top, bottom = rng.integers(20, 236, (2, 3))
        rows = top + (bottom - top) * np.linspace(0, 1, side)[:, None, None]
        self.background = np.repeat(rows.astype(np.uint8), side, axis=1)
        for _ in range(rng.integers(2, 6)):
            color = _color(rng.integers(20, 236, 3))
            x, y = rng.integers(0, side, 2).tolist()
            w, h = rng.integers(side // 12, side // 3, 2).tolist()
            cv2.rectangle(self.background, (x, y), (x + w, y + h), color, -1)
        self.background = cv2.GaussianBlur(self.background, (0, 0), side / 50)
        # a linear light: brighter on one side, and warmer or colder
        angle, unit = rng.uniform(0, 2 * np.pi), np.linspace(-1, 1, size)
        slope = np.cos(angle) * unit[None] + np.sin(angle) * unit[:, None]
        gain = rng.uniform(0.85, 1.12) * (1 + rng.uniform(0, 0.3) * slope)
        tint = 1 + rng.uniform(-0.06, 0.06, 3)
        self._gain = (gain[..., None] * tint).astype(np.float32)
        self._grain = rng.normal(0, rng.uniform(0, 4), (size, size, 1)).astype(np.float32)

    def light(self, canvas: np.ndarray) -> np.ndarray:
        picture = cv2.resize(canvas, self._gain.shape[:2], interpolation=cv2.INTER_AREA)
        return np.clip(picture * self._gain + self._grain, 0, 255).astype(np.uint8)


class _Pencil:
    """Draws shapes given in face coordinates on a canvas in pixels."""

    def __init__(self, canvas: np.ndarray, pose: Pose) -> None:
        self.canvas = canvas
        side = canvas.shape[0]
        self.unit = 0.45 * side * pose.scale
        cos = np.cos(np.deg2rad(pose.angle)) * self.unit
        sin = np.sin(np.deg2rad(pose.angle)) * self.unit
        self._matrix = np.array([[cos, -sin], [sin, cos]])
        self._centre = np.array([0.5 + pose.x, 0.48 + pose.y]) * side

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        pixels = np.asarray(points, float) @ self._matrix.T + self._centre
        return np.round(pixels * 2**SUBPIXEL_BITS).astype(np.int32)

    def fill(self, points: np.ndarray, color: Color) -> None:
        cv2.fillPoly(self.canvas, [self._pixels(points)], color, cv2.LINE_AA, SUBPIXEL_BITS)

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        points, width = [self._pixels(points)], max(1, round(width * self.unit))
        cv2.polylines(self.canvas, points, False, color, width, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_face(who: Identity, expression: Expression, pose: Pose, scene: Scene) -> np.ndarray:
    """Draw one face; RGB, (size, size, 3) uint8."""
    canvas = scene.background.copy()
    pencil = _Pencil(canvas, pose)
    head = _head(who, expression)
    _draw_body(pencil, who)
    pencil.fill(head, who.skin)
    turn = np.array([0.09 * pose.yaw, 0])  # moves what is on the front sideways
    _draw_creases(pencil, who, expression, turn)
    if who.hair_style != 'bald':
        _draw_hair(pencil, who, head)
    look = np.array([0.25 * pose.gaze_x, 0.12 * pose.gaze_y])
    for side in (-1, 1):
        _draw_eye(pencil, who, expression, look, turn, side)
        _draw_brow(pencil, who, expression, turn, side)
    _draw_nose(pencil, who, expression, turn * 1.5)
    _draw_mouth(pencil, who, expression, turn)
    return scene.light(canvas)


def _head(who: Identity, ex: Expression) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x, y = who.width * np.cos(t), np.sin(t)
    low = np.clip(y, 0, None)
    x = x * (1 - who.jaw * low**2)
    return np.stack([x, y + low * 0.1 * np.clip(ex.open, 0, None)], 1)


def _draw_body(pencil: _Pencil, who: Identity) -> None:
    w = who.width
    shoulders = [(-2.2, 2.4), (-1.5, 1.45), (-0.4, 1.2), (0.4, 1.2), (1.5, 1.45), (2.2, 2.4)]
    if who.hair_style == 'long':
        t = np.linspace(np.pi, 2 * np.pi, 24)
        cap = np.stack([1.22 * w * np.cos(t), 1.2 * np.sin(t)], 1)
        ends = [(1.3 * w, 1.3), (-1.3 * w, 1.3)]
        pencil.fill(np.concatenate([cap, ends]), who.hair)
    neck = [(-0.36, 0.6), (0.36, 0.6), (0.42, 1.4), (-0.42, 1.4)]
    pencil.fill(neck, _shade(who.skin, 0.8))
    pencil.fill(shoulders, who.clothes)
    for side in (-1, 1):
        pencil.fill(_oval((side * w, -0.02), 0.1, 0.19), _shade(who.skin, 0.92))


def _draw_hair(pencil: _Pencil, who: Identity, head: np.ndarray) -> None:
    top = head[head[:, 1] < -0.3]
    top = top[np.argsort(top[:, 0])]  # left to right
    line = np.linspace(1, -1, 16)  # the hairline, back to the left
    height = -0.66 - 0.1 * line if who.hair_style == 'fringe' else -0.76 + 0.3 * line**4
    hairline = np.stack([line * top[-1, 0], height], 1)
    pencil.fill(np.concatenate([top * 1.1, hairline]), who.hair)


def _draw_eye(pencil: _Pencil, who: Identity, ex: Expression, look, turn, side: int) -> None:
    size = who.eye_size
    centre = np.array([side * who.eye_x, who.eye_y]) + turn
    opening = size * 0.62 * max(0.06, 1 + ex.eye)
    x = np.linspace(-1, 1, 15)
    bow = 1 - x**2
    upper = np.stack([x * size, -bow * opening], 1) + centre
    raised = 1 - 0.5 * np.clip(ex.cheek, 0, 1)  # a raised cheek lifts the lid
    lower = np.stack([x * size, bow * opening * 0.62 * raised], 1) + centre
    pencil.fill(np.concatenate([upper, lower[::-1]]), (246, 244, 240))
    look = centre + look * size
    for radius, color in ((0.56, who.iris), (0.28, (12, 10, 10))):
        disc = _oval(look, radius * size, radius * size)
        lids = (np.interp(disc[:, 0], lid[:, 0], lid[:, 1]) for lid in (upper, lower))
        disc[:, 1] = np.clip(disc[:, 1], *lids)
        pencil.fill(disc, color)
    pencil.line(upper, _shade(who.skin, 0.28), 0.035)
    pencil.line(lower, _shade(who.skin, 0.6), 0.015)


def _draw_brow(pencil: _Pencil, who: Identity, ex: Expression, turn: np.ndarray, side: int) -> None:
    t = np.linspace(0, 1, 9)  # from the inner end to the outer end
    x = who.eye_x + (t - 0.5) * 2.5 * who.eye_size - 0.03 * ex.inner * (t - 1)
    y = who.eye_y - 0.29 - 0.17 * ex.brow - 0.04 * np.sin(np.pi * t)
    y = y + ex.inner * (0.11 * t - 0.17 * (1 - t) ** 1.5)
    y = np.minimum(y, who.eye_y - 0.1)
    color = _mix(_shade(who.skin, 0.25), who.hair, 0.15)  # darker than the skin
    pencil.line(np.stack([side * x, y], 1) + turn, color, who.brow_weight)


def _draw_nose(pencil: _Pencil, who: Identity, ex: Expression, turn: np.ndarray) -> None:
    w = who.nose_width * (1 + 0.3 * np.clip(ex.nose, 0, 1))
    base = who.eye_y + who.nose_length + 0.03 - 0.08 * ex.nose
    x = np.array([-0.03, -0.05, -w, -w * 0.4, w * 0.4, w])
    y = [who.eye_y + 0.02, base - 0.1, base, base + 0.03, base + 0.03, base]
    pencil.line(np.stack([x, y], 1) + turn, _shade(who.skin, 0.68), 0.025)
    for side in (-1, 1):
        hole = _oval(np.array([side * w * 0.55, base + 0.01]) + turn, 0.03, 0.018)
        pencil.fill(hole, _shade(who.skin, 0.4))


def _draw_mouth(pencil: _Pencil, who: Identity, ex: Expression, turn: np.ndarray) -> None:
    x = np.linspace(-1, 1, 25)
    bow = (1 - x**2).clip(0)
    gap = max(ex.open, 0) * 0.24
    middle = who.mouth_y - ex.curve * 0.17 * (x**2 - 0.4)
    upper = middle - gap * 0.45 * bow**0.6
    # the sneer bends the lip up on both sides, more on the right
    bend = np.exp(-((x - 0.5) ** 2) / 0.09) + 0.6 * np.exp(-((x + 0.5) ** 2) / 0.09)
    upper = upper - 0.09 * ex.sneer * bend * bow
    lower = np.maximum(middle + gap * bow**0.6, upper)
    lip = 0.055 * np.clip(1 - 0.75 * ex.press, 0.1, 1)
    x = x * who.mouth_width * (1 + 0.6 * ex.width)

    def band(high: np.ndarray, low: np.ndarray) -> np.ndarray:
        return np.concatenate([np.stack([x, high], 1), np.stack([x, low], 1)[::-1]]) + turn

    pencil.fill(band(upper - lip * bow**0.5 - 0.006, lower + 1.2 * lip * bow**0.5 + 0.006), who.lip)
    pencil.fill(band(upper, lower), (48, 14, 18))
    teeth = np.clip(ex.teeth, 0, 1)
    pencil.fill(band(upper, upper + (lower - upper) * teeth), (244, 240, 232))
    pencil.line(np.stack([x, (upper if teeth else middle)], 1) + turn, (44, 12, 16), 0.035)


def _draw_creases(pencil: _Pencil, who: Identity, ex: Expression, turn: np.ndarray) -> None:
    """Folds of the skin: as dark as the expression is strong."""

    def fold(points, strength: float) -> None:
        if strength > 0.15:
            color = _shade(who.skin, 1 - 0.4 * min(strength, 1))
            pencil.line(np.array(points) + turn, color, 0.03)

    eye = who.eye_y
    for y in (-0.62, -0.72):  # the forehead, under raised brows
        fold([(-0.3, y), (0, y - 0.02), (0.3, y)], ex.brow)
    for side in (-1, 1):
        # between lowered brows
        fold([(side * 0.07, eye - 0.3), (side * 0.05, eye - 0.12)], -ex.inner)
        for k in range(3):  # beside a wrinkled nose
            y = eye + 0.02 + 0.07 * k
            fold([(side * 0.05, y), (side * 0.15, y - 0.05)], ex.nose)
        mouth = side * 0.42, who.mouth_y  # from the nose round the mouth
        fold([(side * 0.18, eye + 0.36), (side * 0.36, eye + 0.5), mouth], ex.cheek)


def _oval(centre, rx: float, ry: float) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([rx * np.cos(t), ry * np.sin(t)], 1) + centre


def _color(values) -> Color:
    return tuple(int(v) for v in values)


def _mix(a: Color, b: Color, share: float) -> Color:
    return _color(u + (v - u) * share for u, v in zip(a, b))


def _shade(color: Color, factor: float) -> Color:
    return _color(v * factor for v in color)


def _jitter(color: Color, rng: np.random.Generator, amount: int) -> Color:
    noise = rng.integers(-amount, amount + 1, 3)
    return _color(np.clip(np.add(color, noise), 0, 255))
