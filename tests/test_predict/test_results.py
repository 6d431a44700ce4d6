# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Records, their tables, and the lines that a terminal shows."""

import csv
import io

import numpy as np
import pytest
from made_up_results import record, result

from s4d_mm.apis import ExpressionRecord, ExpressionResult, MediaResult
from s4d_mm.predict.results import frame_weights


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
