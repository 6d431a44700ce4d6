# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
import numpy as np
import pytest
from made_up_results import record, result

from s4d_mm.media import read_image
from s4d_mm.visualization import plot_timeline
from s4d_mm.visualization.colors import class_color
from s4d_mm.visualization.pieces import face_pieces
from s4d_mm.visualization.timeline import clock, draw_timeline, visible_pieces


def plot(tmp_path, *args, **kwargs):
    plot_timeline(result(*args, **kwargs), str(tmp_path / 'plot.png'))
    assert [p.name for p in tmp_path.iterdir()] == ['plot.png']
    return read_image(str(tmp_path / 'plot.png'))


def columns_of(image, label):
    """Share of the pixels of a class in each column, left of the legend."""
    return (image[:, :970] == class_color(label)).all(-1).mean(0)


def texts(figure):
    axes = [text.get_text() for a in figure.axes for text in a.texts]
    return [text.get_text() for text in figure.texts] + axes


def test_probabilities_stand_where_they_hold(tmp_path):
    image = plot(tmp_path, [record(0, frames=(0, 8)), record(1, frames=(8, 16))], frames=16)
    first, second = columns_of(image, 0), columns_of(image, 1)
    left, right = slice(115, 500), slice(560, 960)
    assert first[left].mean() > 3 * first[right].mean() > 0
    assert second[right].mean() > 3 * second[left].mean() > 0


def test_gap_is_blank(tmp_path):
    records = [record(0, frames=(0, 4)), record(0, frames=(12, 16))]
    image = plot(tmp_path, records, frames=16)
    assert columns_of(image, 0)[115:310].min() > 0.3
    assert columns_of(image, 0)[330:745].max() == 0


def test_faces_have_a_panel_each():
    figure = draw_timeline(result([record(0, 1), record(1, 2)]))
    assert [a.get_ylabel() for a in figure.axes if a.get_ylabel()] == ['face 1', 'face 2']
    assert texts(figure) == ['clip.mp4', 'happiness', 'sadness']
    assert figure.axes[-1].get_xlabel() == 'time (s)'
    figure = draw_timeline(result([record(0)], trained_on='drawn faces'))
    assert 'trained on drawn faces' in texts(figure)


def test_faces_that_are_there_longest():
    records = [record(0, face, (0, 10 * face)) for face in range(1, 10)]
    figure = draw_timeline(result(records, frames=90))
    assert '(6 of 9 faces' in texts(figure)[0]
    labels = [a.get_ylabel() for a in figure.axes if a.get_ylabel()]
    assert labels == [f'face {i}' for i in range(4, 10)]


def test_an_hour_is_averaged():
    records = [record(i % 2, frames=(i * 8, i * 8 + 8)) for i in range(3601)]
    figure = draw_timeline(result(records, frames=8 * 3601))
    assert figure.axes[-1].get_xlabel() == 'time (h:min:s), means of 15 s'
    pieces = face_pieces(records)
    edges, scores = visible_pieces(pieces, 0, 3601)
    weights = np.diff(edges)
    total = np.diff(pieces.seconds) @ pieces.scores
    assert len(scores) == 240
    assert weights @ scores == pytest.approx(total)


def test_averages_keep_gaps():
    records = [record(0, frames=(i * 8, i * 8 + 8)) for i in range(1000) if not 300 <= i < 600]
    edges, scores = visible_pieces(face_pieces(records), 0, 1000)
    there = ~np.isnan(scores[:, 0])
    assert np.diff(edges)[there].sum() == pytest.approx(700, abs=5)
    assert scores[there][:, 0] == pytest.approx(0.7)


def test_image_has_bars(tmp_path):
    image = plot(tmp_path, [record(2, 1, (0, 1), None)], kind='image', frames=1)
    # axes of 1056 pixels
    assert (image == class_color(2)).all(-1).sum(1).max() == pytest.approx(0.7 * 1056, abs=8)


def test_empty_result_says_why():
    figure = draw_timeline(result([], status='no_face', message='No face in 8 frames.'))
    assert texts(figure) == ['No face in 8 frames.', 'clip.mp4']


def test_names_are_no_formulas(tmp_path):
    classes = ('$x', '_happy', 'Glück', '悲伤')
    plot(tmp_path, [record(0, classes=classes, media='a/$5 and $6_.mp4')])
    figure = draw_timeline(result([record(0, classes=classes)]))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(classes[::-1])


def test_clock():
    assert clock(75, hours=False) == '1:15'
    assert clock(3675, hours=True) == '1:01:15'


def test_failure_leaves_nothing(tmp_path):
    (tmp_path / 'plot.png').mkdir()  # cannot be replaced by a file
    with pytest.raises(OSError, match=r'plot\.png'):
        plot_timeline(result([record(0)]), str(tmp_path / 'plot.png'))
    assert [p.name for p in tmp_path.iterdir()] == ['plot.png']
