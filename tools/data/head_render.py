# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Ray-cast pictures of a head on the CPU, with NVIDIA's Warp.

``rest`` coordinates are those of a point in the mean head (metres; x to the head's left, -y to the
front, z up): patterns such as brows, iris and hairline are functions of them, so that they follow
the skin.
"""

import numpy as np
import warp as wp

SKIN, EYE, MOUTH, TEETH, LASH, HAIR, FRAME = range(7)  # parts of the mesh


@wp.struct
class Look:
    """What the head and the light look like; colours are linear RGB, lengths metres."""

    skin: wp.vec3
    lips: wp.vec3
    hair: wp.vec3
    iris: wp.vec3
    cloth: wp.vec3
    frame: wp.vec3
    sky: wp.vec3
    ground: wp.vec3
    light: wp.vec3  # colour of the key light
    light_from: wp.vec3  # direction to it
    fill: wp.vec3
    fill_from: wp.vec3
    eye_left: wp.vec3  # centres of the eyes, at rest
    eye_right: wp.vec3
    eye_size: float
    pupil: float  # radians
    brow: float  # thickness, 0 for none
    brow_tilt: float
    brow_height: float
    hairline: float  # z, at rest, where hair on the skin begins
    hair_side: float  # y behind which long hair is seen
    fringe: float  # z above which long hair is seen in front
    length: float  # z where long hair ends
    beard: float
    beard_reach: float
    lashes: float
    shadow: float  # colour on the lids
    mottle: float
    oil: float
    neck: float  # z below which there is cloth
    forehead: float  # depth of wrinkles
    glabella: float
    crow: float
    fold: float
    seed: int


@wp.struct
class Hit:
    """Where a ray ends; ``part`` is -1 if it meets nothing."""

    part: int
    point: wp.vec3
    normal: wp.vec3
    rest: wp.vec3
    paint: wp.vec3


@wp.struct
class Head:
    """The mesh: per vertex normal, rest place and paint (lips, lids, inside of the mouth)."""

    mesh: wp.uint64
    indices: wp.array(dtype=wp.int32)
    parts: wp.array(dtype=wp.int32)
    normals: wp.array(dtype=wp.vec3)
    rest: wp.array(dtype=wp.vec3)
    paint: wp.array(dtype=wp.vec3)


@wp.func
def grain(look: Look, p: wp.vec3, x: float, y: float, z: float) -> float:
    return wp.noise(wp.rand_init(look.seed), wp.vec3(p[0] * x, p[1] * y, p[2] * z))


@wp.func
def is_there(look: Look, part: int, r: wp.vec3) -> bool:
    """Whether a point of hair or lashes is not one of the gaps between them."""
    if part == HAIR:
        strand = 0.012 * grain(look, r, 130.0, 130.0, 12.0)
        seen = r[2] > look.fringe + strand or r[1] > look.hair_side + strand
        return seen and r[2] > look.length + 3.0 * strand
    if part == LASH:
        return grain(look, r, 700.0, 100.0, 100.0) < look.lashes
    return True


@wp.func
def cast(head: Head, look: Look, start: wp.vec3, ray: wp.vec3, reach: float) -> Hit:
    hit = Hit()
    hit.part = -1
    o = start
    for _ in range(5):  # through the gaps of hair and lashes
        q = wp.mesh_query_ray(head.mesh, o, ray, reach)
        if not q.result:
            break
        a = head.indices[q.face * 3]
        b = head.indices[q.face * 3 + 1]
        c = head.indices[q.face * 3 + 2]
        w = 1.0 - q.u - q.v
        rest = head.rest[a] * q.u + head.rest[b] * q.v + head.rest[c] * w
        o = o + ray * q.t
        if is_there(look, head.parts[q.face], rest):
            hit.part = head.parts[q.face]
            hit.point = o
            hit.rest = rest
            hit.paint = head.paint[a] * q.u + head.paint[b] * q.v + head.paint[c] * w
            n = wp.normalize(head.normals[a] * q.u + head.normals[b] * q.v + head.normals[c] * w)
            hit.normal = wp.where(wp.dot(n, ray) > 0.0, -n, n)
            break
        o = o + ray * 0.0003
    return hit


@wp.func
def bell(x: float, width: float) -> float:
    return wp.exp(-(x * x) / (width * width))


@wp.func
def wrinkles(look: Look, r: wp.vec3) -> float:
    """How dark the lines of the skin are, 0..1: forehead, between brows, crow's feet, cheeks."""
    x = wp.abs(r[0])
    z = r[2] - look.eye_left[2]
    e = look.eye_left[0]
    wave = 0.5 * grain(look, r, 60.0, 1.0, 30.0)
    lines = wp.pow(0.5 + 0.5 * wp.sin(z * 620.0 + 3.0 * wave), 3.0)
    dark = look.forehead * lines * bell(z - 0.058, 0.022) * bell(r[0], 0.05)
    dark += look.glabella * bell(x - 0.007 - 0.1 * wp.max(z, 0.0), 0.0028) * bell(z - 0.02, 0.016)
    fan = wp.atan2(z + 0.004, x - e - 0.008)
    rays = wp.pow(0.5 + 0.5 * wp.sin(fan * 11.0 + wave), 3.0)
    dark += look.crow * rays * bell(x - e - 0.026, 0.011) * bell(z + 0.002, 0.016)
    down = wp.clamp((-0.032 - z) / 0.042, 0.0, 1.0)  # 0 at the nose's wing, 1 beside the mouth
    at = 0.021 + 0.017 * down
    inside = wp.where(z < -0.03 and z > -0.078, 1.0, 0.0)
    return wp.min(dark + look.fold * inside * bell(x - at, 0.0035) * (1.0 - 0.6 * down), 1.0)


