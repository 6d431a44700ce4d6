# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces followed through a clip, as a stream of frames.

The detector sees every n-th frame. On the others the faces are moved by sparse optical flow
(pyramidal Lucas-Kanade, OpenCV), and what is left over at the second detection is spread evenly
over the frames between. Where that cannot be trusted, the detector sees these frames as well: a
face came or went, or the flow ends too far from where the face is, as it does at a cut.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, pairwise
from typing import NamedTuple

import cv2
import numpy as np

from .faces import Face, FaceSettings, check_settings, face_square

Detect = Callable[[np.ndarray], list[Face]]

PATIENCE = 12  # frames that a face may be out of sight before its track ends
FLOW_SIDE = 320  # longer side of the grey frames of the flow, pixels
LUCAS_KANADE = dict(winSize=(15, 15), maxLevel=2)
MAX_DRIFT = 0.1  # how far an edge may be off at the end of the flow, relative to the box
# points of the flow, as parts of a box: a grid in its middle; and how many must be found again
GRID = np.stack(np.meshgrid(*[np.linspace(0.15, 0.85, 7)] * 2), axis=-1).reshape(-1, 2)
LEAST_POINTS = 12


class PlacedFace(NamedTuple):
    """Where one face is in one frame.

    Attributes:
        face (int): Number of the face, from 1, in the order in which they appear; of several that
            appear in one frame the largest first.
        square (np.ndarray): See :mod:`s4d_mm.predict.faces`; in pixels of the frame.
        seen (bool): Whether it was found in this frame, by the detector or by optical flow; else
            the square bridges a gap.
    """

    face: int
    square: np.ndarray
    seen: bool


def follow_faces(
    frames: Iterable[np.ndarray],
    detect: Detect,
    settings: FaceSettings | None = None,
    which: str = 'auto',
) -> Iterator[tuple[int, np.ndarray, list[PlacedFace]]]:
    """Find the faces of a clip and follow them.

    A frame is given out when no later frame can change its squares: after
    ``PATIENCE + smooth // 2 + detect_every`` frames at most, which are held in memory. Nothing is
    averaged or interpolated from one track to another, so that nothing is mixed across a cut.

    Args:
        frames (Iterable[np.ndarray]): RGB, uint8, (height, width, 3). One image is a clip of
            one frame.
        detect (Callable): From a frame to a list of :class:`Face`, such as a
            :class:`FaceDetector` of ``settings.detect_side`` and ``settings.threshold``.
        settings (FaceSettings, optional): How. Defaults to None, all defaults.
        which (str): 'auto' for all faces; 'largest' for one at a time: the largest at the start
            until its track ends, then the largest there, with the next number.
            Defaults to 'auto'.

    Yields:
        tuple[int, np.ndarray, list[PlacedFace]]: Number of the frame, from 0, in order; the
        frame; and the faces in it, by number.
    """
    settings = settings or FaceSettings()
    check_settings(settings)
    placed = _place_faces(frames, detect, settings)
    return placed if which == 'auto' else _largest(placed)


def _largest(placed: Iterator[tuple]) -> Iterator[tuple]:
    chosen, number = None, 0
    for t, frame, faces in placed:
        face = next((f for f in faces if f.face == chosen), None)
        if face is None and faces:
            face = max(faces, key=lambda f: f.square[2])
            chosen, number = face.face, number + 1
        yield t, frame, [] if face is None else [face._replace(face=number)]


class Track:
    """One face from its first sighting to its last.

    Gaps between sightings are filled in a straight line. The square is then averaged over
    ``settings.smooth`` frames, near the ends of the track over fewer, but as many before as
    after, so that even motion is kept.
    """

    def __init__(self, frame: int, face: Face, settings: FaceSettings) -> None:
        self.settings, self.half = settings, settings.smooth // 2
        self.first, self.last, self.face = frame, frame, face
        self.sightings, self.ended, self.number = 1, False, None
        self.squares = {frame: face_square(face, settings)}
        self.seen = {frame}

    def see(self, frame: int, face: Face) -> None:
        before = self.squares[self.last]
        after = face_square(face, self.settings, before[3])
        gap = frame - self.last
        for i in range(1, gap):
            self.squares[self.last + i] = before + (after - before) * (i / gap)
        self.squares[frame] = after
        self.seen.add(frame)
        self.last, self.face = frame, face
        self.sightings += 1

    def is_known(self, frame: int) -> bool:
        """Whether later frames change nothing in this one."""
        counts = self.sightings >= self.settings.min_sightings
        return self.ended or frame < self.first or (counts and frame + self.half <= self.last)

    def take(self, frame: int) -> tuple[np.ndarray, bool]:
        """The square of a frame, and whether the face was seen there."""
        half = min(frame - self.first, self.last - frame, self.half)
        around = [self.squares[i] for i in range(frame - half, frame + half + 1)]
        return np.mean(around, axis=0), frame in self.seen


