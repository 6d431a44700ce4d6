# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Windows over the frames of a face: the frames are their own numbers here."""

import numpy as np
import pytest
from helpers import read_config

from s4d_mm.datasets.transforms import SampleClipViews
from s4d_mm.predict.scorers import FramePipeline
from s4d_mm.predict.windows import Window, WindowStream

WINDOW = Window(4, 3)  # spans 12 frames


def cut(count, window=WINDOW, stride=None):
    """The pieces of a run of so many frames, in the order in which they come."""
    stream, pieces = WindowStream(window, stride), []
    for frame in range(count):
        pieces += stream.push(lambda frame=frame: frame)
        assert len(stream.grid) <= window.clip_len
        assert all(len(piece.images) <= window.clip_len for piece in stream.open)
    return pieces + stream.finish()


@pytest.mark.parametrize('window', [WINDOW, Window(16, 4), Window(4, 1)], ids=str)
def test_up_to_two_windows_are_the_views_of_the_test(window):
    sampler = SampleClipViews(window.clip_len, window.frame_interval, num_views=2)
    for count in range(1, 2 * window.span + 1):
        results = sampler.transform(dict(total_frames=count, start_index=0))
        views = results['frame_inds'].reshape(2, -1).tolist()
        expected = views if views[0] != views[1] else views[:1]
        assert [piece.images for piece in cut(count, window)] == expected, count


@pytest.mark.parametrize('count', [1, 3, 4, 11, 12, 13, 24, 25, 39])
def test_each_frame_counts_once(count):
    pieces = cut(count)
    frames = [frame for piece in pieces for frame in range(piece.start, piece.end)]
    assert frames == list(range(count))
    assert all(len(piece.images) == 4 for piece in pieces)
    for piece in pieces[:-1]:
        assert piece.images == list(range(piece.start, piece.end, 3))
    if count >= 12:  # the last one is full, too
        assert np.diff(pieces[-1].images).tolist() == [3, 3, 3]
        assert pieces[-1].images[-1] > count - 4


def test_overlapping_windows_stand_for_their_own_frames():
    spans = [(p.start, p.end) for p in cut(29, stride=4)]
    assert spans == [(0, 12), (4, 16), (8, 20), (12, 24), (16, 28), (18, 29)]
    assert cut(29, stride=4)[1].images == [4, 7, 10, 13]  # off the grid of the first
    assert cut(29, stride=4)[-1].images == [18, 21, 24, 27]
    # the last regular window ends with the run: no other follows
    assert [(p.start, p.end) for p in cut(28, stride=4)][-2:] == [(12, 24), (16, 28)]
    assert [(p.start, p.end) for p in cut(5, stride=4)] == [(0, 5)]


def test_short_clips_are_filled_up():
    assert cut(5)[0].images == [0, 3, 3, 3]
    assert cut(5, Window(4, 3, loop=True))[0].images == [0, 3, 0, 3]
    assert WindowStream(WINDOW).finish() == []


@pytest.mark.parametrize('count', [1, 2, 4, 7, 8, 11, 12, 30])
def test_a_run_shorter_than_a_window_is_spread(count):
    """Frames from all over the run, in order; a longer one is cut as without it."""
    pieces = cut(count, Window(4, 3, spread=True))
    if count >= 12:
        assert pieces == cut(count)
        return
    ((start, end, images),) = pieces
    assert (start, end, len(images)) == (0, count, 4)
    even = np.linspace(0, count - 1, 4)
    assert np.abs(np.array(images) - even).max() <= (0.5 if count < 8 else 1)
    assert images == sorted(images)


def test_s2d_spreads_its_frames():
    cfg = read_config('s2d_finetune_mafw')
    window = FramePipeline(cfg, 'test_pipeline', cfg.test_pipeline).window
    assert window == Window(16, 4, spread=True)
