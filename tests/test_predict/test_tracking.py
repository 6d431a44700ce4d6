# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces followed through a clip as a stream, and on the frames that the detector does not see."""

import cv2
import numpy as np
import pytest

from s4d_mm.predict.faces import Face, FaceSettings
from s4d_mm.predict.tracking import PATIENCE, follow_faces, move_faces, pair_faces

EVERY_FRAME = FaceSettings(margin=0, detect_every=1)


def box(x, y=20, side=10):
    return Face((x, y, x + side, y + side))


def frame_of(number):
    return np.full((8, 8, 3), number, np.uint8)


def follow(clip, which='auto', **settings):
    """Follow faces in a clip that is given as a list of faces for each frame."""
    frames = (frame_of(t) for t in range(len(clip)))
    settings = EVERY_FRAME._replace(**settings)
    out = list(follow_faces(frames, lambda f: clip[f[0, 0, 0]], settings, which))
    assert [t for t, _, _ in out] == list(range(len(clip))) == [f[0, 0, 0] for _, f, _ in out]
    return [faces for _, _, faces in out]


def numbers(placed):
    return [[f.face for f in faces] for faces in placed]


def whole_track(squares, window):
    """What a track should be, from all of its sightings at once; NaN where it was not seen."""
    known = np.flatnonzero(~np.isnan(squares[:, 0]))
    t = np.arange(len(squares))
    filled = np.stack([np.interp(t, known, squares[known, c]) for c in range(4)], 1)
    half = [min(i, len(squares) - 1 - i, window // 2) for i in t]
    return np.array([filled[i - h : i + h + 1].mean(0) for i, h in enumerate(half)])


@pytest.mark.parametrize('window', (1, 9, 30))
def test_stream_equals_the_whole_track_at_once(window):
    rng = np.random.default_rng(window)
    clip = [[] for _ in range(120)]
    tracks = []
    for first, last, y in ((0, 119, 20), (15, 90, 80), (100, 119, 80)):
        x = 50 + np.cumsum(rng.normal(0, 1, last - first + 1))
        seen = rng.random(len(x)) < 0.6
        seen[[0, 1, 2, -1]] = True
        squares = np.stack([x + 5, np.full_like(x, y + 5), np.full_like(x, 10), 0 * x], 1)
        squares[~seen] = np.nan
        for t in np.flatnonzero(seen):
            clip[first + t].append(box(x[t], y))
        tracks.append((first, seen, whole_track(squares, window)))
    placed = follow(clip, smooth=window)
    for number, (first, seen, want) in enumerate(tracks, 1):
        mine = {t: f for t, faces in enumerate(placed) for f in faces if f.face == number}
        assert sorted(mine) == list(range(first, first + len(want)))
        np.testing.assert_allclose([mine[t].square for t in sorted(mine)], want, atol=1e-9)
        assert [mine[t].seen for t in sorted(mine)] == seen.tolist()


def test_the_pair_that_overlaps_most_is_taken_first():
    before = [box(0, 0), box(6, 0)]
    # the second one moved onto the place between, the first one left
    assert pair_faces(before, [box(4, 0)], 0.5) == [(1, 0)]
    assert sorted(pair_faces(before, [box(7, 0), box(1, 0)], 0.5)) == [(0, 1), (1, 0)]
    assert pair_faces([box(0, 0)], [box(14, 0), box(12, 0)], 1.5) == [(0, 1)]  # the nearer
    assert pair_faces([box(0, 0)], [box(3, 3), Face((0, 0, 14, 10))], 0.5) == [(0, 1)]


def test_faces_are_numbered_as_they_appear_the_largest_first():
    clip = [[box(60)] for _ in range(10)] + [[box(60), box(10), box(30, side=14)]] * 10
    assert numbers(follow(clip)) == [[1]] * 10 + [[1, 2, 3]] * 10
    assert follow(clip)[-1][1].square[2] == 14


def test_a_face_out_of_sight_is_waited_for():
    placed = follow([[box(10)]] * 5 + [[]] * PATIENCE + [[box(12)]] * 5)
    assert [f[0].seen for f in placed] == [True] * 5 + [False] * PATIENCE + [True] * 5
    placed = follow([[box(10)]] * 5 + [[]] * (PATIENCE + 1) + [[box(12)]] * 5)
    assert numbers(placed) == [[1]] * 5 + [[]] * (PATIENCE + 1) + [[2]] * 5


def test_a_flicker_is_no_face_but_a_short_clip_may_have_one():
    assert numbers(follow([[]] * 5 + [[box(10)]] * 2 + [[]] * 20)) == [[]] * 27
    assert numbers(follow([[box(10)]] * 2)) == [[1]] * 2
    rare = [[box(10)] if t % 10 == 0 else [] for t in range(40)]
    assert numbers(follow(rare, min_sightings=1)) == [[1]] * 31 + [[]] * 9
    assert numbers(follow([[box(90)]] + [[box(10)]] * 20))[-1] == [1]


def test_the_largest_face_is_followed_until_it_ends():
    small, large, later = box(0, 60, 8), box(50, 20, 12), box(20, 20, 30)
    clip = [[small, large]] * 10 + [[small, large, later]] * 10 + [[small]] * 20
    placed = follow(clip, 'largest')
    assert numbers(placed) == [[1]] * 20 + [[2]] * 20
    assert [f[0].square[2] for f in placed] == [12] * 20 + [8] * 20


def test_frames_are_given_out_after_a_bounded_delay():
    given, most = 0, 0

    def frames():
        nonlocal given
        for t in range(250):
            given += 1
            yield frame_of(t)

    def detect(frame):  # one that stays, one that is seen rarely, one that comes and goes
        t = int(frame[0, 0, 0])
        return [box(10), *[box(50)] * (t % 12 == 0), *[box(90)] * (t % 50 < 25)]

    settings = EVERY_FRAME._replace(detect_every=4)
    for t, _, _ in follow_faces(frames(), detect, settings):
        most = max(most, given - t)
    assert PATIENCE < most <= PATIENCE + settings.smooth // 2 + 4 + 1


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match='detect_every=13: must be 1 to 12'):
        follow_faces([], list, FaceSettings(detect_every=13))


# -- optical flow

HEIGHT, WIDTH, SIDE = 180, 480, 60  # the flow sees frames of 320 pixels


class Clip:
    """Frames with textured patches at known places, and a detector that notes its calls."""

    def __init__(self):
        self.frames, self.faces, self.calls = [], [], []

    def add(self, *patches):
        """Add a frame; a patch is seed, centre x, centre y, side, degrees."""
        frame, faces = np.full((HEIGHT, WIDTH, 3), 90, np.uint8), []
        for seed, x, y, side, degrees in patches:
            coarse = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), np.uint8)
            texture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
            turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), -degrees, side / SIDE)
            turn[:, 2] += (x - SIDE / 2, y - SIDE / 2)
            patch = cv2.warpAffine(texture, turn, (WIDTH, HEIGHT))
            inside = cv2.warpAffine(np.full((SIDE, SIDE), 255, np.uint8), turn, (WIDTH, HEIGHT))
            frame[inside > 127] = patch[inside > 127]
            eyes = [(turn @ (k * SIDE, 0.4 * SIDE, 1)).tolist() for k in (0.3, 0.7)]
            faces.append(Face((x - side / 2, y - side / 2, x + side / 2, y + side / 2), 1.0, eyes))
        self.frames.append(frame)
        self.faces.append(faces)

    def detect(self, frame):
        self.calls.append(next(i for i, f in enumerate(self.frames) if f is frame))
        return self.faces[self.calls[-1]]

    def run(self, every=4):
        out = list(move_faces(iter(self.frames), self.detect, every))
        assert [id(frame) for frame, _ in out] == [id(frame) for frame in self.frames]
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


def test_where_a_face_comes_goes_or_is_cut_every_frame_is_detected():
    clip = Clip()
    for t in range(17):
        patches = [(1, 80, 80, 50, 0)] if t < 10 else [(2, 92, 80, 50, 0)]  # a cut at 10
        if t >= 5:
            patches.append((3, 250, 90, 40, 0))  # comes at 5
        clip.add(*patches)
    assert clip.run() == clip.faces  # exact: what was not detected does not move
    assert sorted(clip.calls) == [0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16]
