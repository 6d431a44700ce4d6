# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Hooks: what they refuse before a run, and what they report of it."""

import copy
import csv
import json
import logging
import os.path as osp
from types import SimpleNamespace

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner, loops
from processes import run_ranks
from small_models import FINETUNE, build
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from s4d_mm.datasets.media_faults import FaultLedger
from s4d_mm.engine import (
    BestAndLastHook,
    CheckpointFitHook,
    ClassCheckHook,
    CpuFallbackAmpOptimWrapper,
    MediaFaultHook,
    RunSummaryHook,
    amp,
)
from s4d_mm.engine.hooks.run_summary_hook import count_millions, precision

SEVEN, TURNED = tuple('abcdefg'), tuple('gfedcba')


def loader(classes, input_type=None):
    dataset = SimpleNamespace(metainfo=dict(classes=classes), INPUT_TYPE=input_type)
    return SimpleNamespace(dataset=dataset)


def runner(num_classes, train, val=None, blending=None, input_type=None):
    return SimpleNamespace(
        model=SimpleNamespace(
            cls_head=SimpleNamespace(num_classes=num_classes),
            data_preprocessor=SimpleNamespace(blending=blending or {}),
        ),
        train_dataloader=loader(train, input_type),
        val_loop=None if val is None else object(),
        val_dataloader=loader(val, input_type),
    )


def begin(fake, begun, dataset=None):
    """Give a runner its loops, which are configs until the run begins them."""
    for name, loop in dict(
        train=loops.EpochBasedTrainLoop, val=loops.ValLoop, test=loops.TestLoop
    ).items():
        value = loop.__new__(loop) if name in begun else dict(type=loop.__name__)
        if name in begun:
            value.dataloader = SimpleNamespace(dataset=dataset)
        setattr(fake, f'_{name}_loop', value)


