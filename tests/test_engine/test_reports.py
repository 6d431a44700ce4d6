# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""What a run reports: experts, unreadable files, the last and the best epoch."""

import csv
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.hooks import Hook
from mmengine.runner import Runner
from runs import FINETUNE, config, run_ranks, short_config, train
from torch.utils.data import ConcatDataset, Dataset

from s4d_mm.datasets.faults import FaultLedger
from s4d_mm.engine import MediaFaultHook


# ------------------------------------------------------------------ experts
class Witness(Hook):
    """See what the router of layer 3 gives in each step; one expert of it is barred."""

    priority = 'LOWEST'

    def before_train(self, runner):
        router = runner.model.neck.routers()[3]
        router.gate.bias.data[2] = -1e4
        router.register_forward_hook(self.see)
        self.seen, self.steps = [], []

    def see(self, router, args, outputs):
        if router.training:
            self.seen.append((outputs.experts.clone(), outputs.probs.detach().double()))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.steps.append(data_batch['data_samples'][0].input_type)


def expected(modality, steps, seen):
    """Shares and entropy by the definition, over the tokens of all steps of a modality."""
    ids, probs = zip(*(s for s, kind in zip(seen, steps) if kind == modality))
    ids, probs = torch.cat(ids), torch.cat(probs)
    shares = F.one_hot(ids, probs.shape[1]).amax(1).double().mean(0)
    logs = torch.where(probs > 0, probs, 1.0).log()
    return shares.tolist(), float(-(probs * logs).sum(1).mean())


def test_a_training_logs_experts_and_warns_of_an_idle_one(quickstart, tmp_path):
    """The validation after it does not count."""
    cfg = short_config(FINETUNE, tmp_path, default_hooks__logger__interval=100)
    cfg.experiment_name = 'experts'  # a visualizer of its own
    runner, witness = Runner.from_cfg(cfg), Witness()
    runner.register_hook(witness)
    runner.train()
    with open(next(tmp_path.glob('*/vis_data/scalars.json'))) as f:
        lines = [json.loads(line) for line in f]
    (shares,) = [line for line in lines if 'moae/video/layer_3/expert_0' in line]
    assert shares['step'] == len(witness.steps) >= 5
    names = [*(f'expert_{i}' for i in range(4)), 'entropy']
    assert set(shares) == {'step'} | {
        f'moae/{kind}/layer_{layer}/{name}'
        for kind in ('video', 'image')
        for layer in (2, 3)
        for name in names
    }
    log = next(tmp_path.glob('*/*.log')).read_text()
    for kind in ('video', 'image'):
        experts, entropy = expected(kind, witness.steps, witness.seen)
        found = [shares[f'moae/{kind}/layer_3/expert_{i}'] for i in range(4)]
        assert found == pytest.approx(experts) and sum(found) == pytest.approx(2)
        assert found[2] == 0 and max(found) < 1
        assert shares[f'moae/{kind}/layer_3/entropy'] == pytest.approx(entropy, rel=1e-5)
        assert 0 < entropy < math.log(4)
        assert f'WARNING - Epoch 1: expert 2 of layer 3 got 0.00% of the {kind} tokens' in log
    assert log.count(' tokens (of 4 experts, under 1%)') == 2
    # the text has the extremes alone
    (text,) = re.findall(r'Epoch\(train\) .*', log)
    assert 'moae/video/min_share: 0.0000' in text and 'moae/image/max_share: ' in text
    assert 'layer_' not in text


# ------------------------------------------------------------------ unreadable files
class Files(Dataset):
    """What MediaFaultHook asks of a dataset."""

    INPUT_TYPE = 'video'
    test_mode = False

    def __init__(self, name, size=10):
        self.ann_file, self.faults, self.checked = name, FaultLedger(size), 0

    def __len__(self):
        return len(self.faults.marks)

    def get_data_info(self, index):
        return dict(sample_id=f'{index}', filename=f'{self.ann_file}/{index}.mp4')

    def check_faults(self):
        self.checked += 1


