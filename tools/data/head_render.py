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
GLOSS = np.array([0, 1.6, 0.15, 0.15, 0.15])  # of each part; that of skin varies
LEAST = np.array([0, 0, 0, 0.65, 0])  # light that gets everywhere: the lips let it through
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


def bell(x: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum('nk,nk->n', a, b)


def mix(a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    return a + (b - a) * share[:, None]


def brows(look: dict, r: np.ndarray) -> np.ndarray:
    """How much of the skin the brows cover, 0 to 1."""
    thickness, tilt, height = look['brow']
    along = (np.abs(r[:, 0]) - look['eye'][0]) / (EYE_SIZE * 1.75)
    middle = 1.55 + height - 0.3 * along**2 + tilt * along
    up = (r[:, 2] - look['eye'][2]) / EYE_SIZE - middle
    up = up / np.maximum(thickness * (0.42 - 0.14 * along), 0.05)
    hairs = (0.75 + 0.5 * grain(look, r, [500, 200, 250])) * min(thickness * 1.4, 1)
    share = np.exp(-(along.clip(-2, 2) ** 6) - up.clip(-3, 3) ** 2) * hairs
    return share.clip(0, 1) * (r[:, 1] < look['eye'][1] + 0.02)


def wrinkles(look: dict, r: np.ndarray) -> np.ndarray:
    """How dark the lines of the forehead, between the brows, and beside the mouth are, 0 to 1."""
    x, z = np.abs(r[:, 0]), r[:, 2] - look['eye'][2]
    forehead, frown, mouth = look['lines']
    waves = (0.5 + 0.5 * np.sin(z * 620 + 1.5 * grain(look, r, [60, 1, 30]))) ** 3
    dark = forehead * waves * bell(z - 0.058, 0.022) * bell(x, 0.05)
    dark += frown * bell(x - 0.007 - 0.1 * z.clip(0), 0.0028) * bell(z - 0.02, 0.016)
    down = ((-0.032 - z) / 0.042).clip(-0.1, 1.2)  # 0 at the wing of the nose, 1 beside the mouth
    dark += (
        mouth
        * bell(x - 0.021 - 0.017 * down, 0.0035)
        * (1 - 0.6 * down)
        * (np.abs(down - 0.5) < 0.55)
    )
    return dark.clip(0, 1) * (r[:, 1] < look['eye'][1] + 0.04)


def eye_colour(look: dict, r: np.ndarray) -> np.ndarray:
    n = unit(np.concatenate([np.abs(r[:, :1]), r[:, 1:]], axis=1) - look['eye'])
    angle = np.arccos((-n[:, 1]).clip(-1, 1))[:, None]
    spokes = (0.8 + 0.3 * grain(look, n, [14, 1, 14]))[:, None]
    iris = look['iris'] * spokes * np.where(angle > 0.43, 0.35, 1)
    white = mix(np.array([0.85, 0.83, 0.8]), [0.7, 0.4, 0.35], (angle[:, 0] - 0.8).clip(0, 0.5))
    return np.where(angle < 0.2, 0.01, np.where(angle < 0.5, iris, white))


def skin_colour(look: dict, r: np.ndarray, lips: np.ndarray, mouth: np.ndarray) -> np.ndarray:
    x, z = np.abs(r[:, 0]), r[:, 2] - look['eye'][2]
    patch = grain(look, r, 45) + 0.5 * grain(look, r, 230)
    colour = look['skin'] * (1 + look['mottle'] * patch)[:, None]
    red = bell(x - 0.045, 0.025) * bell(z + 0.04, 0.022) + bell(x, 0.012) * bell(z + 0.04, 0.012)
    colour *= mix(np.ones(3), [1.03, 0.8, 0.79], red)
    chin = ((0.35 * (x - 0.03) - z - 0.05) / 0.02).clip(0, 1) * ((0.03 - r[:, 1]) / 0.02).clip(0, 1)
    beard = (chin + bell(x, 0.03) * bell(z + 0.057, 0.008)).clip(0, 1) * look['beard'] * (1 - lips)
    beard *= (0.5 + 0.9 * grain(look, r, [420, 420, 300])).clip(0, 1)
    colour = mix(colour, look['hair'] * 0.7, beard.clip(0, 1))
    colour = mix(colour, look['lips'] * (1 + 0.3 * patch)[:, None], lips * 0.85)
    colour = mix(colour, [0.16, 0.035, 0.03], mouth)
    colour = mix(
        colour * (1 - 0.55 * wrinkles(look, r))[:, None], look['hair'] * 0.6, brows(look, r)
    )
    edge = (z - look['hairline']) / 0.006 + (r[:, 1] + 0.085) / 0.012
    edge = (edge + 1.5 * grain(look, r, [220, 220, 60])).clip(-9, 9)
    hair = look['hair'] * (0.8 + 0.5 * grain(look, r, [260, 260, 50]))[:, None]
    is_hair = (z > look['hairline'] - 0.11) / (1 + np.exp(-edge))
    cloth = look['cloth'] * (0.9 + 0.3 * grain(look, r, 200))[:, None]
    return mix(mix(colour, hair, is_hair), cloth, z < look['neck'] - 0.1 * r[:, 1])


def colour_of(look: dict, part: np.ndarray, r: np.ndarray, paint: np.ndarray) -> np.ndarray:
    fixed = np.zeros((5, 3))
    fixed[2:] = [0.42, 0.12, 0.11], [0.78, 0.74, 0.66], look['hair']
    colour = fixed[part]
    skin, eye, hair = part == SKIN, part == EYE, part == HAIR
    colour[skin] = skin_colour(look, r[skin], *paint[skin].T)
    colour[eye] = eye_colour(look, r[eye])
    colour[hair] *= (0.75 + 0.7 * grain(look, r[hair], [400, 400, 14]))[:, None]
    return colour


class Renderer:
    """Pictures of a person's head as it moves; ``look``: of ``draw_person`` and ``draw_light``."""

    def __init__(self, model, look: dict) -> None:
        rng = np.random.default_rng(int(look['seed']))
        self.look = look | dict(noise=rng.uniform(-0.9, 0.9, (32, 32, 32)))
        behind, above, end = look['long_hair']
        y, z = (model.rest[model.faces].mean(axis=1) - [0, 0, model.eye[2]]).T[1:]
        kept = (model.parts != HAIR) | ((y > behind) | (z > above)) & (z > end)
        self.faces, self.parts = model.faces[kept], model.parts[kept]
        self.rest, self.paint = model.rest, model.paint
        points, indices = wp.array(self.rest, wp.vec3), wp.array(self.faces.ravel(), wp.int32)
        self.mesh = wp.Mesh(points=points, indices=indices)

    def cast(self, starts: np.ndarray, rays: np.ndarray, reach: float) -> tuple:
        """Of each ray the triangle it meets (-1: none), its corners' weights, the distance."""
        out = wp.zeros(len(rays), wp.vec4)
        inputs = [self.mesh.id, wp.array(starts, wp.vec3), wp.array(rays, wp.vec3), reach]
        wp.launch(meet, len(rays), inputs=inputs, outputs=[out])
        face, u, v, far = out.numpy().T
        return face.astype(int), np.stack([u, v, 1 - u - v], axis=1), far[:, None]

    def between(self, values: np.ndarray, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.einsum('nk,nkd->nd', weights, values[self.faces[face]])

    def __call__(self, vertices: np.ndarray, eye: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Colour of each ray from a place, and 1 where it meets the head: (N, 4)."""
        self.mesh.points.assign(vertices)
        self.mesh.refit()
        face, weights, far = self.cast(np.tile(eye, (len(rays), 1)), rays, 10)
        met = np.flatnonzero(face >= 0)
        face, weights, ray = face[met], weights[met], rays[met]
        bent = unit(np.random.default_rng(0).normal(size=(len(rays), 3)))[met]  # of light
        r, part = self.between(self.rest, face, weights), self.parts[face]
        paint = self.between(self.paint, face, weights)
        corners, ids = vertices[self.faces], self.faces.ravel()
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.stack([np.bincount(ids, np.repeat(x, 3), len(vertices)) for x in flat.T], 1)
        n = unit(self.between(unit(normals), face, weights))
        n *= np.where(dot(n, ray) > 0, -1, 1)[:, None]
        point = eye + ray * far[met] + n * 0.0006

        def open_to(way: np.ndarray, reach: float) -> np.ndarray:
            is_open, facing = np.zeros(len(met)), np.flatnonzero(dot(way, n) > 0)
            starts, way = point[facing] + way[facing] * 0.0004, way[facing]
            is_open[facing] = self.cast(starts, way, reach)[0] < 0
            return np.maximum(is_open, LEAST[part])

        colour, gloss = colour_of(self.look, part, r, paint), GLOSS[part]
        gloss[part == SKIN] = self.look['oil'] * (0.3 + 0.7 * paint[part == SKIN, 0])
        soft, sharp = 0.25 * (part == SKIN), np.where(part == EYE, 150, 18)
        around = 0.2 + 0.8 * open_to(unit(n + bent * 0.999), 0.06)
        light = mix(self.look['ground'], self.look['sky'], 0.5 + 0.5 * n[:, 2]) * around[:, None]
        way = unit(self.look['light_from'] + bent * 0.1)
        seen = open_to(way, 1)
        flat = ((dot(n, way) + soft) / (1 + soft)).clip(0) * np.where(seen > 0, 1, 0.25 * soft)
        light += (
            self.look['light'] * mix(np.array([1, 0.75, 0.7]), np.ones(3), seen) * flat[:, None]
        )
        bright = 0.35 * seen * gloss * dot(n, unit(way - ray)).clip(0) ** sharp
        shine = self.look['light'] * bright[:, None]
        out = np.zeros((len(rays), 4), np.float32)
        out[met] = np.concatenate([colour * light + shine, np.ones((len(met), 1))], axis=1)
        return out