class TestClassCheck:
    def test_training_data(self):
        hook = ClassCheckHook()
        both, data = dict(video=7, image=7), dict(video=SEVEN, image=SEVEN)
        hook.before_train(runner(both, data))
        hook.before_train(runner(both, SEVEN, input_type='video'))
        hook.before_train(runner(7, SEVEN, val=SEVEN))
        hook.before_train(runner(7, None))  # data without classes, as in pre-training
        with pytest.raises(ValueError, match='train_dataloader has 7 video class'):
            hook.before_train(runner(dict(video=11, image=7), data))
        with pytest.raises(ValueError, match="Add 'image' to model.cls_head.num"):
            hook.before_train(runner(dict(video=7), data))
        for num_classes in (6, 8):  # neither too few nor too many
            with pytest.raises(ValueError, match=f'7 .* classes.* is {num_classes}. Make them'):
                hook.before_train(runner(num_classes, SEVEN))

    def test_total_batch(self):
        """A run of another tool, which does not copy accumulative_counts or scales by itself."""

        def start(counts, parts, total=8, **cfg):
            fake = runner(7, SEVEN)
            sampler = SimpleNamespace(total_batch_size=total, accumulative_counts=parts)
            fake.train_dataloader.batch_sampler = sampler
            fake.optim_wrapper = SimpleNamespace(_accumulative_counts=counts)
            fake.cfg = dict(cfg)
            ClassCheckHook().before_train(fake)

        for counts, parts in [(4, 1), (1, 4), (2, 4)]:
            with pytest.raises(ValueError, match=f'counts is {counts}, but .* is {parts}, so that'):
                start(counts, parts)
            start(counts, parts, total=None)
            start(parts, parts)
        with pytest.raises(ValueError, match='auto_scale_lr.enable=True .*tools/train.py'):
            start(1, 1, auto_scale_lr=dict(enable=True))
        start(1, 1, auto_scale_lr=dict(enable=False))
        start(1, 1, total=None, auto_scale_lr=dict(enable=True))

    def test_validation_data_before_training(self):
        with pytest.raises(ValueError, match='val_dataloader has 6 '):
            ClassCheckHook().before_train(runner(7, SEVEN, val=SEVEN[:6]))

    @pytest.mark.parametrize('split', ['val', 'test'])
    def test_data_of_a_run_without_training(self, split):
        fake = runner(7, None)
        setattr(fake, f'{split}_dataloader', loader(SEVEN[:6]))
        with pytest.raises(ValueError, match=f'{split}_dataloader has 6 '):
            getattr(ClassCheckHook(), f'before_{split}')(fake)

    @pytest.mark.parametrize('modality', ['image', 'video'])
    def test_blending(self, modality):
        init_default_scope('mmaction')
        blending = MODELS.build(
            dict(
                type='RandomBatchAugment',
                augments=[
                    dict(type='MixupBlending', num_classes=7, alpha=0.8),
                    dict(type='CutmixBlending', num_classes=8, alpha=1.0),
                ],
            )
        )
        fake = runner(
            dict(video=7, image=7),
            dict(video=SEVEN, image=SEVEN),
            blending={modality: blending},
        )
        message = f'7 {modality} classes.*blending.{modality}: CutmixBlending.num_cl'
        with pytest.raises(ValueError, match=message):
            ClassCheckHook().before_train(fake)
        # only one modality is blended: the other has no number to agree with
        blending.augments[1].num_classes = 7
        ClassCheckHook().before_train(fake)

    @pytest.mark.parametrize(
        'head, fits',
        [
            (dict(type='TimeSformerHead', num_classes=7, in_channels=16), False),
            (dict(type='DualModalHead', num_classes=dict(video=7), in_channels=16), True),
        ],
    )
    def test_packed_views_need_a_head_that_knows_them(self, head, fits):
        """mmaction2's heads would average a view with those of another clip."""
        init_default_scope('mmaction')
        fake = runner(7, SEVEN, input_type='video')
        fake.model = SimpleNamespace(
            cls_head=MODELS.build(head),
            data_preprocessor=SimpleNamespace(pack_views=True, blending={}),
        )
        if fits:
            ClassCheckHook().before_train(fake)
        else:
            with pytest.raises(ValueError, match='pack_views=True needs Dual'):
                ClassCheckHook().before_train(fake)

    @pytest.mark.parametrize(
        'begun, checked',
        [
            (('train',), False),  # may start from another head
            (('train', 'val'), False),
            (('val',), True),
            (('test',), True),
        ],
    )
    def test_checkpoint_of_testing_has_the_head(self, begun, checked):
        fake = SimpleNamespace(model=build(FINETUNE), _resume=False)
        begin(fake, begun)
        weights = {k: v for k, v in fake.model.state_dict().items() if 'cls_head' not in k}
        if checked:
            with pytest.raises(ValueError, match='has no cls_head.*cannot predict'):
                ClassCheckHook().after_load_checkpoint(fake, dict(state_dict=weights))
        else:
            ClassCheckHook().after_load_checkpoint(fake, dict(state_dict=weights))

    @pytest.mark.parametrize('begun', [('test',), ('val',), ('train', 'val')])
    @pytest.mark.parametrize(
        'theirs, data, fits',
        [
            (dict(video=SEVEN, image=TURNED), dict(video=SEVEN, image=TURNED), True),
            (dict(video=SEVEN, image=TURNED), dict(video=SEVEN, image=SEVEN), False),
            (dict(video=list(SEVEN), image=TURNED), SEVEN, True),  # the video set alone
            (dict(video=SEVEN, image=SEVEN), TURNED, False),
            (dict(image=SEVEN), TURNED, True),  # nothing is said of videos
            (SEVEN, SEVEN, True),
            (SEVEN, TURNED, False),
            (SEVEN, ('A', *SEVEN[1:]), False),
            (SEVEN, None, True),
            (SEVEN, (), True),
            (None, SEVEN, True),
            ((), SEVEN, True),
        ],
    )
    def test_classes_of_the_checkpoint(self, begun, theirs, data, fits):
        """By name and order, in testing, validation and a training that is resumed."""
        fake = SimpleNamespace(model=SimpleNamespace(), _resume=True)
        begin(fake, begun, loader(data, 'video').dataset)
        checkpoint = dict(state_dict={}, meta=dict(dataset_meta=dict(classes=theirs)))
        hook = ClassCheckHook()
        if fits:
            hook.after_load_checkpoint(fake, checkpoint)
            return
        with pytest.raises(ValueError) as error:
            hook.after_load_checkpoint(fake, checkpoint)
        lines = str(error.value).split('\n')
        assert f'{begun[0]}_dataloader' in lines[0] and 'the checkpoint' in lines[0]
        names = data if isinstance(data, tuple) else data['image']
        assert ('another order' in lines[0]) == (set(names) == set(SEVEN))
        assert lines[2].endswith(': ' + ', '.join(names)) and 'label_map' in lines[3]
        if begun[0] == 'train':  # one that only starts from a checkpoint may have others
            fake._resume = False
            hook.after_load_checkpoint(fake, checkpoint)

    @pytest.mark.parametrize('checkpoint', [{}, dict(meta={}), dict(meta=None)])
    def test_checkpoint_that_says_nothing_of_classes(self, checkpoint):
        fake = SimpleNamespace(model=SimpleNamespace())
        begin(fake, ('test',), loader(SEVEN).dataset)
        ClassCheckHook().after_load_checkpoint(fake, dict(state_dict={}, **checkpoint))
        begin(fake, ())  # outside of a run
        ClassCheckHook().after_load_checkpoint(fake, checkpoint)

    def test_validation_data_have_the_order_of_the_training_data(self):
        both = dict(video=7, image=7)
        data = dict(video=SEVEN, image=TURNED)
        ClassCheckHook().before_train(runner(both, data, data))
        with pytest.raises(ValueError, match='val_.*image classes than train_.*another order'):
            ClassCheckHook().before_train(runner(both, data, dict(image=SEVEN)))