def _place_faces(frames: Iterable, detect: Detect, settings: FaceSettings) -> Iterator[tuple]:
    """See :func:`follow_faces`.

    A face that pairs with no track begins one. A track that was not seen in ``PATIENCE`` frames
    and not in the next one either ended at its last sighting. One with too few sightings in its
    first ``PATIENCE + 1`` frames was none.
    """
    tracks, waiting, out, numbers = [], deque(), 0, count(1)
    needed = settings.min_sightings
    for frame, faces in chain(move_faces(frames, detect, settings.detect_every), [(None, [])]):
        now = out + len(waiting)
        if frame is None:  # after the last one
            needed = min(needed, now)
        else:
            waiting.append(frame)
        alive = [t for t in tracks if not t.ended]
        pairs = dict(pair_faces([t.face for t in alive], faces, settings.max_jump))
        for i, track in enumerate(alive):
            if i in pairs:
                track.see(now, faces[pairs[i]])
            track.ended = frame is None or now - track.last > PATIENCE
        new = set(range(len(faces))) - set(pairs.values())
        tracks += [Track(now, faces[j], settings) for j in sorted(new)]
        tracks = [
            t for t in tracks if t.sightings >= needed or not (t.ended or now - t.first >= PATIENCE)
        ]
        while waiting and all(t.is_known(out) for t in tracks):
            tracks = [t for t in tracks if not t.ended or t.last >= out]
            here = [(t, *t.take(out)) for t in tracks if t.first <= out <= t.last]
            for track, _, _ in sorted(here, key=lambda x: -x[1][2]):  # the largest first
                track.number = track.number or next(numbers)
            here = [PlacedFace(track.number, square, seen) for track, square, seen in here]
            yield out, waiting.popleft(), sorted(here, key=lambda p: p.face)
            out += 1


def pair_faces(before: list[Face], after: list[Face], max_jump: float) -> list[tuple[int, int]]:
    """Which face of one frame is which of a later one, as pairs of indices.

    The pair whose boxes overlap most (intersection over union) is taken first; pairs that do not
    overlap follow by nearness. No edge moves by more than ``max_jump``, relative to the box.
    """
    pairs = []
    for i, a in enumerate(before):
        for j, b in enumerate(after):
            (ax, ay, aw, ah), (bx, by, bw, bh) = a.box, b.box
            moved = max(abs(p - q) for p, q in zip(a.box, b.box)) / max(aw - ax, ah - ay, 1e-6)
            if moved <= max_jump:
                common = max(0, min(aw, bw) - max(ax, bx)) * max(0, min(ah, bh) - max(ay, by))
                areas = (aw - ax) * (ah - ay) + (bw - bx) * (bh - by)
                pairs.append((-common / max(areas - common, 1e-6), moved, i, j))
    taken = []
    for _, _, i, j in sorted(pairs):
        if all(i != left and j != right for left, right in taken):
            taken.append((i, j))
    return taken


def move_faces(frames: Iterable[np.ndarray], detect: Detect, every: int) -> Iterator[tuple]:
    """Yield each frame and its faces: detected in every n-th one and the last, moved in others.

    At most ``every`` frames are held back.
    """
    detected, waiting = None, []
    for number, frame in enumerate(chain(frames, [None])):
        if frame is not None:
            waiting.append(frame)
        if waiting and (frame is None or number % every == 0):
            faces = detect(waiting[-1])
            moved = _optical_flow(*detected, waiting, faces) if len(waiting) > 1 else []
            if moved is None:
                moved = [detect(f) for f in waiting[:-1]]
            yield from zip(waiting, [*moved, faces])
            detected, waiting = (waiting[-1], faces), []


def _optical_flow(frame: np.ndarray, faces: list, later: list, found: list) -> list | None:
    """The faces of a frame in later frames, but for the last one, where they were found.

    None if these are not the same faces, or the flow does not lead to them.
    """
    if len(faces) != len(found):
        return None
    if not faces:
        return [[] for _ in later[1:]]
    if any(f.shape != frame.shape for f in later):
        return None
    scale = min(1.0, FLOW_SIDE / max(frame.shape[:2]))
    small = [cv2.resize(f, None, None, scale, scale, cv2.INTER_AREA) for f in (frame, *later)]
    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in small]
    paths = [[face] for face in faces]
    for before, after in pairwise(grey):
        for path in paths:
            moved = _moved(path[-1], before, after, scale)
            if moved is None:
                return None
            path.append(moved)
    pairs = pair_faces([path[-1] for path in paths], found, MAX_DRIFT)
    if len(pairs) < len(paths):
        return None
    corrected = [_corrected(paths[i][1:], found[j]) for i, j in sorted(pairs)]
    return [list(faces) for faces in zip(*corrected)]


def _moved(face: Face, before: np.ndarray, after: np.ndarray, scale: float) -> Face | None:
    """A face in the next grey frame; its box grows, but stays upright. None if unclear."""
    low, high = np.reshape(face.box, (2, 2))
    points = ((low + GRID * (high - low)) * scale).astype(np.float32)
    found, status, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None, **LUCAS_KANADE)
    kept = status[:, 0] == 1
    if kept.sum() < LEAST_POINTS:
        return None
    motion, _ = cv2.estimateAffinePartial2D(points[kept], found[kept])
    if motion is None:
        return None
    motion[:, 2] /= scale
    centre = motion @ (*((low + high) / 2), 1)
    half = (high - low) / 2 * float(np.hypot(motion[0, 0], motion[1, 0]))
    eyes = face.eyes and [(motion @ (*eye, 1)).tolist() for eye in face.eyes]
    return Face((*(centre - half).tolist(), *(centre + half).tolist()), face.score, eyes)


def _corrected(moved: list[Face], found: Face) -> list[Face]:
    """Spread what is left over at the detection evenly over the frames before it."""
    end, faces = moved[-1], []
    off = np.subtract(found.box, end.box)
    for i, face in enumerate(moved[:-1], 1):
        part = i / len(moved)
        eyes = None
        if end.eyes and found.eyes:
            eyes = (np.array(face.eyes) + part * np.subtract(found.eyes, end.eyes)).tolist()
        box = np.array(face.box) + part * off
        faces.append(Face(tuple(box.tolist()), min(face.score, found.score), eyes))
    return faces
