# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Reading and writing of media files. (Broken images: test_datasets/test_transforms.py.)"""

import os
import os.path as osp
import struct
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
    truncate,
    write_frames,
    write_text,
    write_video,
)
from PIL import Image, features

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


@pytest.mark.parametrize('degrees', (0, 90, 180, 270))
def test_frames_of_phones_are_upright_here_and_in_training(degrees, tmp_path):
    frame = make_frame(7, 96, 128)
    stored = np.ascontiguousarray(np.rot90(frame, degrees // 90))  # the player turns it back
    path = set_rotation(encode(tmp_path / 'phone.mp4', [stored] * 5), degrees)
    image = next(media.read_video(path))
    assert image.shape == frame.shape and image.flags.c_contiguous
    assert np.abs(np.subtract(image, frame, dtype=float)).mean() < 4
    assert media.video_info(path).size == (128, 96)
    np.testing.assert_array_equal(image, next(media.NumberedFrames(path).read([0])))


def test_times_are_those_of_the_file(tmp_path):
    path = write_video(tmp_path / 'even.mp4', 5, fps=10)
    assert [f.time for f in media.read_timed(path)] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    path = str(tmp_path / 'uneven.mp4')
    stamps = [40, 50, 90, 91, 200]  # hundredths of a second
    with av.open(path, 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
        stream.codec_context.time_base = stream.time_base = Fraction(1, 100)
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(make_frame(i), format='rgb24')
            frame.pts, frame.time_base = stamp, Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames = list(media.read_timed(path))
    assert [frame_number(f.image) for f in frames] == list(range(5))
    assert [f.time for f in frames] == pytest.approx([0, 0.1, 0.5, 0.51, 1.6])


def test_frames_without_times_are_spread_evenly(tmp_path):
    """A raw stream of H.264 has no clock."""
    path = write_video(tmp_path / 'x.mp4', 6)
    raw = str(tmp_path / 'raw.h264')
    with av.open(path) as source, av.open(raw, 'w', format='h264') as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    times = [f.time for f in media.read_timed(raw)]
    assert times == pytest.approx([i / 25 for i in range(6)])
    assert media.video_info(raw).frames == 0


@pytest.mark.parametrize('suffix', ['.avi', '.mkv', '.webm', '.mp4', '.mov'])
def test_a_file_that_is_cut_off_is_known(suffix, tmp_path):
    path = str(tmp_path / f'x{suffix}')
    with av.open(path, 'w') as container:
        codec = 'libx264' if suffix in ('.mp4', '.mov') else 'libvpx'
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, 'yuv420p'
        for i in range(9):
            frame = av.VideoFrame.from_ndarray(make_frame(i), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    size = osp.getsize(path)
    assert not media.is_cut_off(path) and len(media.NumberedFrames(path)) == 9
    for left in (size - 1, size // 2, 100, 4):
        os.truncate(path, left)
        with pytest.raises(media.MediaReadError, match='Cannot open video .*x' + suffix):
            media.NumberedFrames(path)
        assert media.is_cut_off(path) or left < 1000


def test_a_box_of_no_length_is_passed(tmp_path):
    for length in (b'\0\0\0\1' + b'free' + bytes(8), bytes(4) + b'free', b'\0\0\0\3free'):
        (tmp_path / 'x.mp4').write_bytes(b'\0\0\0\x10ftypisom\0\0\0\0' + length + bytes(40))
        assert not media.is_cut_off(str(tmp_path / 'x.mp4'))


def test_what_a_video_says_of_itself(tmp_path):
    path = write_video(tmp_path / 'x.mp4', 20, 48, 64, fps=10)
    assert media.video_info(path) == media.VideoInfo(10.0, 20, 2.0, (64, 48), False)
    sound = str(tmp_path / 'sound.mp4')
    with av.open(sound, 'w') as container:
        video = container.add_stream('libx264', rate=10)
        video.height, video.width, video.pix_fmt = 48, 64, 'yuv420p'
        audio = container.add_stream('aac', rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        silence.sample_rate = 8000
        for i in range(3):
            picture = av.VideoFrame.from_ndarray(make_frame(i), format='rgb24')
            container.mux(video.encode(picture))
        container.mux(audio.encode(silence))
        container.mux([*video.encode(), *audio.encode()])
    info = media.video_info(sound)
    assert info.has_sound and info.frames == 3 and info.fps == pytest.approx(10)
    write_text(tmp_path / 'text.mp4', 'no video')
    with pytest.raises(media.MediaReadError, match='Cannot open video .*text.mp4'):
        media.video_info(str(tmp_path / 'text.mp4'))


def test_odd_sides_and_pixels_that_are_not_square(tmp_path):
    path = str(tmp_path / 'odd.mkv')
    with av.open(path, 'w') as container:
        stream = container.add_stream('ffv1', rate=25)
        stream.height, stream.width, stream.pix_fmt = 47, 63, 'bgr0'
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        frame = av.VideoFrame.from_ndarray(make_frame(3, 47, 63), format='rgb24')
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (image,) = media.read_video(path)
    np.testing.assert_array_equal(image, make_frame(3, 47, 63))
    assert media.video_info(path).size == (63, 47)


def test_the_cover_of_a_song_is_no_video(tmp_path):
    path = str(tmp_path / 'song.mp4')
    with av.open(path, 'w') as container:
        audio = container.add_stream('aac', rate=8000)
        cover = container.add_stream('mjpeg')
        cover.width, cover.height, cover.pix_fmt = 64, 48, 'yuvj420p'
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(make_frame(), format='rgb24')
        container.mux(cover.encode(picture))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
        silence.sample_rate = 8000
        container.mux(audio.encode(silence))
        container.mux(audio.encode())
    with pytest.raises(media.MediaReadError, match='song.mp4 has no video stream'):
        next(media.read_video(path))


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


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    """Small files of one colour with many pixels."""
    path = str(tmp_path / 'large.png')
    Image.new('1', (8193, 8192)).save(path)
    with pytest.raises(media.MediaReadError, match='large.png: it has 8193 x 8192 pixels; more'):
        media.read_image(path)
    path = str(tmp_path / 'large.mp4')
    with av.open(path, 'w') as container:
        stream = container.add_stream('mjpeg', rate=25)
        stream.height, stream.width, stream.pix_fmt = 4112, 4096, 'yuvj420p'
        container.mux(stream.encode(av.VideoFrame(4096, 4112, 'yuvj420p')))
        container.mux(stream.encode())
    for read in (media.read_video, media.read_timed, lambda p: [media.NumberedFrames(p)]):
        with pytest.raises(media.MediaReadError, match='large.mp4 has frames of 4096 x 4112'):
            next(iter(read(path)))
    # a header that says less than its frames have
    with open(path, 'rb') as f:
        data = f.read()
    real, small = struct.pack('>HH', 4096, 4112), struct.pack('>HH', 64, 64)
    assert data.count(real) >= 1
    with open(path, 'wb') as f:
        f.write(data.replace(real, small))
    with pytest.raises(media.MediaReadError, match='large.mp4'):
        next(media.read_video(path))


FORMATS = {'.jpe': 'jpeg', '.jpg': 'jpeg', '.jfif': 'jpeg', '.tif': 'tiff'}


@pytest.mark.parametrize('suffix', media.IMAGE_SUFFIXES)
def test_image_is_written_in_the_format_of_its_suffix(suffix, tmp_path):
    if suffix == '.avif' and not features.check('avif'):
        pytest.skip('Pillow before 11.3')
    path = str(tmp_path / 'Ümläut.part')
    media.write_image(path, make_frame(37), suffix.upper())
    image = media.read_image(path)
    assert frame_number(image) == 37
    if suffix in ('.png', '.bmp'):
        np.testing.assert_array_equal(image, make_frame(37))
    with media.open_image(path) as opened:
        assert opened.format.lower() == FORMATS.get(suffix, suffix[1:])


RAMP = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16) + 7


@pytest.mark.parametrize('name', ['grey.png', 'grey.tif'])
def test_grey_of_16_bits_is_scaled(name, tmp_path):
    """Pillow would cut it off at 255, which is nearly all white."""
    path = str(tmp_path / name)
    Image.fromarray(RAMP).save(path)
    image = media.read_image(path)
    assert image.dtype == np.uint8 and image.shape == (16, 16, 3)
    np.testing.assert_array_equal(image, np.stack([np.arange(256).reshape(16, 16)] * 3, -1))
    np.testing.assert_array_equal(image, cv2.imread(path))  # what mmcv's loader gives


def test_grey_of_16_bits_is_turned_upright(tmp_path):
    path = str(tmp_path / 'turned.png')
    exif = Image.Exif()
    exif[media.EXIF_ORIENTATION] = 6
    Image.fromarray(RAMP).save(path, exif=exif)
    np.testing.assert_array_equal(media.read_image(path)[..., 0], np.rot90(RAMP >> 8, -1))


def test_pixels_of_32_bits_are_refused(tmp_path):
    for i, values in enumerate((np.ones((4, 4), np.float32), np.full((4, 4), 70000, np.int32))):
        path = str(tmp_path / f'{i}.tif')
        Image.fromarray(values).save(path)
        with pytest.raises(media.MediaReadError, match=f'{i}.tif: its pixels have 32 bits'):
            media.read_image(path)


@pytest.mark.parametrize('suffix', ['.gif', '.tiff', '.webp', '.png'])
def test_a_file_of_several_pictures_is_refused(suffix, tmp_path):
    path = str(tmp_path / f'x{suffix}')
    pictures = [Image.fromarray(make_frame(i)) for i in range(3)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    with pytest.raises(media.MediaReadError, match=f'x{suffix}: it has 3 pictures'):
        media.read_image(path)


@pytest.mark.parametrize('suffix', ['.heic', '.HEIF', '.jxl', '.cr2', '.svg'])
def test_pictures_that_are_not_read_are_refused_by_name(suffix, tmp_path):
    clip = write_frames(str(tmp_path / 'clip'), 2)
    path = write_text(tmp_path / 'clip' / f'x{suffix}', 'of whatever content')
    readers = (media.read_image, media.video_info, lambda _: media.list_frames(clip))
    for read in readers:
        with pytest.raises(media.MediaReadError, match=f'x{suffix}: files of type .* Convert it'):
            read(path)


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
        "assert prepare.media.read_video and prepare.follow_faces and 'numpy' in sys.modules\n"
        "assert not {'torch', 'mmengine', 's4d_mm'} & set(sys.modules)"
    )
    folder = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), 'tools', 'data')
    done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
