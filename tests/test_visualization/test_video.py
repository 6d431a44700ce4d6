# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers import frame_number, make_frame, truncate, write_frames, write_image, write_video
from made_up_results import record, result, still_track

from s4d_mm.media import MediaReadError
from s4d_mm.visualization import annotate_video
from s4d_mm.visualization.colors import class_color

RATE = 16000


def write_clip(path, times, sound=None, container='mp4', height=240, width=320):
    """A clip whose frame i is shown at times[i] (ms), with a tone in the codec ``sound``."""
    with av.open(str(path), 'w', format=container) as out:
        video = out.add_stream('libx264', rate=25)
        video.width, video.height, video.pix_fmt = width, height, 'yuv420p'
        video.options = dict(preset='ultrafast', crf='12')
        video.codec_context.time_base = Fraction(1, 1000)
        if sound:
            audio = out.add_stream(sound, rate=RATE)
            audio.codec_context.layout = 'mono'
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(make_frame(i, height, width), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if sound:
            for frame in tone(1.0, audio.codec_context.format.name):
                out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return str(path)


def tone(seconds, layout):
    """A tone, silent but for its second half."""
    t = np.arange(int(seconds * RATE)) / RATE
    wave = np.where(t < seconds / 2, 0, 0.5 * np.sin(2 * np.pi * 440 * t))
    if layout.startswith('s16'):
        wave = (wave * 32767).astype(np.int16)
    wave = wave.astype(np.int16 if layout.startswith('s16') else np.float32)
    for start in range(0, len(wave), 1000):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1000], layout, 'mono')
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield frame


def read(path):
    """Frames and times of a video."""
    with av.open(str(path)) as container:
        frames = [(f.to_ndarray(format='rgb24'), f.time) for f in container.decode(video=0)]
    images, times = zip(*frames)
    return images, np.array(times)


def read_sound(path):
    """When the tone of a file starts and how long its sound is, in seconds, and the codec."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        name = container.streams.audio[0].codec_context.codec.canonical_name
    samples = np.concatenate([f.to_ndarray().astype(float).ravel() for f in frames])
    first_loud = np.flatnonzero(np.abs(samples) > 0.2 * np.abs(samples).max())[0]
    rate = frames[0].sample_rate
    return frames[0].time + first_loud / rate, len(samples) / rate, name


def face_result(frames=8, **more):
    records = [record(0, 1, (0, frames // 2)), record(1, 1, (frames // 2, frames))]
    return result(records, {1: still_track((240, 150, 100, 0), frames)}, frames=frames, **more)


def has_color(image, label):
    return (np.abs(image.astype(int) - class_color(label)).max(-1) < 12).sum() > 100


def test_frames_stay_and_records_change(tmp_path):
    src, dst = write_clip(tmp_path / 'a.mp4', range(0, 320, 40)), tmp_path / 'b.mp4'
    seen = []
    annotate_video(src, str(dst), face_result(), seen.append)
    images, times = read(dst)
    assert seen == list(range(1, 9))
    assert [frame_number(image[:, :320]) for image in images] == list(range(8))
    assert times == pytest.approx(np.arange(8) * 0.04, abs=1e-4)
    for i, image in enumerate(images):
        assert image.shape[0] == 240 and image.shape[1] > 320
        assert has_color(image[:, 160:320], 0 if i < 4 else 1)  # the box
        assert not has_color(image[:, 160:320], 1 if i < 4 else 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.mp4', 'b.mp4']


def test_format(tmp_path):
    src, dst = write_clip(tmp_path / 'a.mp4', range(0, 320, 40)), tmp_path / 'b.mp4'
    annotate_video(src, str(dst), face_result())
    with av.open(str(dst)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt) == ('h264', 'yuv420p')
        assert (codec.colorspace, codec.color_primaries, codec.color_range) == (6, 1, 1)
    content = dst.read_bytes()
    assert content.index(b'moov') < content.index(b'mdat')  # plays from the start


def test_colors_stay(tmp_path):
    src, dst = write_clip(tmp_path / 'a.mp4', range(0, 80, 40)), tmp_path / 'b.mp4'
    annotate_video(src, str(dst), result([], frames=2))
    (before, *_), (after, *_) = read(src)[0], read(dst)[0]
    assert before.shape == after.shape  # without any record there is no strip
    assert np.abs(before.astype(int) - after)[8:-8, 168:-8].max() < 8


def test_variable_frame_rate_stays(tmp_path):
    times = [0, 40, 50, 300, 310, 700, 1500, 1540]
    src, dst = write_clip(tmp_path / 'a.mp4', times), tmp_path / 'b.mp4'
    annotate_video(src, str(dst), face_result(fps=5.0))
    assert read(dst)[1] == pytest.approx(np.array(times) / 1000, abs=1e-4)


@pytest.mark.parametrize(
    'container,sound,expected',
    [('mp4', 'aac', 'aac'), ('matroska', 'pcm_s16le', 'aac'), ('mpegts', 'aac', 'aac')],
)
def test_sound_stays_in_time(tmp_path, container, sound, expected):
    src = write_clip(tmp_path / 'a', range(0, 1000, 40), sound, container)
    dst = tmp_path / 'b.mp4'
    annotate_video(src, str(dst), face_result(25))
    start, seconds, name = read_sound(dst)
    src_start, *_ = read_sound(src)
    first = read(src)[1][0]  # a transport stream does not start at 0
    assert name == expected
    assert start == pytest.approx(src_start - first, abs=0.03)
    assert 0.999 < seconds < 1.2
    assert read(dst)[1][0] == 0


def test_copied_sound_is_the_same(tmp_path):
    src, dst = (
        write_clip(tmp_path / 'a.mp4', range(0, 1000, 40), 'aac'),
        tmp_path / 'b.mp4',
    )
    annotate_video(src, str(dst), face_result(25))
    packets = []
    for path in (src, str(dst)):
        with av.open(path) as container:
            packets.append([bytes(p) for p in container.demux(audio=0) if p.size])
    assert packets[0] == packets[1] and len(packets[0]) > 10


def test_broken_packet_of_sound_is_skipped(tmp_path):
    src = tmp_path / 'a.mkv'
    write_clip(src, range(0, 1000, 40), 'flac', 'matroska')
    with av.open(str(src)) as container:
        packets = [bytes(p) for p in container.demux(audio=0) if p.size]
    content = src.read_bytes()
    assert content.count(packets[2]) == 1
    src.write_bytes(content.replace(packets[2], bytes(len(packets[2]))))
    annotate_video(str(src), str(tmp_path / 'b.mp4'), face_result(25))
    start, _, _ = read_sound(tmp_path / 'b.mp4')
    assert start == pytest.approx(0.5, abs=0.15)


def turn(path, degrees):
    """Write the flag by which phones say how a clip is to be turned, clockwise."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    with open(path, 'r+b') as f:
        content = f.read()
        f.seek(content.index(b'tkhd') + 4 + 4 + 20 + 8 + 8)  # the matrix in the track's header
        one = 1 << 16
        f.write(struct.pack('>6i', cos * one, sin * one, 0, -sin * one, cos * one, 0))
    return path


