# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Faces followed through a clip, as a stream."""

import numpy as np
import pytest

from s4d_mm.faces import PATIENCE, Face, FaceSettings, follow_faces

EVERY_FRAME = FaceSettings(margin=0, detect_every=1)


def box(x, y=20, side=10):
    return Face((x, y, x + side, y + side))


def frame_of(number):
    return np.full((8, 8, 3), divmod(number, 256) + (0,), np.uint8)


def number_of(frame):
    high, low, _ = frame[0, 0].tolist()
    return 256 * high + low


def follow(clip, which='auto', **settings):
    """Follow faces in a clip that is given as a list of faces for each frame."""
    frames = (frame_of(t) for t in range(len(clip)))
    settings = EVERY_FRAME._replace(**settings)
    out = list(follow_faces(frames, lambda f: clip[number_of(f)], settings, which))
    assert [t for t, _, _ in out] == list(range(len(clip))) == [number_of(f) for _, f, _ in out]
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


def test_faces_are_numbered_as_they_appear_the_largest_first():
    clip = [[box(60)] for _ in range(10)] + [[box(60), box(10), box(30, side=14)]] * 10
    assert numbers(follow(clip)) == [[1]] * 10 + [[1, 2, 3]] * 10
    assert follow(clip)[-1][1].square[2] == 14


def test_a_face_out_of_sight_is_waited_for():
    for gap, want in ((PATIENCE, [[1]] * gap_length(PATIENCE)), (PATIENCE + 1, None)):
        placed = follow([[box(10)]] * 5 + [[]] * gap + [[box(12)]] * 5)
        if want is None:
            want = [[1]] * 5 + [[]] * gap + [[2]] * 5
        else:
            assert [f[0].seen for f in placed] == [True] * 5 + [False] * gap + [True] * 5
        assert numbers(placed) == want


def gap_length(gap):
    return 5 + gap + 5


def test_a_flicker_is_no_face_but_a_short_clip_may_have_one():
    assert numbers(follow([[]] * 5 + [[box(10)]] * 2 + [[]] * 20)) == [[]] * 27
    assert numbers(follow([[]] * 20 + [[box(10)]] * 2)) == [[]] * 22
    assert numbers(follow([[box(10)]] * 2)) == [[1]] * 2
    assert numbers(follow([[box(10)], []])) == [[], []]
    assert numbers(follow([[box(10)]])) == [[1]]
    rare = [[box(10)] if t % 10 == 0 else [] for t in range(40)]
    assert numbers(follow(rare)) == [[]] * 40
    assert numbers(follow(rare, min_sightings=1)) == [[1]] * 31 + [[]] * 9
    # no number is lost for it
    assert numbers(follow([[box(90)]] + [[box(10)]] * 20))[-1] == [1]


def test_nothing_is_mixed_across_a_cut():
    clip = [[box(10)]] * 20 + [[box(70)]] * 20
    placed = follow(clip)
    assert numbers(placed) == [[1]] * 20 + [[2]] * 20
    assert {f[0].square[0] for f in placed[:20]} == {15.0}
    assert {f[0].square[0] for f in placed[20:]} == {75.0}


def test_the_largest_face_is_followed_until_it_ends():
    small, large, later = box(0, 60, 8), box(50, 20, 12), box(20, 20, 30)
    clip = [[small, large]] * 10 + [[small, large, later]] * 10 + [[small]] * 20
    placed = follow(clip, 'largest')
    assert numbers(placed) == [[1]] * 20 + [[2]] * 20
    assert [f[0].square[2] for f in placed] == [12] * 20 + [8] * 20
    # one that comes back is not left for another one
    clip = [[large, small]] * 5 + [[small]] * PATIENCE + [[large, small]] * 5
    assert {f[0].square[2] for f in follow(clip, 'largest')} == {12.0}


@pytest.mark.parametrize('which', ('auto', 'largest'))
@pytest.mark.parametrize('every', (1, 4))
def test_frames_are_given_out_after_a_bounded_delay(which, every):
    given, held, most = 0, 0, 0

    def frames():
        nonlocal given
        for t in range(300):
            given += 1
            yield frame_of(t)

    def detect(frame):  # one that stays, one that is seen rarely, one that comes and goes
        t = number_of(frame)
        rare = [box(50)] if t % 12 == 0 else []
        return [box(10), *rare, *([box(90)] if t % 50 < 25 else [])]

    settings = EVERY_FRAME._replace(detect_every=every)
    for t, _, _ in follow_faces(frames(), detect, settings, which):
        held = given - t
        most = max(most, held)
    assert PATIENCE < most <= PATIENCE + settings.smooth // 2 + every + 1


def test_bad_settings_are_named():
    for name, value in (('smooth', 0), ('detect_every', 13), ('min_sightings', 0), ('margin', -1)):
        with pytest.raises(ValueError, match=f'{name}={value}: must be'):
            follow_faces([], list, FaceSettings(**{name: value}))
    with pytest.raises(ValueError, match="which='all': must be 'auto' or 'largest'"):
        follow_faces([], list, which='all')