class TestCheckpointFit:
    def runner(self, model, lines=None, resume=False):
        logger = logging.Logger('test')
        logger.addHandler(logging.NullHandler())
        if lines is not None:
            logger.addFilter(lambda record: lines.append(record.getMessage()))
        return SimpleNamespace(model=model, logger=logger, _resume=resume, _load_from='start.pth')

    def test_what_fits_is_logged_and_nothing_is_loaded(self):
        model, lines = build(FINETUNE), []
        before = copy.deepcopy(model.state_dict())
        weights = build(FINETUNE, seed=9).state_dict()
        CheckpointFitHook().after_load_checkpoint(
            self.runner(model, lines), dict(state_dict=weights)
        )
        assert lines[0].startswith(f'{len(weights)} of {len(weights)} tensors')
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_nothing_fits(self):
        with pytest.raises(ValueError, match='none finds a place in DualModalRecognizer'):
            CheckpointFitHook().after_load_checkpoint(
                self.runner(build(FINETUNE)), dict(state_dict={'x.weight': torch.ones(1)}, meta={})
            )

    def test_weights_alone_are_no_training_to_resume(self):
        model = build(FINETUNE)
        fake, content = self.runner(model, resume=True), dict(state_dict=model.state_dict())
        for meta in ({}, dict(meta=dict(family='S4D, pretrain'))):
            with pytest.raises(ValueError, match='no state of a training.*load_from=CHECKPOINT'):
                CheckpointFitHook().after_load_checkpoint(fake, dict(content, **meta))
        CheckpointFitHook().after_load_checkpoint(fake, dict(content, meta=dict(epoch=0)))

    def test_the_recipes_have_it_before_the_check_of_the_head(self):
        runtime = Config.fromfile(osp.join(ROOT, 'configs/_base_/default_runtime.py'))
        kinds = [hook.type for hook in runtime.custom_hooks]
        assert kinds.index('CheckpointFitHook') < kinds.index('ClassCheckHook')


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