@pytest.mark.parametrize('degrees', [90, 180, 270])
def test_turned_clip_is_upright(tmp_path, degrees):
    src, dst = write_clip(tmp_path / 'a.mp4', range(0, 320, 40)), tmp_path / 'b.mp4'
    annotate_video(turn(src, degrees), str(dst), result([], frames=8))
    images, _ = read(dst)
    upright = np.rot90(make_frame(0, 240, 320), -degrees // 90)
    assert images[0].shape == upright.shape
    assert np.abs(images[0].astype(int) - upright).mean() < 4


def test_folder_of_odd_frames(tmp_path):
    src = write_frames(str(tmp_path / 'frames'), 6, 241, 321, '{}.png')
    annotate_video(src, str(tmp_path / 'b.mp4'), result([], fps=10.0, frames=6))
    images, times = read(tmp_path / 'b.mp4')
    assert images[0].shape == (242, 322, 3)
    assert [frame_number(image) for image in images] == list(range(6))
    assert times == pytest.approx(np.arange(6) / 10, abs=1e-4)
    assert images[0][-1].mean() > 50 and images[0][:, -1].mean() > 50  # no black line


def test_face_for_part_of_the_time(tmp_path):
    src, dst = write_clip(tmp_path / 'a.mp4', range(0, 320, 40)), tmp_path / 'b.mp4'
    found = result([record(0, 1, (3, 5))], {1: still_track((240, 150, 100, 0), 2, start=3)})
    annotate_video(src, str(dst), found)
    images, _ = read(dst)
    assert [has_color(image, 0) for image in images] == [i in (3, 4) for i in range(8)]
    assert len({image.shape for image in images}) == 1


@pytest.mark.parametrize('there', [False, True])
def test_failure_leaves_nothing(tmp_path, there):
    src = truncate(write_video(str(tmp_path / 'a.mp4'), 200, 240, 320, faststart=True), 0.6)
    dst = tmp_path / 'b.mp4'
    if there:
        dst.write_text('before')
    with pytest.raises(MediaReadError, match=r'a\.mp4'):
        annotate_video(src, str(dst), face_result(200))
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == (['a.mp4', 'b.mp4'] if there else ['a.mp4'])
    if there:
        assert dst.read_text() == 'before'


def test_frames_of_several_sizes(tmp_path):
    src = write_frames(str(tmp_path / 'frames'), 1, 240, 320)
    write_image(str(tmp_path / 'frames' / '1.jpg'), 240, 300)
    with pytest.raises(MediaReadError, match='Frame 1 of clip.mp4 is 300 x 240 pixels, .*320'):
        annotate_video(src, str(tmp_path / 'b.mp4'), result([], frames=2))
    assert [p.name for p in tmp_path.iterdir()] == ['frames']


def test_interrupted(tmp_path):

    def stop(count):
        if count == 3:
            raise KeyboardInterrupt

    src = write_clip(tmp_path / 'a.mp4', range(0, 320, 40), 'aac')
    with pytest.raises(KeyboardInterrupt):
        annotate_video(src, str(tmp_path / 'b.mp4'), face_result(), stop)
    assert [p.name for p in tmp_path.iterdir()] == ['a.mp4']


def test_folder_without_frames(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(MediaReadError, match='has no image files'):
        annotate_video(str(tmp_path / 'empty'), str(tmp_path / 'b.mp4'), result([]))