@wp.func
def brow_at(look: Look, r: wp.vec3) -> float:
    x = wp.abs(r[0]) - look.eye_left[0]
    dx = x / (look.eye_size * 1.75)
    top = look.eye_size * (1.55 + look.brow_height - 0.3 * dx * dx + look.brow_tilt * dx)
    thick = look.eye_size * look.brow * (0.42 - 0.14 * dx)
    dz = (r[2] - look.eye_left[2] - top) / wp.max(thick, 1.0e-4)
    hairs = 0.75 + 0.5 * grain(look, r, 500.0, 200.0, 250.0)
    front = wp.where(r[1] < look.eye_left[1] + 0.02, 1.0, 0.0)
    return (
        wp.clamp(wp.exp(-wp.pow(dx, 6.0) - dz * dz) * hairs, 0.0, 1.0)
        * front
        * wp.min(look.brow * 1.4, 1.0)
    )


@wp.func
def mix(a: wp.vec3, b: wp.vec3, share: float) -> wp.vec3:
    return a + (b - a) * share


@wp.func
def eye_colour(look: Look, r: wp.vec3) -> wp.vec3:
    middle = wp.where(r[0] > 0.0, look.eye_left, look.eye_right)
    n = wp.normalize(r - middle)
    angle = wp.acos(wp.clamp(-n[1], -1.0, 1.0))
    white = mix(wp.vec3(0.85, 0.83, 0.8), wp.vec3(0.7, 0.4, 0.35), wp.clamp(angle - 0.8, 0.0, 0.5))
    if angle > 0.5:
        return white
    spoke = 0.8 + 0.3 * grain(look, n, 14.0, 1.0, 14.0)
    iris = look.iris * spoke * wp.where(angle > 0.43, 0.35, 1.0)
    return wp.where(angle < look.pupil, wp.vec3(0.01, 0.01, 0.01), iris)


