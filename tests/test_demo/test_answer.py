# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""From an uploaded file to what the page shows, without a browser."""

import os.path as osp
import re
import socket

import av
import pytest
from helpers import write_image, write_text, write_video
from stand_in_inferencer import StandIn
from user_files import write_clip, write_picture

from s4d_mm.cli import make_parser
from s4d_mm.demo import main
from s4d_mm.demo.answer import Answer, Limits, answer_upload, exceeds
from s4d_mm.demo.page import example_file, table_html, to_html
from s4d_mm.demo.server import _Policy
from s4d_mm.media import MediaReadError


def answer(path, tmp_path, limits=None, inferencer=None):
    out_dir = tmp_path / 'result'
    out_dir.mkdir()
    limits = limits or Limits()
    return answer_upload(inferencer or StandIn(), str(path), 'auto', str(out_dir), limits)


def test_video(tmp_path):
    shown = answer(write_clip(tmp_path / 'clip.mp4'), tmp_path)
    assert shown.faces == [('Face 1:', 'happiness', '90 %, 0.0 to 1.0 s')]
    assert shown.columns == ['face', 'start', 'end', 'label', 'happiness', 'sadness']
    assert shown.rows == [[1, 0.0, 0.96, 'happiness', 0.9, 0.1]]
    names = [osp.basename(p) for p in (shown.clip, shown.timeline, shown.csv, shown.json)]
    assert names == ['clip.mp4', 'clip_timeline.png', 'clip.csv', 'clip.json']
    assert (shown.picture, shown.note) == (None, '')
    assert 'trained on: drawn faces' in to_html(shown)


def test_image_whose_name_ends_as_a_timeline_does(tmp_path):
    shown = answer(write_picture(tmp_path / 'my_timeline.jpg'), tmp_path)
    assert shown.faces == [('Face 1:', 'happiness', '90 %')]
    assert osp.basename(shown.picture) == 'my_timeline.png'
    assert (shown.clip, shown.timeline) == (None, None)


def test_picture_without_a_face(tmp_path):
    shown = answer(write_picture(tmp_path / 'wall.png', faces=0), tmp_path)
    assert shown.note == 'wall.png: no face was found in it'
    assert not shown.faces and not shown.rows


@pytest.mark.parametrize(
    'write, name, limits, words',
    [
        (write_video, 'long.mp4', Limits(seconds=0.5), 'long.mp4 is longer than the 0.5 s'),
        (write_image, 'big.bmp', Limits(mb=0.001), 'big.bmp has 0.0 MB.*takes 0.001 MB'),
        (write_text, 'list.csv', Limits(), '^list.csv cannot be read as a video or an image'),
        (write_text, 'empty.png', Limits(), 'Cannot decode image empty.png'),
        (lambda path: None, 'gone.mp4', Limits(), 'gone.mp4 is no file'),
    ],
)
def test_what_cannot_be_answered_gets_a_sentence(tmp_path, write, name, limits, words):
    write(str(tmp_path / name))
    shown = answer(tmp_path / name, tmp_path, limits)
    assert not shown.faces
    assert re.search(words, shown.note), shown.note


def test_error_of_the_model_is_shown_and_printed(tmp_path, capsys):
    def broken(path, **_):
        raise RuntimeError('out of memory')

    shown = answer(write_clip(tmp_path / 'clip.mp4'), tmp_path, inferencer=broken)
    assert shown.note == 'This failed (RuntimeError: out of memory); the terminal says more.'
    assert 'Traceback' in capsys.readouterr().err


def test_length_is_that_of_the_packets(tmp_path):
    """The file need not declare it: a browser's recording does not."""
    clip = write_video(str(tmp_path / 'clip.mp4'), num_frames=50)
    recording = str(tmp_path / 'recording.mkv')
    with av.open(clip) as source, av.open(recording, 'w', options=dict(live='1')) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    with av.open(recording) as container:
        assert container.duration is None
    for path in (clip, recording):
        assert exceeds(path, 1.9) and not exceeds(path, 2.1)


def test_sound_alone_is_no_video(tmp_path):
    path = str(tmp_path / 'sound.wav')
    with av.open(path, 'w') as container:
        stream = container.add_stream('pcm_s16le', rate=8000, layout='mono')
        frame = av.AudioFrame(format='s16', layout='mono', samples=800)
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode()])
    with pytest.raises(MediaReadError, match='no video stream'):
        exceeds(path, 60)


def test_names_cannot_write_html(tmp_path):
    html = to_html(answer(write_picture(tmp_path / '<img src=x>.png', faces=0), tmp_path))
    assert '&lt;img src=x&gt;' in html and '<img' not in html
    html = table_html(Answer(columns=['<b>'], rows=[['<i>'], [None]]))
    assert '<th>&lt;b&gt;</th>' in html and '<td>&lt;i&gt;</td>' in html and '<td></td>' in html


def test_open_page_takes_addresses_and_its_own_names():
    policy = _Policy(None, '0.0.0.0')
    for name in ('192.168.1.7:7860', '[fe80::1]:7860', f'{socket.gethostname()}:7860', 'localhost'):
        assert policy.knows(name), name
    for name in ('evil.example:7860', '', '[', 'x:y:z'):
        assert not policy.knows(name), name
    assert not _Policy(None, '127.0.0.1').knows('192.168.1.7:7860')


def test_example_of_a_model_of_videos_is_a_clip(tmp_path):
    path = example_file({'video': []}, str(tmp_path / 'new'))
    assert osp.basename(path) == 'example.mp4' and not exceeds(path, 2.1)
    assert example_file({'video': [], 'image': []}, str(tmp_path)).endswith('.jpg')


def test_limit_must_be_positive():
    args = make_parser().parse_args(['demo', '--model', 'x.py', '--max-seconds', '0'])
    with pytest.raises(ValueError, match='--max-seconds is 0, but must be above 0'):
        main(args)
