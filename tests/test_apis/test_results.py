# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
import csv
import io

from made_up_results import record, result

from s4d_mm.apis import ExpressionResult


def test_a_spreadsheet_computes_no_cell():
    names = ['=1+1.mp4', '+1.mp4', '-x.mp4', '@x.mp4', '\t=1.mp4', 'a=1.mp4']
    media = [result([record(0, classes=('=a', 'b'), media=name)]) for name in names]
    rows = list(csv.reader(io.StringIO(ExpressionResult(media).to_csv())))
    assert rows[0][-3:] == ['label', "'=a", 'b']
    assert [row[0] for row in rows[1:]] == [*(f"'{name}" for name in names[:-1]), names[-1]]
    assert rows[1][-3:] == ["'=a", '0.7', '0.3']


def test_numbers_stay_numbers():
    found = record(0)._replace(box=(-0.5, 1.0, 2.0, 3.125))
    rows = list(csv.DictReader(io.StringIO(ExpressionResult([result([found])]).to_csv())))
    assert [rows[0][k] for k in ('x1', 'y1', 'x2', 'y2')] == ['-0.5', '1.0', '2.0', '3.12']
