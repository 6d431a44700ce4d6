# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Records, tables and lines of predictions that no model made; pictures and videos with them."""

import csv
import io
from fractions import Fraction

import av
import numpy as np
import pytest
from helpers import frame_number, make_frame

from s4d_mm.apis import ExpressionRecord, ExpressionResult, MediaResult
from s4d_mm.predict import drawing
from s4d_mm.predict.drawing import annotate_image, annotate_video
from s4d_mm.predict.results import FaceTrack, frame_weights

RATE = 16000
COLORS = drawing.COLORS
CLASSES = ('happiness', 'sadness', 'neutral', 'anger')


def record(label, face=1, frames=(0, 8), fps=8.0, classes=CLASSES, share=0.7, media='clip.mp4'):
    """A record of a face; ``label`` is a place in ``classes``."""
    rest = (1 - share) / (len(classes) - 1)
    scores = {name: share if i == label else rest for i, name in enumerate(classes)}
    times = (None, None) if fps is None else tuple(frame / fps for frame in frames)
    box = None if face is None else (0.0, 0.0, 1.0, 1.0)
    return ExpressionRecord(media, face, *times, *frames, box, classes[label], scores)


def still_track(square, frames=8, start=0):
    """A face that does not move: centre x, centre y, side, angle."""
    return FaceTrack(start, np.tile(np.float64(square), (frames, 1)))


def result(records, tracks=None, kind='video', fps=8.0, frames=8, size=(320, 240), **more):
    """What was found in one input."""
    media = records[0].media if records else 'clip.mp4'
    fps = None if kind == 'image' else fps
    return MediaResult(media, kind, frames, fps, size, tracks or {}, list(records), **more)


# ------------------------------------------------------------------ records
def test_a_spreadsheet_computes_no_cell():
    names = ['=1+1.mp4', '+1.mp4', '-x.mp4', '@x.mp4', '\t=1.mp4', 'a=1.mp4']
    media = [result([record(0, classes=('=a', 'b'), media=name)]) for name in names]
    rows = list(csv.reader(io.StringIO(ExpressionResult(media).to_csv())))
    assert rows[0][-3:] == ['label', "'=a", 'b']
    assert [row[0] for row in rows[1:]] == [*(f"'{name}" for name in names[:-1]), names[-1]]
    assert rows[1][-3:] == ["'=a", '0.7', '0.3']
    found = ExpressionResult([result([record(0)._replace(box=(-0.5, 1.0, 2.0, 3.125))])])
    (row,) = csv.DictReader(io.StringIO(found.to_csv()))
    assert [row[k] for k in ('x1', 'y1', 'x2', 'y2')] == ['-0.5', '1.0', '2.0', '3.12']
    assert found.to_frame().iloc[0].tolist()[6:10] == [-0.5, 1.0, 2.0, 3.12]


def test_frame_weights_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 50, 40)
    spans = list(zip(starts.tolist(), (starts + rng.integers(1, 20, 40)).tolist()))
    holders = [sum(a <= t < b for a, b in spans) for t in range(80)]
    expected = [sum(1 / holders[t] for t in range(a, b)) for a, b in spans]
    np.testing.assert_allclose(frame_weights(spans), expected)
    assert frame_weights(spans).sum() == pytest.approx(sum(h > 0 for h in holders))


def seen(label, start, face=1):
    other = 'fear' if label != 'fear' else 'anger'
    shares, end = {label: 0.7, other: 0.2, 'neutral': 0.1}, start + 50
    return ExpressionRecord('a.mp4', face, start / 25, end / 25, start, end, None, label, shares)


def test_lines_of_a_report():
    windows = [seen(name, 25 * i) for i, name in enumerate(['happiness', 'happiness', 'fear'])]
    assert MediaResult('a.mp4', 'video', records=[*windows, seen('fear', 25, face=2)]).report() == [
        'a.mp4  face 1  0.0-4.0 s  happiness 70 %  (then fear 20 %)',
        '    in turn: happiness 0.0-2.0 s, fear 2.0-4.0 s',  # parts do not overlap
        'a.mp4  face 2  1.0-3.0 s  fear 70 %  (then anger 20 %)',
    ]


