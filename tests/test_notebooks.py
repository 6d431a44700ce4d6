# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""The notebooks run from top to bottom, with fewer faces and epochs than they show."""

import os.path as osp
import re
from pathlib import Path

import pytest
from helpers import ROOT

nbformat = pytest.importorskip('nbformat')
nbclient = pytest.importorskip('nbclient')
pytest.importorskip('ipykernel')
NOTEBOOKS = [
    Path(ROOT, 'docs', 'notebooks', f'{name}.ipynb')
    for name in ('inside_moae', 'zero_to_prediction')
]


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv('S4D_NOTEBOOK_SMALL', '1')
    monkeypatch.setenv('S4D_NOTEBOOK_DIR', str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources=dict(metadata=dict(path=osp.dirname(path)))
    ).execute()
    outputs = [o for cell in notebook.cells if cell.cell_type == 'code' for o in cell.outputs]
    assert sum('image/png' in o.get('data', {}) for o in outputs) == 2
    assert not [o for o in outputs if o.output_type == 'error']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_saved_with_its_pictures_and_is_small(path):
    assert path.stat().st_size < 300_000
    notebook = nbformat.read(path, as_version=4)
    outputs = [o for cell in notebook.cells if cell.cell_type == 'code' for o in cell.outputs]
    assert sum('image/png' in o.get('data', {}) for o in outputs) == 2
    text = ''.join(o.get('text', '') for o in outputs)
    clips, images = map(float, re.findall(r'(?:video|image)/WAR ([\d.]+)', text))
    assert clips > 60 and images > 70  # chance is 14
    answers = re.findall(r'drawn: (\w+) +predicted: (\w+)', text)
    if path.stem == 'zero_to_prediction':
        assert sum(drawn == predicted for drawn, predicted in answers) >= 5 and len(answers) == 7
        assert answers[0][0] == answers[0][1]  # the one whose picture is shown
