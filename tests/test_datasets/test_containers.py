# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Training gets the frames it asks for, whatever container and codec: each carries its number."""

import av
import numpy as np
import pytest
from helpers import frame_number, make_frame

from s4d_mm import media
from s4d_mm.datasets.transforms import ClipDecode, ClipInit

FRAMES, KEYS = 90, 12
# name -> encoder, B frames, options; HEVC and the MPEGs with B frames have frames that are stored
# behind a key frame and shown before it
CODECS = {
    'h264': ('libx264', 0, {}),
    'h264 b': ('libx264', 2, {}),
    'h264 open': ('libx264', 2, {'x264-params': 'open-gop=1'}),
    'hevc': ('libx265', 2, {'x265-params': 'log-level=none:pools=1', 'preset': 'ultrafast'}),
    'mpeg4 b': ('mpeg4', 2, {}),
    'mpeg1 b': ('mpeg1video', 2, {}),
    'mpeg2': ('mpeg2video', 0, {}),
    'mpeg2 b': ('mpeg2video', 2, {}),
    'wmv2': ('wmv2', 0, {}),
    'msmpeg4': ('msmpeg4', 0, {}),
    'h263': ('h263', 0, {}),
    'flv1': ('flv', 0, {}),
    'vp8': ('libvpx', 0, {'deadline': 'realtime', 'cpu-used': '8'}),
    'vp9': ('libvpx-vp9', 0, {'deadline': 'realtime', 'cpu-used': '8'}),
    'av1': ('libsvtav1', 0, {'preset': '8', 'crf': '10', 'svtav1-params': 'enable-tf=0'}),
    'mjpeg': ('mjpeg', 0, {}),
    'ffv1': ('ffv1', 0, {}),
}
MPEG = ['h264', 'h264 b', 'hevc', 'mpeg4 b', 'mpeg1 b', 'mpeg2', 'mpeg2 b']
MP4 = ['h264', 'h264 b', 'h264 open', 'mpeg4 b']
CONTAINERS = {
    '.mp4': [*MP4, 'hevc', 'mpeg2 b', 'vp9', 'av1', 'mjpeg'],
    '.avi': [*MP4, 'mpeg2 b', 'mpeg1 b', 'h263', 'wmv2', 'msmpeg4', 'vp9', 'mjpeg', 'ffv1'],
    '.flv': ['flv1', 'h264 b', 'hevc', 'vp9', 'av1'],
    '.mkv': [*MP4, 'hevc', 'mpeg2 b', 'msmpeg4', 'vp8', 'vp9', 'av1', 'ffv1'],
    '.mov': [*MP4, 'hevc', 'mpeg2 b', 'h263', 'mjpeg'],
    '.webm': ['vp8', 'vp9', 'av1'],
    '.m4v': ['h264 b'],
    '.mpg': MPEG,
    '.mpeg': MPEG[:1],
    '.mpe': MPEG[:1],
    '.wmv': ['wmv2', 'msmpeg4', 'h264 b', 'mpeg4 b', 'mpeg1 b', 'vp9', 'mjpeg'],
    '.asf': ['wmv2'],
    '.3gp': ['h263', *MP4],
    '.3g2': ['h263'],
    '.ts': [*MPEG, 'h264 open'],
    '.mts': MPEG[:1],
    '.m2ts': MPEG[:1],
    '.vob': ['h264 b', 'mpeg2', 'mpeg2 b'],
    '.ogv': ['vp8'],
}
# where times say which number a key frame has; elsewhere decoding begins at the first frame
INDEXED = ('.mp4', '.mov', '.mkv', '.webm', '.m4v', '.3gp', '.3g2', '.flv')
ASKED = ([*range(28, 89, 4)], [0], [1, 13], [10, 33, 60, 77], [11, 12, 23, 24], [0, 88], [89])


def write(path, codec):
    encoder, b_frames, options = CODECS[codec]
    with av.open(path, 'w', format='mpeg' if path.endswith('.mpe') else None) as container:
        stream = container.add_stream(encoder, rate=25)
        stream.width, stream.height = 176, 144
        stream.pix_fmt = 'yuvj420p' if codec == 'mjpeg' else 'yuv420p'
        if 'crf' not in options:
            stream.bit_rate = 4_000_000
        stream.gop_size, stream.max_b_frames, stream.options = KEYS, b_frames, dict(options)
        for i in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(make_frame(i, 144, 176), format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def frames_of(path, numbers):
    """The numbers in the pixels of the frames asked for."""
    results = ClipInit()(dict(filename=path))
    assert results['total_frames'] == FRAMES and results['avg_fps'] == pytest.approx(25, 0.01)
    results['frame_inds'] = np.array(numbers)
    return [frame_number(image) for image in ClipDecode()(results)['imgs']]


@pytest.mark.parametrize('suffix, codec', [(s, c) for s, cs in CONTAINERS.items() for c in cs])
def test_frames_asked_for_are_frames_got(suffix, codec, tmp_path):
    assert set(CONTAINERS) == set(media.VIDEO_SUFFIXES)
    path = write(str(tmp_path / f'x{suffix}'), codec)
    for numbers in ASKED:
        assert frames_of(path, numbers) == numbers
    if suffix in INDEXED and codec != 'mpeg2':  # its header announces B frames that do not come
        reader = media.NumberedFrames(path)
        assert frame_number(next(reader.read([80]))) == 80 and reader.indexed


def test_frames_of_vp8_that_are_not_shown_do_not_count(tmp_path):
    path = write(str(tmp_path / 'x.webm'), 'vp8')
    with av.open(path) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)]
    data = bytearray((tmp_path / 'x.webm').read_bytes())
    for i in (5, 40):
        data[data.index(packets[i])] &= ~16  # show_frame of RFC 6386
    (tmp_path / 'x.webm').write_bytes(data)
    reader = media.NumberedFrames(path)
    got = [frame_number(f) for f in reader.read([4, 5, 38, 39, 87])]
    assert len(reader) == 88 and reader.indexed and got == [4, 6, 39, 41, 89]