# ------------------------------------------------------------------ pictures
def test_labels_of_a_crowd_cover_no_face_and_no_label(monkeypatch):
    """Twenty faces of 54 pixels, so near that there is no room for most of the long labels."""
    place, found = drawing.place_labels, []
    monkeypatch.setattr(drawing, 'place_labels', lambda *a: found.extend(place(*a)) or found)
    squares = [(100 + 80 * (i % 5), 60 + 80 * (i // 5), 54, 0.1 * (i % 3)) for i in range(20)]
    records = [record(0, face, (0, 1), None) for face in range(1, 21)]
    tracks = {face: still_track(square, 1) for face, square in enumerate(squares, 1)}
    picture = np.full((360, 520, 3), 90, np.uint8)
    annotate_image(picture, result(records, tracks, 'image', frames=1))
    placed, cover = [rect for _, _, rect in found], np.zeros((360, 520), int)
    for x1, y1, x2, y2 in placed:
        cover[y1:y2, x1:x2] += 1
    assert cover.max() == 1 and len({x2 - x1 for x1, _, x2, _ in placed}) > 2
    assert np.min(placed) >= 0 and (np.max(placed, 0)[2:] <= (520, 360)).all()
    for (x, y, side, _), (x1, y1, x2, y2) in zip(squares, placed):
        assert not cover[y - 14 : y + 14, x - 14 : x + 14].any()  # eyes, nose and mouth
        reach = 0.7 * side + 1  # a label stands at its face
        assert x1 <= x + reach and x2 >= x - reach and y1 <= y + reach and y2 >= y - reach


def write_clip(path, times, sound=False):
    """A clip whose frame i is shown at times[i] (ms); with sound a transport stream."""
    with av.open(str(path), 'w', format='mpegts' if sound else 'mp4') as out:
        video = out.add_stream('libx264', rate=25)
        video.width, video.height, video.pix_fmt = 320, 240, 'yuv420p'
        video.options = dict(preset='ultrafast', crf='12', threads='1')
        video.codec_context.time_base = Fraction(1, 1000)
        if sound:
            audio = out.add_stream('aac', rate=RATE, layout='mono')
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(make_frame(i, 240, 320), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if sound:
            for frame in tone():
                out.mux(audio.encode(frame))
            out.mux(audio.encode())
    return str(path)


def tone():
    """A second of a tone, silent but for its second half."""
    t = np.arange(RATE) / RATE
    wave = np.where(t < 0.5, 0, 0.5 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)
    for start in range(0, len(wave), 1000):
        frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1000], 'fltp', 'mono')
        frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
        yield frame


def read(path):
    """Frames and times of a video."""
    with av.open(str(path)) as container:
        frames = [(f.to_ndarray(format='rgb24'), f.time) for f in container.decode(video=0)]
    images, times = zip(*frames)
    return images, np.array(times)


def start_of_tone(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([f.to_ndarray()[0].astype(float) for f in frames])  # of one channel
    loud = np.flatnonzero(np.abs(samples) > 0.2 * np.abs(samples).max())[0]
    return frames[0].time + loud / frames[0].sample_rate


def face_result(frames=8, **more):
    records = [record(0, 1, (0, frames // 2)), record(1, 1, (frames // 2, frames))]
    return result(records, {1: still_track((240, 150, 100, 0), frames)}, frames=frames, **more)


def has_color(image, label):
    return (np.abs(image.astype(int) - COLORS[label]).max(-1) < 12).sum() > 100


def test_frames_and_times_stay_and_records_change(tmp_path):
    times = [0, 40, 50, 300, 310, 700, 1500, 1540]
    src, dst = write_clip(tmp_path / 'a.mp4', times), tmp_path / 'b.mp4'
    annotate_video(src, str(dst), face_result())
    images, seconds = read(dst)
    assert seconds == pytest.approx(np.array(times) / 1000, abs=1e-4)
    assert [frame_number(image[:, :320]) for image in images] == list(range(8))
    for i, image in enumerate(images):
        assert image.shape[0] == 240 and image.shape[1] > 320
        assert has_color(image[:, 160:320], int(i >= 4))  # the box
        assert not has_color(image[:, 160:320], int(i < 4))
    content = dst.read_bytes()
    assert content.index(b'moov') < content.index(b'mdat')  # plays from the start


def test_sound_stays_in_time(tmp_path):
    src, dst = write_clip(tmp_path / 'a', range(0, 1000, 40), sound=True), tmp_path / 'b.mp4'
    annotate_video(src, str(dst), face_result(25))
    first = read(src)[1][0]  # a transport stream does not start at 0
    assert start_of_tone(dst) == pytest.approx(start_of_tone(src) - first, abs=0.03)


def test_overlapping_records_are_averaged():
    scores = drawing.scores_by_face(
        [record(0, 1, (2, 10)), record(1, 1, (6, 14)), record(1, 1, (18, 20)), record(2, 2)]
    )
    first, values = scores[1]
    assert first == 2 and values.shape == (18, 4) and list(scores) == [1, 2]
    assert values[4] == pytest.approx([0.4, 0.4, 0.1, 0.1])
    assert values[8] == pytest.approx([0.1, 0.7, 0.1, 0.1])
    assert np.isnan(values[12:16]).all() and not np.isnan(values[16:]).any()
