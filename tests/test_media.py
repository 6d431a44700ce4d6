# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Reading and writing of media files. (All containers: test_datasets/test_containers.py.)"""

import os
import os.path as osp
import subprocess
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from helpers import (
    encode,
    frame_number,
    make_frame,
    set_rotation,
    write_frames,
    write_text,
    write_video,
)
from PIL import Image

from s4d_mm import media


def test_frames_come_in_natural_order(tmp_path):
    folder = write_frames(str(tmp_path / 'clip'), 12, pattern='{}.png')
    write_text(tmp_path / 'clip' / 'notes.txt', 'not a frame')
    paths = media.list_frames(folder)
    assert [frame_number(media.read_image(p)) for p in paths] == list(range(12))


@pytest.mark.parametrize('degrees', (0, 90, 180, 270))
def test_frames_of_phones_are_upright_here_and_in_training(degrees, tmp_path):
    frame = make_frame(7, 96, 128)
    stored = np.ascontiguousarray(np.rot90(frame, degrees // 90))  # the player turns it back
    path = set_rotation(encode(tmp_path / 'phone.mp4', [stored] * 5), degrees)
    image = next(media.read_video(path))
    assert image.shape == frame.shape and image.flags.c_contiguous
    assert np.abs(np.subtract(image, frame, dtype=float)).mean() < 4
    np.testing.assert_array_equal(image, next(media.NumberedFrames(path).read([0])))


@pytest.mark.parametrize('suffix', ['.avi', '.mkv', '.mp4', '.mov'])
def test_a_file_that_is_cut_off_is_known(suffix, tmp_path):
    path = write_video(tmp_path / f'x{suffix}', 9)
    size = osp.getsize(path)
    assert not media.is_cut_off(path) and len(media.NumberedFrames(path)) == 9
    for left in (size - 1, size // 2, 100, 4):
        os.truncate(path, left)
        with pytest.raises(media.MediaReadError, match='Cannot open video .*x' + suffix):
            media.NumberedFrames(path)
        assert media.is_cut_off(path) or left < 1000


def test_the_frame_asked_for_where_seeking_leads_to_a_later_one(tmp_path):
    path = str(tmp_path / 'x.avi')  # it is sought by the order of decoding
    frames = [make_frame(i, 144, 176) for i in range(50)]
    encode(path, frames, codec='mpeg4', bf=2, g=8, threads=1)
    for i, frame in enumerate(media.read_video(path)):
        np.testing.assert_array_equal(next(media.NumberedFrames(path).read([i])), frame)


def test_broken_videos_are_named(tmp_path):
    write_text(tmp_path / 'text.mp4', 'no video')
    for name in ('text.mp4', 'none.mp4'):
        with pytest.raises(media.MediaReadError, match=f'Cannot open video .*{name}'):
            next(media.read_video(str(tmp_path / name)))


def test_mp4_is_written_as_stated(tmp_path):
    path, again = str(tmp_path / 'clip.part'), str(tmp_path / 'again.mp4')
    for name in (path, again):
        media.write_mp4(name, (make_frame(i) for i in range(20)), Fraction(25, 2))
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ('h264', 'yuv420p')
        assert float(stream.average_rate) == 12.5
    frames = list(media.read_video(path))
    assert [frame_number(f) for f in frames] == list(range(20))
    with open(path, 'rb') as a, open(again, 'rb') as b:
        assert a.read() == b.read()


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    """Small files of one colour with many pixels."""
    path = str(tmp_path / 'large.png')
    Image.new('1', (8193, 8192)).save(path)
    with pytest.raises(media.MediaReadError, match='large.png: 8193 x 8192 pixels are too many'):
        media.read_image(path)
    path = str(tmp_path / 'large.mp4')
    with av.open(path, 'w') as container:
        stream = container.add_stream('mjpeg', rate=25)
        stream.height, stream.width, stream.pix_fmt = 4112, 4096, 'yuvj420p'
        container.mux(stream.encode(av.VideoFrame(4096, 4112, 'yuvj420p')))
        container.mux(stream.encode())
    with pytest.raises(media.MediaReadError, match='large.mp4 has frames of 4096 x 4112'):
        next(media.read_video(path))


@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.webp', '.tif'])
def test_image_is_written_in_the_format_of_its_suffix(suffix, tmp_path):
    path = str(tmp_path / 'Ümläut.part')
    media.write_image(path, make_frame(37), suffix.upper())
    assert frame_number(media.read_image(path)) == 37
    with media.open_image(path) as opened:
        assert opened.format == Image.registered_extensions()[suffix]


@pytest.mark.parametrize('name', ['grey.png', 'grey.tif'])
def test_grey_of_16_bits_is_scaled(name, tmp_path):
    """Pillow would cut it off at 255, which is nearly all white."""
    path, ramp = str(tmp_path / name), np.arange(7, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(path)
    image = media.read_image(path)
    np.testing.assert_array_equal(image, np.stack([np.arange(256).reshape(16, 16)] * 3, -1))
    np.testing.assert_array_equal(image, cv2.imread(path))  # what mmcv's loader gives
    Image.fromarray(ramp.astype(np.int32)).save(str(tmp_path / 'deep.tif'))
    with pytest.raises(media.MediaReadError, match='deep.tif: its pixels have 32 bits'):
        media.read_image(str(tmp_path / 'deep.tif'))


def test_a_file_of_several_pictures_is_refused(tmp_path):
    path = str(tmp_path / 'x.webp')
    pictures = [Image.fromarray(make_frame(i)) for i in range(3)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    with pytest.raises(media.MediaReadError, match='x.webp: it has 3 pictures'):
        media.read_image(path)


def test_workers_of_the_tools_do_not_load_torch():
    """It would take 0.9 GB in each process."""
    code = (
        'import sys, prepare, make_quickstart\n'
        "assert prepare.media.read_video and prepare.follow_faces and 'numpy' in sys.modules\n"
        "assert not {'torch', 'mmengine', 's4d_mm'} & set(sys.modules)"
    )
    folder = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'tools', 'data')
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
