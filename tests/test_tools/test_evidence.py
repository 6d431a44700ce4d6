# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/evidence.py and configs/evidence."""

import json
import os
from pathlib import Path

import evidence
import evidence_report
import numpy as np
import pytest
import yaml
from evidence import Job
from helpers import write_text
from mmengine.runner import Runner

PLAN = yaml.safe_load((evidence.CONFIGS / 'rows.yml').read_text())
ROWS = [(table, row) for table, own in PLAN['tables'].items() for row in own['rows']]


def test_all_names_of_the_plan_exist_and_are_used():
    used = set()
    for table, name in ROWS:
        rows = PLAN['tables'][table]['rows']
        row, above = rows[name], list(rows)[: list(rows).index(name)]
        used.update(row.get('use', ()))
        for key in {'from', 'weights', 'against'} & set(row):
            assert row[key] in above, (name, key)  # a training begins after those above it
        if row.get('core') and 'from' in row:
            assert rows[row['from']]['core']
    assert used == set(PLAN['changes'])
    for claim in PLAN['claims']:
        assert all((claim['table'], row) in ROWS for row in claim['rows'])
        assert claim['by'] in ('video', 'image') and claim['side'] in ('above', 'below')


def test_rows_of_a_table_have_equal_numbers_of_steps(quickstart_data, tmp_path, monkeypatch):
    """1,440 and 1,120 of drawn faces, 560 + 560 of rendered people."""
    monkeypatch.setenv('EVIDENCE_DIR', str(tmp_path))
    counts = dict(drawn_faces=(2240, 8960), rendered_people=(896, 25585))
    expected = {'drawn_faces.py': 1440, 'drawn_faces_pretrain.py': 1120}
    for table, row in ROWS:
        cfg = evidence.config_of(PLAN, Job(table, row, 0), False)
        loader = cfg.train_dataloader
        for modality, count in zip(('video', 'image'), counts[table]):
            part = loader.dataset.get(modality)
            if part:  # lists of the right lengths, of files that are not read
                names = [f'{i:06d} 0' for i in range(count)]
                path = write_text(str(tmp_path / f'{table}_{modality}.txt'), *names)
                part.update(ann_file=path, data_root='', data_prefix={}, pipeline=[])
        steps = len(Runner.build_dataloader(loader, seed=0)) * cfg.train_cfg.max_epochs
        config = PLAN['tables'][table]['rows'][row].get('config', PLAN['tables'][table]['config'])
        assert steps == expected.get(config, 560), row


def write_predictions(out, table, row, seed, video, image):
    samples = [
        dict(sample_id=f'{kind}{i}', input_type=kind, gt_label=[0], pred_label=[int(not hit)])
        for kind, hits in (('video', video), ('image', image))
        for i, hit in enumerate(hits)
    ]
    for sample in samples:
        sample['pred_score'] = [0.0, 1.0] if sample['pred_label'][0] else [1.0, 0.0]
    path = out / Job(table, row, seed).name / 'predictions.json'
    write_text(str(path), json.dumps(samples[::-1] if seed else samples))


def test_tables_and_claims_of_made_up_predictions(tmp_path):
    """A claim stands, is refuted or open by its interval; what was not run is named."""
    some = np.tile([1, 0, 1, 1], 50)  # 75 %
    for seed in (0, 1):
        write_predictions(tmp_path, 'drawn_faces', 'clips', seed, some, some)
        write_predictions(tmp_path, 'drawn_faces', 'joint', seed, some, some)
        write_predictions(tmp_path, 'drawn_faces', 'moae', seed, np.ones(200), some)
    results = evidence_report.Results(str(tmp_path), PLAN, (0, 1, 2))
    middle, low, high = results.difference('drawn_faces', 'moae', 'clips', 'video')
    assert (middle, low > 15, high < 35) == (25.0, True, True)
    assert results.difference('drawn_faces', 'joint', 'clips', 'video') == (0, 0, 0)
    assert results.difference('drawn_faces', 'joint', 'clips', 'image') is None  # never trained
    rows = {
        line.split('`')[1]: line.split(' | ')
        for line in results.table('drawn_faces').split('\n')
        if '`' in line
    }
    assert rows['clips'][1:3] == ['75.0 (75.0 to 75.0)', '-']
    assert rows['moae'][1] == '100.0 (100.0 to 100.0)' and rows['moae'][5].startswith('+0.0')
    assert rows['s4d'][1] == 'not run' and rows['s4d'][4] == '-'
    claims = results.claims().split('\n')
    assert claims[2].endswith('| stands |') and claims[3].endswith('| not run |')
    assert [evidence_report.judge(d, 'below') for d in ((1, 0.5, 2), (0, -1, 1), (-2, -3, -1))] == [
        'refuted',
        'open',
        'stands',
    ]


def test_a_row_is_trained_tested_and_kept(quickstart_data, tmp_path, monkeypatch):
    """In processes; the second call does nothing, and one with other settings is refused."""
    out, drawn = str(tmp_path), tmp_path / 'drawn_faces'
    monkeypatch.setenv('EVIDENCE_DIR', out)
    drawn.mkdir()
    os.symlink(quickstart_data / 'data', drawn / 'data')
    evidence.read_drawn_faces(str(drawn))
    lines = (drawn / 'annotations' / 'frames_train.txt').read_text().splitlines()
    name, label = lines[0].split()
    assert (drawn / 'frames' / name).is_file() and len(lines) % 8 == 0
    jobs = [Job('drawn_faces', 'clips', 0)]
    evidence.write_configs(jobs, PLAN, out, True)
    assert evidence.run_all(jobs, PLAN, out) == {}
    folder = tmp_path / jobs[0].name
    before = {path: path.stat().st_mtime_ns for path in folder.rglob('*.json')}
    assert len(json.loads((folder / 'predictions.json').read_text())) == 14
    assert evidence.run_all(jobs, PLAN, out) == {}
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob('*.json')}
    with pytest.raises(ValueError, match='clips.py is of other settings'):
        evidence.write_configs(jobs, PLAN, out, False)


def test_a_page_without_marks_is_refused(tmp_path, capsys):
    page = tmp_path / 'page.md'
    page.write_text('nothing here')
    with pytest.raises(SystemExit):
        evidence.main(['--out', str(tmp_path / 'out'), '--page', str(page)])
    assert str(page) in capsys.readouterr().err and not (tmp_path / 'out').exists()
    assert Path(page).read_text() == 'nothing here'