class TestMediaFaults:
    def report(self, dataset, folder, rank=0, stage='train_epoch'):
        lines = []
        fake = SimpleNamespace(
            work_dir=str(folder), rank=rank, logger=SimpleNamespace(warning=lines.append)
        )
        name = 'test' if 'test' in stage else 'train'
        setattr(fake, f'{name}_dataloader', SimpleNamespace(dataset=dataset))
        hook = MediaFaultHook()
        getattr(hook, f'after_{stage}')(fake)
        return lines

    @pytest.mark.parametrize('stage', ['train_epoch', 'train', 'test_epoch'])
    def test_datasets_in_wrappers(self, stage, tmp_path):
        whole, broken = Files('whole'), Files('broken')
        broken.faults.add(3)
        wrapped = SimpleNamespace(dataset=ConcatDataset([whole, broken]))
        lines = self.report(wrapped, tmp_path, stage=stage)
        assert [line.split(' samples')[0] for line in lines] == ['0 of 10 video', '1 of 10 video']
        with open(tmp_path / 'unreadable.csv', newline='') as f:
            rows = list(csv.reader(f))
        assert rows == [['ann_file', 'sample_id', 'path'], ['broken', '3', 'broken/3.mp4']]

    def test_silent_without_faults(self, tmp_path):
        assert self.report(Files('whole'), tmp_path) == []
        assert not (tmp_path / 'unreadable.csv').exists()

    def test_only_training_stops(self, tmp_path):
        """In testing an unreadable sample is an error, or wrong by intention."""
        train, test = Files('train'), Files('test')
        test.test_mode = True
        for dataset in (train, test):
            dataset.faults.add(0)
            self.report(dataset, tmp_path)
        assert (train.checked, test.checked) == (1, 0)

    def test_two_processes(self, tmp_path):
        """Both know the faults of both, a shared one counts once, and one of them writes."""

        def report_a_part():
            rank = torch.distributed.get_rank()
            dataset = Files('set')
            dataset.faults.add(5)
            dataset.faults.add(rank)
            for _ in range(2):  # the second time nothing is added
                lines = self.report(dataset, '.', rank)
            return [lines, dataset.faults.indices(), dataset.faults.share(), dataset.checked]

        first, second = run_ranks(report_a_part, tmp_path)
        assert first == second
        lines, indices, share, checked = first
        assert '3 of 10 video' in lines[0]
        assert indices == [0, 1, 5]
        assert share == pytest.approx(0.3)
        assert checked == 2
        with open(tmp_path / 'unreadable.csv', newline='') as f:
            assert [row[1] for row in csv.reader(f)][1:] == ['0', '1', '5']

    def test_other_processes_do_not_write(self, tmp_path):
        dataset = Files('set')
        dataset.faults.add(0)
        assert len(self.report(dataset, tmp_path, rank=1)) == 1
        assert not (tmp_path / 'unreadable.csv').exists()


class TestRunSummary:
    def test_parameters(self):
        whole = nn.Linear(1000, 1000, bias=False)
        assert count_millions(whole.parameters()) == '1.00M'

    def test_frozen_parts_are_told_apart(self):
        model = nn.Sequential(nn.Linear(1000, 1000), nn.Linear(1000, 500), nn.ReLU())
        model[0].requires_grad_(False)
        lines = []
        data = DataLoader(range(12), batch_size=4)
        RunSummaryHook().before_test(
            SimpleNamespace(
                model=model,
                world_size=1,
                work_dir='work_dirs/run',
                test_dataloader=data,
                logger=SimpleNamespace(info=lines.append, log_file='run.log'),
            )
        )
        (table,) = lines
        assert '1.50M parameters (0.50M trained): 0 1.00M, 1 0.50M\n' in table
        assert '12 samples, 3 batches of 4 per process' in table
        assert 'work_dirs/run' in table and 'run.log' in table

    def test_precision(self, monkeypatch):
        optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)
        assert precision(OptimWrapper(optimizer)) == 'float32'
        monkeypatch.setattr(amp, 'get_device', lambda: 'cpu')
        for has_bfloat16, text in (
            (False, 'float32'),
            (True, 'bfloat16 where torch allows it, without a loss scale'),
        ):
            monkeypatch.setattr(amp, 'cpu_has_bfloat16', lambda has=has_bfloat16: has)
            assert precision(CpuFallbackAmpOptimWrapper(optimizer=optimizer)) == text


