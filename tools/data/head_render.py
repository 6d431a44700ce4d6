# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Pictures of a head on the CPU: NVIDIA's Warp casts the rays, NumPy shades what they meet.

Points at rest are those of the mean head: metres, x to its left, -y to the front, z up. Brows,
iris, hairline and wrinkles are functions of them, so they follow the skin. Colours: linear RGB.
"""

import numpy as np
import warp as wp
from scipy.ndimage import map_coordinates

wp.config.log_level = 40  # errors
wp.set_device('cpu')  # the same pictures on every machine
SKIN, EYE, MOUTH, TEETH, HAIR = range(5)  # parts of the mesh
COLOURS = np.array([[0, 0, 0], [0, 0, 0], [0.42, 0.12, 0.11], [0.78, 0.74, 0.66], [0, 0, 0]])
GLOSS = np.array([0, 1.6, 0.15, 0.15, 0.15])  # that of skin varies
LEAST = np.array([0.06, 0, 0, 0.65, 0])  # light in the shadow: lips and skin let some through
EYE_SIZE = 0.0125
Vectors = wp.array(dtype=wp.vec3)


@wp.kernel
def meet(mesh: wp.uint64, at: Vectors, rays: Vectors, reach: float, out: wp.array(dtype=wp.vec4)):
    i = wp.tid()
    q = wp.mesh_query_ray(mesh, at[i], rays[i], reach)
    out[i] = wp.vec4(wp.where(q.result, float(q.face), -1.0), q.u, q.v, q.t)


def grain(look: dict, points: np.ndarray, scale) -> np.ndarray:
    """Smooth noise, -1 to 1; ``scale``: changes per metre, or per metre of x, y and z."""
    return map_coordinates(look['noise'], (points * scale).T, order=1, mode='grid-wrap')


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * share[:, None]


def brows(look: dict, r: np.ndarray) -> np.ndarray:
    """How much of the skin the brows cover, 0 to 1."""
    thickness, tilt, height = look['brow']
    along = (np.abs(r[:, 0]) - look['eye'][0]) / (EYE_SIZE * 1.75)
    up = (r[:, 2] - look['eye'][2]) / EYE_SIZE - 1.55 - height + 0.3 * along**2 - tilt * along
    up = up / np.maximum(thickness * (0.42 - 0.14 * along), 0.05)
    hairs = (0.75 + 0.5 * grain(look, r, [500, 200, 250])) * min(thickness * 1.4, 1)
    share = np.exp(-(along.clip(-2, 2) ** 6) - up.clip(-3, 3) ** 2) * hairs
    return share.clip(0, 1) * (r[:, 1] < look['eye'][1] + 0.02)


def wrinkles(look: dict, r: np.ndarray) -> np.ndarray:
    """How dark the lines of the skin are, 0 to 1."""
    dark = np.zeros(len(r))
    for depth, across, up, lean, width, height in look['lines']:
        z = r[:, 2] - look['eye'][2] - up
        x = np.abs(r[:, 0]) - across - lean * z
        dark += depth * np.exp(-((x / width) ** 2) - (z / height) ** 2)
    return dark.clip(0, 1) * (r[:, 1] < look['eye'][1] + 0.04)


def eye_colour(look: dict, r: np.ndarray) -> np.ndarray:
    n = unit(np.concatenate([np.abs(r[:, :1]), r[:, 1:]], axis=1) - look['eye'])
    angle = np.arccos((-n[:, 1]).clip(-1, 1))[:, None]
    iris = look['iris'] * np.where(angle > 0.43, 0.35, 1)
    return np.where(angle < 0.2, 0.01, np.where(angle < 0.5, iris, [0.8, 0.76, 0.73]))


def skin_colour(look: dict, r: np.ndarray, lips: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    z, patch = r[:, 2] - look['eye'][2], grain(look, r, 45) + 0.5 * grain(look, r, 230)
    colour = mix(look['skin'], look['lips'], lips * 0.85)
    colour *= (1 + look['mottle'] * patch)[:, None] * (1 - 0.55 * wrinkles(look, r))[:, None]
    colour = mix(colour, [0.16, 0.035, 0.03], mouth)
    colour = mix(colour, look['hair'] * 0.6, brows(look, r))
    edge = (z - look['hairline']) / 0.006 + (r[:, 1] + 0.085) / 0.012
    is_hair = (0.5 + 0.3 * edge + 0.4 * grain(look, r, [220, 220, 60])).clip(0, 1)
    hair = look['hair'] * (0.7 + 0.6 * grain(look, r, [260, 260, 50]))[:, None]
    colour = mix(colour, hair, is_hair * (z > look['hairline'] - 0.11))
    return mix(colour, look['cloth'], z < look['neck'] - 0.1 * r[:, 1])


def render_head(model, look: dict, head: np.ndarray, eye: np.ndarray, rays: np.ndarray):
    """Colour of each ray from the place ``eye``, and 1 where it meets the head: (N, 4)."""
    behind, above, end = look['long_hair']
    y, z = (model.rest[model.faces].mean(axis=1) - [0, 0, model.eye[2]]).T[1:]
    kept = (model.parts != HAIR) | ((y > behind) | (z > above)) & (z > end)
    faces = model.faces[kept]
    mesh = wp.Mesh(wp.array(head, wp.vec3), wp.array(faces.ravel(), wp.int32))

    def cast(starts: np.ndarray, rays: np.ndarray, reach: float) -> np.ndarray:
        """Of each ray the triangle it meets (-1: none), two weights of corners, the distance."""
        out = wp.zeros(len(rays), wp.vec4)
        inputs = [mesh.id, wp.array(starts, wp.vec3), wp.array(rays, wp.vec3), reach]
        wp.launch(meet, len(rays), inputs=inputs, outputs=[out])
        return out.numpy()

    def open_to(way: np.ndarray, reach: float) -> np.ndarray:
        """1 where the head is not in the way of light, else the share that gets through."""
        is_open = (cast(point + way * 0.0004, way, reach)[:, 0] < 0) & ((way * n).sum(axis=1) > 0)
        return np.maximum(is_open, LEAST[part])

    def between(values: np.ndarray) -> np.ndarray:
        return np.einsum('nk,nkd->nd', weights, values[corners])

    hits = cast(np.tile(eye, (len(rays), 1)), rays, 10)
    met = np.flatnonzero(hits[:, 0] >= 0)
    ray, (face, u, v, far) = rays[met], hits[met].T
    weights, face = np.stack([u, v, 1 - u - v], axis=1), face.astype(int)
    corners, part = faces[face], model.parts[kept][face]
    a, b, c = head[faces].swapaxes(0, 1)
    normals = np.zeros_like(head)
    np.add.at(normals, faces, np.cross(b - a, c - a)[:, None])
    n = unit(between(unit(normals)))
    n *= np.where((n * ray).sum(axis=1) > 0, -1, 1)[:, None]
    point = eye + ray * far[:, None] + n * 0.0006

    r, paint = between(model.rest), between(model.paint)
    colour, gloss, is_skin = COLOURS[part], GLOSS[part], part == SKIN
    colour[is_skin] = skin_colour(look, r[is_skin], *paint[is_skin].T)
    gloss[is_skin] = look['oil'] * (0.3 + 0.7 * paint[is_skin, 0])
    colour[part == EYE] = eye_colour(look, r[part == EYE])
    colour[part == HAIR] = look['hair']
    colour[part == HAIR] *= 0.8 + 0.6 * grain(look, r[part == HAIR], [400, 400, 14])[:, None]
    bent = unit(np.random.default_rng(0).normal(size=(len(rays), 3)))[met]
    ways = [np.roll(bent, 1009 * i, axis=0) for i in range(2)]  # of scattered light
    way, soft = unit(np.array([look['light_from']])), 0.25 * is_skin
    seen = look['light'] * np.mean([open_to(unit(way + w * 0.1), 1) for w in ways], axis=0)
    around = np.mean([open_to(unit(n + w * 0.999), 0.06) for w in ways], axis=0)
    light = seen * (((n * way).sum(axis=1) + soft) / (1 + soft)).clip(0)
    light += look['sky'] * (0.8 + 0.2 * n[:, 2]) * (0.2 + 0.8 * around)
    mirror = (n * unit(way - ray)).sum(axis=1).clip(0) ** np.where(part == EYE, 150, 18)
    shine = 0.35 * seen * gloss * mirror
    out = np.zeros((len(rays), 4), np.float32)
    out[met] = np.column_stack([colour * light[:, None] + shine[:, None], np.ones(len(met))])
    return out
