# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Ray-cast pictures of a head on the CPU, with NVIDIA's Warp.

``rest`` is where a point is in the mean head: metres, x to the head's left, -y to the front, z up.
Brows, iris, hairline and wrinkles are functions of it, so they follow the skin.
"""

import numpy as np
import warp as wp

wp.config.log_level = 40  # errors
wp.set_device('cpu')  # the same pictures on every machine
SKIN, EYE, MOUTH, TEETH, LASH, HAIR, FRAME = range(7)  # parts of the mesh
EYE_SIZE = wp.constant(0.0125)
Vectors = wp.array(dtype=wp.vec3)


@wp.struct
class Look:
    """What the head and the light look like; colours are linear RGB, lengths metres."""

    skin: wp.vec3
    lips: wp.vec3
    hair: wp.vec3
    iris: wp.vec3
    cloth: wp.vec3
    light: wp.vec3  # colour of the key light, and the direction to it
    light_from: wp.vec3
    fill: wp.vec3
    fill_from: wp.vec3
    sky: wp.vec3
    ground: wp.vec3
    eye: wp.vec3  # centre of the left eye, at rest
    brow: wp.vec3  # thickness, tilt and height
    lines: wp.vec4  # depth of wrinkles: forehead, between the brows, crow's feet, beside the mouth
    long_hair: wp.vec3  # y behind which it is seen, z above which in front, z where it ends
    hairline: float  # z where short hair begins
    beard: float
    lashes: float
    mottle: float
    oil: float
    neck: float  # z below which there is cloth
    seed: int


@wp.struct
class Head:
    """The mesh; of each vertex its normal, place at rest, and shares of lips and inner mouth."""

    mesh: wp.uint64
    indices: wp.array(dtype=wp.int32)
    parts: wp.array(dtype=wp.int32)
    normals: Vectors
    rest: Vectors
    paint: wp.array(dtype=wp.vec2)


@wp.struct
class Hit:
    """Where a ray ends; ``part`` is -1 if it meets nothing."""

    part: int
    point: wp.vec3
    normal: wp.vec3
    rest: wp.vec3
    paint: wp.vec2


@wp.func
def grain(look: Look, p: wp.vec3, x: float, y: float, z: float) -> float:
    return wp.noise(wp.rand_init(look.seed), wp.vec3(p[0] * x, p[1] * y, p[2] * z))


@wp.func
def bell(x: float, width: float) -> float:
    return wp.exp(-(x * x) / (width * width))


@wp.func
def mix(a: wp.vec3, b: wp.vec3, share: float) -> wp.vec3:
    return a + (b - a) * share


@wp.func
def is_there(look: Look, part: int, r: wp.vec3) -> bool:
    """Whether a point of hair or lashes is not in a gap between them."""
    if part == LASH:
        return grain(look, r, 700.0, 100.0, 100.0) < look.lashes
    if part != HAIR:
        return True
    strand = 0.012 * grain(look, r, 130.0, 130.0, 12.0)
    seen = r[1] > look.long_hair[0] + strand or r[2] > look.long_hair[1] + strand
    return seen and r[2] > look.long_hair[2] + 3.0 * strand


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
def wrinkles(look: Look, r: wp.vec3) -> float:
    """How dark the lines of the skin are, 0..1."""
    x = wp.abs(r[0])
    z = r[2] - look.eye[2]
    if r[1] > look.eye[1] + 0.04 or z < -0.08 or z > 0.1:
        return 0.0
    wave = grain(look, r, 60.0, 1.0, 30.0)
    across = wp.pow(0.5 + 0.5 * wp.sin(z * 620.0 + 1.5 * wave), 3.0)
    dark = look.lines[0] * across * bell(z - 0.058, 0.022) * bell(x, 0.05)
    dark += look.lines[1] * bell(x - 0.007 - 0.1 * wp.max(z, 0.0), 0.0028) * bell(z - 0.02, 0.016)
    out = x - look.eye[0]
    fan = wp.pow(0.5 + 0.5 * wp.sin(wp.atan2(z + 0.004, out - 0.008) * 11.0 + 0.5 * wave), 3.0)
    dark += look.lines[2] * fan * bell(out - 0.026, 0.011) * bell(z + 0.002, 0.016)
    down = (-0.032 - z) / 0.042  # 0 at the wing of the nose, 1 beside the mouth
    if down > -0.05 and down < 1.1:
        dark += look.lines[3] * bell(x - 0.021 - 0.017 * down, 0.0035) * (1.0 - 0.6 * down)
    return wp.min(dark, 1.0)


@wp.func
def brows(look: Look, r: wp.vec3) -> float:
    along = (wp.abs(r[0]) - look.eye[0]) / (EYE_SIZE * 1.75)
    top = 1.55 + look.brow[2] - 0.3 * along * along + look.brow[1] * along
    thick = look.brow[0] * (0.42 - 0.14 * along)
    up = ((r[2] - look.eye[2]) / EYE_SIZE - top) / wp.max(thick, 0.05)
    if r[1] > look.eye[1] + 0.02 or wp.abs(along) > 1.5 or wp.abs(up) > 3.0:
        return 0.0
    hairs = 0.75 + 0.5 * grain(look, r, 500.0, 200.0, 250.0)
    share = wp.exp(-wp.pow(along, 6.0) - up * up) * hairs * wp.min(look.brow[0] * 1.4, 1.0)
    return wp.clamp(share, 0.0, 1.0)


@wp.func
def eye_colour(look: Look, r: wp.vec3) -> wp.vec3:
    n = wp.normalize(wp.vec3(wp.abs(r[0]), r[1], r[2]) - look.eye)
    angle = wp.acos(wp.clamp(-n[1], -1.0, 1.0))
    if angle < 0.2:
        return wp.vec3(0.01, 0.01, 0.01)
    if angle < 0.5:
        spokes = 0.8 + 0.3 * grain(look, n, 14.0, 1.0, 14.0)
        return look.iris * spokes * wp.where(angle > 0.43, 0.35, 1.0)
    red = wp.clamp(angle - 0.8, 0.0, 0.5)
    return mix(wp.vec3(0.85, 0.83, 0.8), wp.vec3(0.7, 0.4, 0.35), red)


@wp.func
def skin_colour(look: Look, hit: Hit) -> wp.vec3:
    r = hit.rest
    if r[2] < look.neck - 0.1 * r[1]:
        return look.cloth * (0.9 + 0.3 * grain(look, r, 200.0, 200.0, 200.0))
    x = wp.abs(r[0])
    z = r[2] - look.eye[2]
    patch = grain(look, r, 45.0, 45.0, 45.0) + 0.5 * grain(look, r, 230.0, 230.0, 230.0)
    colour = look.skin * (1.0 + look.mottle * patch)
    red = bell(x - 0.045, 0.025) * bell(z + 0.04, 0.022) + bell(x, 0.012) * bell(z + 0.04, 0.012)
    colour = mix(colour, wp.cw_mul(colour, wp.vec3(1.03, 0.8, 0.79)), red)
    chin = wp.clamp((0.35 * (x - 0.03) - z - 0.05) / 0.02, 0.0, 1.0)
    chin = chin * wp.clamp((0.03 - r[1]) / 0.02, 0.0, 1.0) + bell(x, 0.03) * bell(z + 0.057, 0.008)
    beard = look.beard * wp.min(chin, 1.0) * (1.0 - hit.paint[0])
    if beard > 0.01:
        beard = beard * wp.clamp(0.5 + 0.9 * grain(look, r, 420.0, 420.0, 300.0), 0.0, 1.0)
        colour = mix(colour, look.hair * 0.7, wp.min(beard, 1.0))
    colour = mix(colour, look.lips * (1.0 + 0.3 * patch), hit.paint[0] * 0.85)
    colour = mix(colour, wp.vec3(0.16, 0.035, 0.03), hit.paint[1])
    colour = mix(colour * (1.0 - 0.55 * wrinkles(look, r)), look.hair * 0.6, brows(look, r))
    edge = (r[2] - look.hairline) / 0.006 + (r[1] + 0.085) / 0.012
    if r[2] < look.hairline - 0.11 or edge < -5.0:
        return colour
    edge += 1.5 * grain(look, r, 220.0, 220.0, 60.0)
    hair = look.hair * (0.8 + 0.5 * grain(look, r, 260.0, 260.0, 50.0))
    return mix(colour, hair, 1.0 / (1.0 + wp.exp(-edge)))


@wp.func
def open_to(head: Head, look: Look, hit: Hit, way: wp.vec3, reach: float) -> float:
    """1 if nothing is in the way from a point, else 0."""
    if wp.dot(way, hit.normal) <= 0.0:
        return 0.0
    start = hit.point + hit.normal * 0.0006 + way * 0.0004
    return wp.where(cast(head, look, start, way, reach).part < 0, 1.0, 0.0)


@wp.kernel
def shade(head: Head, look: Look, eye: wp.vec3, rays: Vectors, out: wp.array(dtype=wp.vec4)):
    """Colour of each ray, linear RGB, and 1 where it meets the head."""
    i = wp.tid()
    ray = rays[i]
    hit = cast(head, look, eye, ray, 10.0)
    if hit.part < 0:
        out[i] = wp.vec4(0.0, 0.0, 0.0, 0.0)
        return
    state = wp.rand_init(look.seed, i)
    n = hit.normal
    colour = wp.vec3(0.03, 0.03, 0.03)  # lashes and glasses
    soft = 0.0  # how far light goes round an edge
    gloss = 0.15
    sharp = 18.0
    least = 0.0  # light that gets everywhere
    if hit.part == SKIN:
        colour = skin_colour(look, hit)
        soft = 0.25
        gloss = look.oil * (0.3 + 0.7 * hit.paint[0])
    elif hit.part == EYE:
        colour = eye_colour(look, hit.rest)
        gloss = 1.6
        sharp = 150.0
    elif hit.part == MOUTH:
        colour = wp.vec3(0.42, 0.12, 0.11)
    elif hit.part == TEETH:
        colour = wp.vec3(0.78, 0.74, 0.66)
        colour = colour * (0.6 + 0.4 * wp.pow(wp.abs(wp.sin(hit.rest[0] * 400.0)), 0.3))
        least = 0.65  # the lips let light through
    elif hit.part == HAIR:
        colour = look.hair * (0.75 + 0.7 * grain(look, hit.rest, 400.0, 400.0, 14.0))
        n = wp.normalize(n + wp.vec3(0.5 * grain(look, hit.rest, 300.0, 300.0, 10.0), 0.0, 0.0))
    light = wp.vec3(0.0, 0.0, 0.0)
    shine = wp.vec3(0.0, 0.0, 0.0)
    for k in range(2):
        power = wp.where(k == 0, look.light, look.fill)
        way = wp.where(k == 0, look.light_from, look.fill_from)
        way = wp.normalize(way + wp.sample_unit_sphere(state) * 0.12)
        seen = 1.0
        if k == 0:  # a shadow of the fill light would hardly be seen
            seen = wp.max(open_to(head, look, hit, way, 1.0), least)
        flat = wp.max((wp.dot(n, way) + soft) / (1.0 + soft), 0.0)
        warm = wp.vec3(1.0, 0.75 + 0.25 * seen, 0.7 + 0.3 * seen)
        light += wp.cw_mul(power, warm) * flat * wp.where(seen > 0.0, 1.0, 0.25 * soft)
        bright = wp.pow(wp.max(wp.dot(n, wp.normalize(way - ray)), 0.0), sharp)
        shine += power * seen * gloss * bright
    up = wp.normalize(n + wp.sample_unit_sphere_surface(state) * 0.999)
    around = wp.max(open_to(head, look, hit, up, 0.06) * 0.8 + 0.2, least)
    light += mix(look.ground, look.sky, 0.5 + 0.5 * n[2]) * around
    colour = wp.cw_mul(colour, light) + shine * 0.35
    out[i] = wp.vec4(colour[0], colour[1], colour[2], 1.0)


class Renderer:
    """Pictures of a head whose vertices move; arguments as the fields of ``HeadModel``."""

    def __init__(self, faces, parts, rest, paint) -> None:
        self.faces, self.head = faces, Head()
        self.head.indices = wp.array(faces.ravel(), wp.int32)
        self.head.parts = wp.array(parts, wp.int32)
        self.head.rest = wp.array(rest, wp.vec3)
        self.head.paint = wp.array(paint, wp.vec2)
        self.mesh = wp.Mesh(points=wp.array(rest, wp.vec3), indices=self.head.indices)
        self.head.mesh = self.mesh.id

    def __call__(self, vertices: np.ndarray, look: dict, eye: np.ndarray, rays: np.ndarray):
        """Colour of each ray from a place: linear RGB and 1 where it meets the head, (N, 4).

        ``look`` has the fields of :class:`Look`.
        """
        values = Look()
        for name, value in look.items():
            vector = {3: wp.vec3, 4: wp.vec4}.get(np.size(value))
            setattr(values, name, vector(*map(float, value)) if vector else value)
        corners = vertices[self.faces]
        flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        ids = self.faces.ravel()
        normals = np.stack([np.bincount(ids, np.repeat(x, 3), len(vertices)) for x in flat.T], 1)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        self.head.normals = wp.array(normals, wp.vec3)
        self.mesh.points.assign(vertices)
        self.mesh.refit()
        out = wp.zeros(len(rays), wp.vec4)
        inputs = [self.head, values, wp.vec3(*eye.tolist()), wp.array(rays, wp.vec3)]
        wp.launch(shade, len(rays), inputs=inputs, outputs=[out])
        return out.numpy()