@wp.func
def skin_colour(look: Look, hit: Hit) -> wp.vec3:
    r = hit.rest
    if r[2] < look.neck + 0.01 * grain(look, r, 20.0, 20.0, 1.0) - 0.1 * r[1]:
        return look.cloth * (0.9 + 0.3 * grain(look, r, 200.0, 200.0, 200.0))
    patch = grain(look, r, 45.0, 45.0, 45.0) + 0.5 * grain(look, r, 230.0, 230.0, 230.0)
    x = wp.abs(r[0])
    z = r[2] - look.eye_left[2]
    colour = look.skin * (1.0 + look.mottle * patch)
    cheek = bell(x - 0.045, 0.025) * bell(z + 0.04, 0.022) + bell(x, 0.012) * bell(z + 0.04, 0.012)
    colour = mix(colour, wp.cw_mul(colour, wp.vec3(1.05, 0.72, 0.7)), cheek * 0.7)
    colour = mix(colour, colour * 0.25, hit.paint[1] * look.shadow)
    chin = wp.clamp((-0.05 - z + 0.35 * (x - 0.03)) / 0.02, 0.0, 1.0) * wp.clamp(
        (0.03 - r[1]) / 0.02, 0.0, 1.0
    )
    lip = bell(x, 0.03) * bell(z + 0.057, 0.008)
    stubble = wp.clamp(0.5 + 0.9 * grain(look, r, 420.0, 420.0, 300.0), 0.0, 1.0)
    low = wp.where(z > -look.beard_reach, 1.0, 0.3)
    beard = look.beard * wp.clamp(chin + lip, 0.0, 1.0) * (1.0 - hit.paint[0]) * stubble * low
    colour = mix(colour, look.hair * 0.7, wp.clamp(beard, 0.0, 1.0))
    colour = mix(colour, look.lips * (1.0 + 0.3 * patch), hit.paint[0] * 0.85)
    colour = mix(colour, wp.vec3(0.16, 0.035, 0.03), hit.paint[2])
    colour = colour * (1.0 - 0.55 * wrinkles(look, r))
    colour = mix(colour, look.hair * 0.6, brow_at(look, r))
    scalp = (
        (r[2] - look.hairline) / 0.006
        + (r[1] + 0.085) / 0.012
        - 12.0 * wp.max(0.07 - x, 0.0) / 0.07 * 0.0
    )
    scalp = wp.where(r[2] > look.hairline - 0.11, scalp, -9.0)
    edge = scalp + 1.5 * grain(look, r, 220.0, 220.0, 60.0)
    shade = look.hair * (0.8 + 0.5 * grain(look, r, 260.0, 260.0, 50.0))
    return mix(colour, shade, 1.0 / (1.0 + wp.exp(-edge)))


@wp.func
def open_to(head: Head, look: Look, hit: Hit, way: wp.vec3, reach: float) -> float:
    if wp.dot(way, hit.normal) <= 0.0:
        return 0.0
    other = cast(head, look, hit.point + hit.normal * 0.0006 + way * 0.0004, way, reach)
    return wp.where(other.part < 0, 1.0, 0.0)


