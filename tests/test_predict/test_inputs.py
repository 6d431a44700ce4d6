# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From what a user gives to sources of frames."""

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import frame_number, make_frame, write_frames, write_image, write_text, write_video

from s4d_mm.media import MediaReadError
from s4d_mm.predict.inputs import list_sources


def listed(inputs, **kwargs):
    return [(s.kind, s.name) for s in list_sources(inputs, **kwargs)]


def numbers(source):
    return [frame_number(frame.image) for frame in source.read()]


def test_a_folder_is_searched(tmp_path):
    write_video(tmp_path / 'b' / '10.mp4', 2)
    write_video(tmp_path / 'b' / '9.MP4', 2)
    write_image(tmp_path / 'b' / 'me.jpg')
    write_image(tmp_path / '.hidden' / 'x.jpg')
    write_text(tmp_path / 'notes.txt', 'x')
    write_frames(tmp_path / 'c', 3, pattern='{}.png')
    b, c = str(tmp_path / 'b'), str(tmp_path / 'c')
    expected = [('video', f'{b}/9.MP4'), ('video', f'{b}/10.mp4'), ('image', f'{b}/me.jpg')]
    assert listed(tmp_path) == listed([Path(b), c]) == [*expected, ('video', c)]
    assert listed(tmp_path, folder='frames')[0] == ('video', b)
    assert listed(c, folder='images') == [('image', f'{c}/{i}.png') for i in range(3)]


@pytest.mark.parametrize(
    'pattern, clip',
    [
        ('{:05d}.jpg', True),
        ('frame_{}.jpg', True),
        ('IMG_{:04d}.jpg', False),  # a camera's photos
    ],
)
def test_frames_are_known_by_their_names(tmp_path, pattern, clip):
    folder = write_frames(tmp_path / 'x', 3, pattern=pattern)
    sources = list_sources(folder, fps=10)
    assert [s.kind for s in sources] == (['video'] if clip else ['image'] * 3)
    if clip:
        assert numbers(sources[0]) == [0, 1, 2]
        assert [f.time for f in sources[0].read()] == [0, 0.1, 0.2]
        assert '3 numbered images are read as one clip' in sources[0].message


def test_numbered_photos_of_other_sizes_are_no_frames(tmp_path):
    write_image(tmp_path / '1.jpg')
    assert listed(tmp_path) == [('image', str(tmp_path / '1.jpg'))]  # one is no clip
    write_image(tmp_path / '2.jpg', height=50)
    assert [kind for kind, _ in listed(tmp_path)] == ['image', 'image']
    (source,) = list_sources(tmp_path, folder='frames')
    with pytest.raises(MediaReadError, match=r"Frame 1 of .*\(50, 64, 3\).*folder='images'"):
        list(source.read())


@pytest.mark.parametrize(
    'bad, message',
    [
        (np.zeros((4, 8, 8, 3), np.float32), r'array_1 has dtype float32 and shape \(8, 8, 3\)'),
        (np.zeros((8, 8, 4), np.uint8), r'array_1 has dtype uint8 and shape \(8, 8, 4\)'),
        (iter([make_frame(), make_frame(height=50)]), r'Frame 1 .*\(50, 64, 3\), frame 0 \(48, '),
        ('http://example.com/x.mp4', 'is an address; download it'),
    ],
)
def test_other_inputs_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        list(list_sources(bad)[0].read())


def test_a_camera_is_read_until_it_ends_or_is_interrupted(tmp_path, monkeypatch):
    path, capture = write_video(tmp_path / 'x.mp4', 6), cv2.VideoCapture
    monkeypatch.setattr(cv2, 'VideoCapture', lambda number: capture(path))
    (source,) = list_sources(0)
    frames = list(source.read())
    assert [frame_number(f.image) for f in frames] == list(range(6))
    assert frames[0].time >= 0 and (np.diff([f.time for f in frames]) > 0).all()
    before = signal.getsignal(signal.SIGINT)
    for number, _ in enumerate(source.read(), 1):
        if number == 2:
            os.kill(os.getpid(), signal.SIGINT)
    assert number == 2 and signal.getsignal(signal.SIGINT) is before