class TestBestAndLast:
    """Runs of mmengine's Runner in which the metrics of each epoch are given."""

    FILES = dict(dataset=dict(ann_file='test.csv'))

    def run(self, folder, war, name='video/WAR', epochs=None, save_best='video/WAR', **options):
        """Train, epoch by epoch with these WAR, and stop after the last of them.

        Returns:
            tuple: ``summary.json`` (None if there is none), and the texts in the log.
        """

        class Model(BaseModel):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.zeros(1))

            def forward(self, inputs=None, **kwargs):
                return dict(loss=self.weight.sum()) if self.training else [{}]

        class Given(BaseMetric):
            def process(self, data_batch, data_samples):
                self.results = [0]

            def compute_metrics(self, results):
                return {name: war[self_runner.epoch - 1], 'image/recall/WAR': 1.0}

        class Stop(Hook):
            priority = 'LOWEST'

            def after_val_epoch(self, runner, metrics=None):
                if runner.epoch == len(war):
                    runner.train_loop.stop_training = True

        loader = dict(
            dataset=[dict(inputs=torch.zeros(1))] * 2,
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        )
        epochs = epochs or len(war)
        checkpoint = dict(
            type='SafeCheckpointHook', interval=1, save_best=save_best, rule='greater'
        )
        self_runner = Runner(
            Model(),
            str(folder),
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            val_cfg=dict(),
            val_evaluator=Evaluator(Given()),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=checkpoint),
            custom_hooks=[BestAndLastHook(), Stop()],
            experiment_name=f'{folder.name}_{len(war)}_{id(loader)}',
            cfg=Config(
                dict(
                    val_dataloader=self.FILES,
                    test_dataloader=self.FILES,
                    default_hooks=dict(checkpoint=checkpoint),
                )
            ),
            default_scope='mmengine',
            **options,
        )
        lines = []
        self_runner.logger.info = lambda text, *args: lines.append(text)
        self_runner.train()
        path = folder / 'summary.json'
        return json.loads(path.read_text()) if path.exists() else None, lines

    def test_the_first_of_the_highest(self, tmp_path):
        summary, lines = self.run(tmp_path, [30.0, 50.0, 50.0, 40.0])
        figures = {'video/WAR': 40.0, 'image/recall/WAR': 1.0}
        assert summary == {
            'chosen_by': 'video/WAR',
            'last': dict(epoch=4, checkpoint='epoch_4.pth', metrics=figures),
            'best on the test split': dict(
                epoch=2,
                checkpoint='best_video_WAR_epoch_2.pth',
                metrics=dict(figures, **{'video/WAR': 50.0}),
            ),
        }
        assert sorted(p.name for p in tmp_path.glob('best*')) == ['best_video_WAR_epoch_2.pth']
        (table,) = (line for line in lines if 'the highest video/WAR' in line)
        assert [' '.join(line.split()) for line in table.splitlines()[1:]] == [
            'epoch video/WAR checkpoint',
            'last 4 40.00 epoch_4.pth',
            'best on the test split 2 50.00 best_video_WAR_epoch_2.pth',
        ]

    @pytest.mark.parametrize('best_epoch', [1, 2])
    def test_a_resumed_run_knows_the_best(self, best_epoch, tmp_path):
        """Also if the best epoch was the one whose checkpoint is resumed."""
        war = [20.0, 20.0, 10.0]
        war[best_epoch - 1] = 60.0
        self.run(tmp_path, war[:2], epochs=3)
        summary, _ = self.run(tmp_path, war, resume=True, load_from=str(tmp_path / 'epoch_2.pth'))
        assert summary['last']['epoch'] == 3
        best = summary['best on the test split']
        assert (best['epoch'], best['metrics']['video/WAR']) == (best_epoch, 60.0)
        assert (tmp_path / best['checkpoint']).exists()
        assert len(list(tmp_path.glob('best*'))) == 1

    def test_a_finished_run_that_is_resumed(self, tmp_path):
        """Nothing is validated any more; the file stays, or says what is not known."""
        summary, _ = self.run(tmp_path, [60.0, 10.0])
        again = dict(resume=True, load_from=str(tmp_path / 'epoch_2.pth'))
        assert self.run(tmp_path, [0.0, 0.0], **again)[0] == summary
        (tmp_path / 'summary.json').unlink()
        without, lines = self.run(tmp_path, [0.0, 0.0], **again)
        assert without['last'] == dict(epoch=2, checkpoint='epoch_2.pth', metrics=None)
        assert without['best on the test split'] == summary['best on the test split']
        (table,) = (line for line in lines if 'the highest video/WAR' in line)
        assert table.splitlines()[2].split()[:3] == ['last', '2', '-']

    def test_one_modality_and_no_best_checkpoint(self, tmp_path):
        summary, _ = self.run(tmp_path, [30.0, 20.0], name='WAR', save_best=None)
        assert summary['chosen_by'] == 'WAR'
        best = summary['best on the test split']
        assert best['epoch'] == 1 and best['checkpoint'] is None

    def test_other_metrics_have_no_table(self, tmp_path):
        summary, _ = self.run(tmp_path, [1.0], name='acc/top1', save_best=None)
        assert summary is None