@wp.kernel
def shade(
    head: Head,
    look: Look,
    eye: wp.vec3,
    rays: wp.array(dtype=wp.vec3),
    out: wp.array(dtype=wp.vec4),
):
    """Colour of each ray, linear RGB, and whether it meets the head."""
    i = wp.tid()
    ray = rays[i]
    hit = cast(head, look, eye, ray, 10.0)
    if hit.part < 0:
        out[i] = wp.vec4(0.0, 0.0, 0.0, 0.0)
        return
    state = wp.rand_init(look.seed, i)
    n = hit.normal
    colour = look.hair * 0.35
    soft = float(0.0)
    gloss = float(0.15)
    sharp = float(18.0)
    least = float(0.0)
    if hit.part == SKIN:
        colour = skin_colour(look, hit)
        soft = 0.25
        gloss = look.oil * (0.3 + 0.7 * hit.paint[0])
        bump = 0.1 * grain(look, hit.rest, 500.0, 500.0, 500.0)
        n = wp.normalize(n + wp.vec3(bump, 0.0, bump))
    elif hit.part == EYE:
        colour = eye_colour(look, hit.rest)
        gloss = 1.6
        sharp = 150.0
    elif hit.part == MOUTH:
        colour = wp.vec3(0.42, 0.12, 0.11)
        gloss = 0.3
    elif hit.part == TEETH:
        gap = wp.pow(wp.abs(wp.sin(hit.rest[0] * 400.0)), 0.3)
        colour = wp.vec3(0.78, 0.74, 0.66) * (0.6 + 0.4 * gap)
        least = 0.65  # light that the lips let through
        gloss = 0.4
        sharp = 60.0
    elif hit.part == HAIR:
        colour = look.hair * (0.75 + 0.7 * grain(look, hit.rest, 400.0, 400.0, 14.0))
        n = wp.normalize(n + 0.5 * wp.vec3(grain(look, hit.rest, 300.0, 300.0, 10.0), 0.0, 0.0))
        gloss = 0.25
    elif hit.part == FRAME:
        colour = look.frame
        gloss = 0.8
    light = wp.vec3(0.0, 0.0, 0.0)
    shine = wp.vec3(0.0, 0.0, 0.0)
    for k in range(2):
        way = wp.where(k == 0, look.light_from, look.fill_from)
        power = wp.where(k == 0, look.light, look.fill)
        way = wp.normalize(way + wp.sample_unit_sphere(state) * 0.12)
        seen = wp.max(open_to(head, look, hit, way, 1.0), least)
        flat = wp.max((wp.dot(n, way) + soft) / (1.0 + soft), 0.0)
        dim = wp.where(seen > 0.0, 1.0, 0.25 * soft)
        warm = wp.vec3(1.0, 0.75 + 0.25 * seen, 0.7 + 0.3 * seen)
        light += wp.cw_mul(power, warm) * flat * dim
        half = wp.normalize(way - ray)
        shine += power * seen * gloss * wp.pow(wp.max(wp.dot(n, half), 0.0), sharp)
    sky = wp.normalize(n + wp.sample_unit_sphere_surface(state) * 0.999)
    around = wp.max(open_to(head, look, hit, sky, 0.06) * 0.8 + 0.2, least)
    light += mix(look.ground, look.sky, 0.5 + 0.5 * n[2]) * around
    seen_colour = wp.cw_mul(colour, light) + shine * 0.35
    if hit.part != SKIN and hit.part != HAIR and hit.part != FRAME:  # light that bounces off skin
        seen_colour += wp.cw_mul(colour, look.skin) * 0.08
    out[i] = wp.vec4(seen_colour[0], seen_colour[1], seen_colour[2], 1.0)


class Renderer:
    """Pictures of one head whose vertices move.

    Args:
        faces (np.ndarray): Triangles (F, 3), of vertex numbers.
        parts (np.ndarray): Part of the head of each triangle (F, ).
        rest (np.ndarray): Vertices (V, 3) of the mean head.
        paint (np.ndarray): Shares (V, 3) of lips, lids and inside of the mouth.
    """

    def __init__(self, faces, parts, rest, paint) -> None:
        self.faces = faces
        self.head = Head()
        self.head.indices = self._array(faces.ravel(), wp.int32)
        self.head.parts = self._array(parts, wp.int32)
        self.head.rest = self._array(rest, wp.vec3)
        self.head.paint = self._array(paint, wp.vec3)

    @staticmethod
    def _array(values, dtype):
        return wp.array(np.ascontiguousarray(values), dtype=dtype, device='cpu')

    def __call__(self, vertices, look: Look, camera, size: int, fine: int = 1):
        """RGB, linear, (size, size, 3), and the share of each pixel that the head covers.

        Args:
            vertices (np.ndarray): The head's vertices (V, 3).
            look (Look): Its colours and the light.
            camera (Camera): Where it is seen from.
            size (int): Side of the picture in pixels.
            fine (int): Rays per side of a pixel. Defaults to 2.
        """
        corners = vertices[self.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = np.zeros_like(vertices)
        for k in range(3):
            for axis in range(3):
                normals[:, axis] += np.bincount(
                    self.faces[:, k], flat[:, axis], minlength=len(vertices)
                )
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        mesh = wp.Mesh(points=self._array(vertices, wp.vec3), indices=self.head.indices)
        self.head.mesh, self.head.normals = mesh.id, self._array(normals, wp.vec3)
        rays = self._array(camera.rays(size * fine), wp.vec3)
        out = wp.zeros(len(rays), dtype=wp.vec4, device='cpu')
        eye = wp.vec3(*camera.place.tolist())
        wp.launch(
            shade, len(rays), inputs=[self.head, look, eye, rays], outputs=[out], device='cpu'
        )
        image = out.numpy().reshape(size, fine, size, fine, 4).mean(axis=(1, 3))
        return image[..., :3], image[..., 3:]