def test_unreadable_files_of_two_processes(tmp_path):
    """Both know the faults of both, also of datasets in wrappers; one of them writes."""

    def report_a_part():
        rank, lines, dataset = torch.distributed.get_rank(), [], Files('set')
        dataset.faults.add(5)
        dataset.faults.add(rank)
        wrapped = SimpleNamespace(dataset=ConcatDataset([Files('whole'), dataset]))
        logger, loader = SimpleNamespace(warning=lines.append), SimpleNamespace(dataset=wrapped)
        runner = SimpleNamespace(work_dir='.', rank=rank, logger=logger, train_dataloader=loader)
        MediaFaultHook().after_train_epoch(runner)
        return [lines, dataset.faults.indices(), dataset.checked]

    first, second = run_ranks(report_a_part, tmp_path)
    assert first == second
    lines, indices, checked = first
    assert [line.split(' samples')[0] for line in lines] == ['0 of 10 video', '3 of 10 video']
    assert indices == [0, 1, 5] and checked == 1
    with open(tmp_path / 'unreadable.csv', newline='') as f:
        rows = list(csv.reader(f))
    assert rows[:2] == [['ann_file', 'sample_id', 'path'], ['set', '0', 'set/0.mp4']]
    assert [row[1] for row in rows[1:]] == ['0', '1', '5']


# ------------------------------------------------------------------ the last and the best epoch
def run_with(folder, scores, epochs=None, save_best='WAR', **options):
    """Train with these WAR of the epochs; ``summary.json``, and the text in the log."""
    files = dict(dataset=dict(type='TinyDataset', size=6), ann_file='test.csv')
    cfg = config(
        folder,
        epochs or len(scores),
        scores=scores,
        save=dict(save_best=save_best, rule='greater') if save_best else {},
        **options,
    )
    cfg.test_dataloader = files
    cfg.test_cfg, cfg.test_evaluator = dict(), dict(type='TinyMetric')
    cfg.custom_hooks.append(dict(type='BestAndLastHook'))
    train(cfg)
    return json.loads((folder / 'summary.json').read_text())


BEST = 'best on the test split'


def test_the_first_of_the_highest(tmp_path, capsys):
    summary = run_with(tmp_path / 'run', [30.0, 50.0, 50.0, 40.0])
    assert summary == {
        'chosen_by': 'WAR',
        'last': dict(epoch=4, checkpoint='epoch_4.pth', metrics=dict(WAR=40.0)),
        BEST: dict(epoch=2, checkpoint='best_WAR_epoch_2.pth', metrics=dict(WAR=50.0)),
    }
    assert [p.name for p in (tmp_path / 'run').glob('best*')] == ['best_WAR_epoch_2.pth']
    out = capsys.readouterr().out
    assert '  last: epoch 4, WAR 40.00, epoch_4.pth\n' in out
    assert f'  {BEST}: epoch 2, WAR 50.00, best_WAR_epoch_2.pth\n' in out


@pytest.mark.parametrize('best_epoch', [1, 2])
def test_a_resumed_run_knows_the_best(best_epoch, tmp_path):
    """Also if the best epoch was the one whose checkpoint is resumed."""
    scores = [20.0, 20.0]
    scores[best_epoch - 1] = 60.0
    folder = tmp_path / 'run'
    run_with(folder, scores)
    summary = run_with(folder, [10.0], epochs=3, resume=True)
    assert summary['last']['epoch'] == 3
    best = summary[BEST]
    assert (best['epoch'], best['metrics']['WAR']) == (best_epoch, 60.0)
    assert [p.name for p in folder.glob('best*')] == [best['checkpoint']]
    # nothing is validated any more: the file stays, or says what is not known
    assert run_with(folder, [0.0], epochs=3, resume=True) == summary
    (folder / 'summary.json').unlink()
    again = run_with(folder, [0.0], epochs=3, resume=True)
    assert again[BEST] == summary[BEST]


def test_no_best_checkpoint(tmp_path):
    summary = run_with(tmp_path / 'run', [30.0, 20.0], save_best=None)
    assert summary['chosen_by'] == 'WAR'
    assert summary[BEST]['epoch'] == 1 and summary[BEST]['checkpoint'] is None
