# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Reading and writing of media files. (Broken images: test_datasets/test_transforms.py.)"""

import os.path as osp
import subprocess
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers import frame_number, make_frame, truncate, write_frames, write_text, write_video

from s4d_mm import media


def test_frames_come_in_natural_order(tmp_path):
    folder = write_frames(str(tmp_path / 'clip'), 12, pattern='{}.png')
    write_text(tmp_path / 'clip' / 'notes.txt', 'not a frame')
    write_text(tmp_path / 'clip' / '._3.png', 'not a frame')
    paths = media.list_frames(folder)
    assert [osp.basename(p) for p in paths] == [f'{i}.png' for i in range(12)]
    assert [frame_number(media.read_image(p)) for p in paths] == list(range(12))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(media.MediaReadError, match='empty has no image files'):
        media.list_frames(str(tmp_path / 'empty'))
    assert sorted(['a10', 'a9', 'a', '10', '9'], key=media.natural_key) == [
        '9',
        '10',
        'a',
        'a9',
        'a10',
    ]


def test_video_is_read_frame_by_frame(tmp_path):
    path = write_video(tmp_path / 'x.mp4', 30)
    frames = list(media.read_video(path))
    assert [frame_number(f) for f in frames] == list(range(30))
    assert frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8


def test_broken_videos_are_named(tmp_path):
    def read(path):
        return list(media.read_video(str(path)))

    write_text(tmp_path / 'text.mp4', 'no video')
    with pytest.raises(media.MediaReadError, match='Cannot open video .*text.mp4'):
        read(tmp_path / 'text.mp4')
    with pytest.raises(media.MediaReadError, match='Cannot open video .*none.mp4'):
        read(tmp_path / 'none.mp4')
    with av.open(str(tmp_path / 'sound.mp4'), 'w') as container:
        stream = container.add_stream('aac', rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(media.MediaReadError, match='sound.mp4 has no video stream'):
        read(tmp_path / 'sound.mp4')
    # the index is whole, the frames are not
    path = write_video(tmp_path / 'cut.mp4', 60, 240, 320, faststart=True)
    truncate(path, 0.7)
    try:
        assert len(read(path)) < 60
    except media.MediaReadError as e:
        assert 'cut.mp4' in str(e)


def test_mp4_is_written_as_stated(tmp_path):
    path = str(tmp_path / 'clip.part')  # the suffix does not matter
    media.write_mp4(path, (make_frame(i) for i in range(20)), Fraction(25, 2))
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == 'h264'
        assert stream.codec_context.pix_fmt == 'yuv420p'
        assert float(stream.average_rate) == 12.5
        assert (stream.height, stream.width) == (48, 64)
    frames = list(media.read_video(path))
    assert [frame_number(f) for f in frames] == list(range(20))
    assert np.abs(np.subtract(frames[7], make_frame(7), dtype=float)).mean() < 8
    again = str(tmp_path / 'again.mp4')
    media.write_mp4(again, [make_frame(i) for i in range(20)], Fraction(25, 2))
    with open(path, 'rb') as a, open(again, 'rb') as b:
        assert a.read() == b.read()


def test_mp4_refuses_what_h264_cannot_hold(tmp_path):
    path = tmp_path / 'x.mp4'
    with pytest.raises(ValueError, match='no frames to write to .*x.mp4'):
        media.write_mp4(str(path), [])
    with pytest.raises(ValueError, match='48 x 63.*even sides'):
        media.write_mp4(str(path), [make_frame(width=63)])
    assert not path.exists()


@pytest.mark.parametrize('suffix', media.IMAGE_SUFFIXES)
def test_image_is_written_in_the_format_of_its_suffix(suffix, tmp_path):
    path = str(tmp_path / 'Ümläut.part')
    media.write_image(path, make_frame(37), suffix.upper())
    image = media.read_image(path)
    assert frame_number(image) == 37
    if suffix in ('.png', '.bmp'):
        np.testing.assert_array_equal(image, make_frame(37))
    with media.open_image(path) as opened:
        assert opened.format.lower() in (suffix[1:], 'jpeg')


def test_quality_of_a_jpg(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    sizes = []
    for quality in (50, 95):
        path = str(tmp_path / f'{quality}.jpg')
        media.write_image(path, noise, quality=quality)
        sizes.append(osp.getsize(path))
    assert sizes[0] < 0.6 * sizes[1]
    assert cv2.imread(path).shape == noise.shape


def test_workers_of_the_tools_do_not_load_torch():
    """It would take 0.9 GB in each process."""
    code = (
        'import sys, prepare, make_quickstart\n'
        "assert prepare.media.read_video and 'numpy' in sys.modules\n"
        "assert not {'torch', 'mmengine', 's4d_mm'} & set(sys.modules)"
    )
    folder = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'tools', 'data')
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
