# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The lines that a terminal shows."""

from s4d_mm.apis.report import label_parts, report_lines
from s4d_mm.apis.results import ExpressionRecord, MediaResult


def record(label, start, end, face=1, media='a.mp4', share=0.7):
    other = 'fear' if label != 'fear' else 'anger'
    times = (None, None, 0, 1) if start is None else (start / 25, end / 25, start, end)
    return ExpressionRecord(
        media, face, *times, None, label, {label: share, other: 0.9 - share, 'neutral': 0.1}
    )


def test_one_line_for_a_face_of_one_label():
    result = MediaResult('a.mp4', 'video', records=[record('happiness', 0, 72)])
    assert report_lines(result) == ['a.mp4  face 1  0.0-2.9 s  happiness 70 %  (then fear 20 %)']


def test_two_lines_for_a_face_that_changes():
    records = [record('happiness', 0, 50), record('surprise', 50, 75, share=0.6)]
    records += [record('fear', 25, 50, face=2)]
    assert report_lines(MediaResult('a.mp4', 'video', records=records)) == [
        'a.mp4  face 1  0.0-3.0 s  happiness 67 %  (then fear 23 %)',
        '    in turn: happiness 0.0-2.0 s, surprise 2.0-3.0 s',
        'a.mp4  face 2  1.0-2.0 s  fear 70 %  (then anger 20 %)',
    ]


def test_parts_do_not_overlap_and_many_are_cut_short():
    names = ['happiness', 'happiness', 'fear']
    overlapping = [record(n, 25 * i, 25 * i + 50) for i, n in enumerate(names)]
    assert label_parts(overlapping) == [('happiness', 0, 2), ('fear', 2, 4)]
    many = [record(names[1 + i % 2], 25 * i, 25 * i + 25) for i in range(8)]
    line = report_lines(MediaResult('a.mp4', 'video', records=many))[1]
    assert line.count(' s') == 5 and line.endswith(', and 3 more')


def test_images_and_pictures_that_are_cut_already():
    result = MediaResult('a.jpg', 'image', records=[record('fear', None, None, None, 'a.jpg')])
    assert report_lines(result) == ['a.jpg  fear 70 %  (then anger 20 %)']


def test_no_face():
    (line,) = report_lines(MediaResult('a.mp4', 'video', status='no_face'))
    assert line.startswith('no face found in a.mp4 (try --faces none')
