# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""tools/kfold.py: a real run of two folds on a miniature of DFEW, its figures, and a resumption."""

import json
import os

import kfold
import pytest
import torch
from helpers import ONE_PROCESS, config_path, run_script, write_frames, write_image, write_text
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

# clips of 4 x 32 x 32 and a narrow model of 4 blocks
CONFIG = f"""
_base_ = {config_path('s4d_finetune_dfew')!r}
train_pipeline = _base_.train_pipeline
train_pipeline[1]['clip_len'] = 4
train_pipeline[6]['scale'] = (32, 32)
test_pipeline = _base_.test_pipeline
test_pipeline[1]['clip_len'] = 4
test_pipeline[3]['scale'] = (32, 32)
image_train_pipeline = _base_.image_train_pipeline
image_train_pipeline[1]['scale'] = (36, 36)
image_train_pipeline[2]['size'] = 32
image_test_pipeline = _base_.image_test_pipeline
image_test_pipeline[1]['scale'] = (32, 32)
train_dataloader = dict(dataset=dict(
    video=dict(pipeline=train_pipeline),
    image=dict(pipeline=image_train_pipeline)))
val_dataloader = dict(dataset=dict(
    video=dict(pipeline=test_pipeline),
    image=dict(pipeline=image_test_pipeline)))
test_dataloader = val_dataloader
arch = dict(_delete_=True, embed_dims=24, num_layers=4, num_heads=2)
size = dict(img_size=32, num_frames=4)
model = dict(backbone=dict(arch=arch, depth=2, **size),
             neck=dict(arch=arch, num_layers=2, num_experts=2),
             cls_head=dict(in_channels=24))
"""
OPTIONS = [
    'train_cfg.max_epochs=2',
    'randomness.seed=0',
    'optim_wrapper.type=OptimWrapper',
    'train_dataloader.batch_sampler.total_batch_size.video=2',
    'train_dataloader.batch_sampler.total_batch_size.image=2',
    'train_dataloader.sampler.share.image=1.0',
    *ONE_PROCESS,
]


class InProcess:
    """Runs the tools in this process."""

    def __init__(self):
        self.calls, self.arguments = [], []

    def __call__(self, tool, arguments, args, fold):
        folder = arguments[arguments.index('--work-dir') + 1]
        self.calls.append(f'{tool} {folder[folder.index("fold_") :]}')
        self.arguments.append(arguments)
        options = ['--cfg-options', *args.cfg_options, f'fold={fold}']
        try:
            run_script(f'tools/{tool}.py', *arguments, *options)
        except RuntimeError as e:
            print(e)
            return 1
        return 0


def names_of_fold(fold):
    return [f'train fold_{fold}', f'test fold_{fold}/test_last', f'test fold_{fold}/test_best']


@pytest.fixture
def launch(monkeypatch):
    calls = InProcess()
    monkeypatch.setattr(kfold, 'launch', calls)
    return calls


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """A miniature of DFEW in two folds, and AffectNet."""
    root = tmp_path_factory.mktemp('kfold')
    data = root / 'data'
    for i in range(5):
        write_frames(str(data / 'DFEW' / 'frames' / f'{i:05d}'), 6 + i)
    for fold, test in ((1, (0, 1)), (2, (2, 3, 4))):
        for split in ('train', 'test'):
            write_text(
                data / 'DFEW' / 'annotations' / f'set_{fold}_{split}.csv',
                'video_name,label',
                *[f'{i:05d},{i}' for i in range(5) if (i in test) == (split == 'test')],
            )
    for i in range(2):
        write_image(data / 'AffectNet' / 'images' / f'{i}.jpg')
    for split in ('train', 'test'):
        write_text(data / 'AffectNet' / 'annotations' / f'{split}_7.txt', '0.jpg 0', '1.jpg 1')
    (root / 'mini.py').write_text(CONFIG)
    before = os.getcwd()
    os.chdir(root)
    yield root
    os.chdir(before)


def arguments(work_dir, folds='1-2', options=()):
    command = ['mini.py', '--folds', folds, '--work-dir', str(work_dir)]
    return [*command, '--cfg-options', *OPTIONS, *options]


@pytest.fixture(scope='module')
def finished(root):
    """Work dir of a whole run, what it launched and its summary."""
    with pytest.MonkeyPatch.context() as patch:
        launch = InProcess()
        patch.setattr(kfold, 'launch', launch)
        summary = kfold.main(arguments(root / 'work'))
    return root / 'work', launch, summary


LAST, BEST = 'last', 'best on the test split'


def test_two_folds(finished):
    work, launch, summary = finished
    assert launch.calls == [*names_of_fold(1), *names_of_fold(2)]
    for fold, samples in ((1, ['00000', '00001']), (2, ['00002', '00003', '00004'])):
        folder = work / f'fold_{fold}'
        cfg = Config.fromfile(str(folder / 'mini.py'))
        assert cfg.train_dataloader.dataset.video.ann_file == (f'annotations/set_{fold}_train.csv')
        for loader in (cfg.val_dataloader, cfg.test_dataloader):
            assert loader.dataset.video.ann_file == (f'annotations/set_{fold}_test.csv')
        result = json.loads((folder / 'result.json').read_text())
        assert list(result['checkpoints']) == [LAST, BEST]
        trained = json.loads((folder / 'summary.json').read_text())
        for kind, part in ((LAST, 'last'), (BEST, 'best')):
            dumped = kfold.mmengine.load(str(folder / f'predictions_{part}.pkl'))
            assert [d['sample_id'] for d in dumped] == [*samples, '0.jpg', '1.jpg']
            own = result['checkpoints'][kind]
            assert own['file'] == trained[kind]['checkpoint'] and (folder / own['file']).exists()
            # the figures are those of tools/test.py, and of the training's validation
            (file,) = folder.glob(f'test_{part}/20*/20*.json')
            logged = json.loads(file.read_text())
            for modality in ('video', 'image'):
                for name, value in own['modalities'][modality]['metrics'].items():
                    assert logged[f'{modality}/{name}'] == pytest.approx(value, abs=1e-9)
                    validated = trained[kind]['metrics'][f'{modality}/{name}']
                    assert validated == pytest.approx(value, abs=1e-9)
        assert result['checkpoints'][LAST]['file'] == 'epoch_2.pth'
        assert list(summary) == [LAST, BEST]


def test_summary(finished):
    work, _, summary = finished
    written = json.loads((work / 'kfold.json').read_text())
    assert written['summary'] == json.loads(json.dumps(summary))
    for kind in (LAST, BEST):
        for modality in ('video', 'image'):
            parts = [r['checkpoints'][kind]['modalities'][modality] for r in written['folds']]
            war, own = [part['metrics']['WAR'] for part in parts], summary[kind][modality]
            assert own['mean']['WAR'] == pytest.approx(sum(war) / 2)
            assert own['std']['WAR'] == pytest.approx(abs(war[0] - war[1]) / 2**0.5)


def test_finished_folds_are_not_run_again(finished, launch, capsys):
    work, _, summary = finished
    # workers and processes may change
    command = arguments(work, options=['train_dataloader.num_workers=1'])
    assert kfold.main([*command, '--gpus', '2']) == summary
    one = kfold.main(arguments(work, folds='2'))
    assert list(one[LAST]['video']) == ['mean']
    with pytest.raises(SystemExit):
        kfold.main(arguments(work, options=['train_cfg.max_epochs=9']))
    assert 'train_cfg.max_epochs is 9, was 2' in capsys.readouterr().err
    assert launch.calls == []


def test_interrupted_training_resumes(finished, root, launch, monkeypatch):
    """In the second fold after its first epoch, and not from ``load_from``."""
    pretrained = str(root / 'pretrained.pth')
    weights = torch.load(finished[0] / 'fold_1' / 'epoch_2.pth', weights_only=True)
    torch.save(dict(state_dict=weights['state_dict']), pretrained)
    work = root / 'interrupted'
    command = arguments(work, options=[f'load_from={pretrained}'])
    after_epoch = CheckpointHook.after_train_epoch

    def interrupt(hook, runner):
        after_epoch(hook, runner)
        if runner.epoch == 0 and 'fold_2' in runner.work_dir:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointHook, 'after_train_epoch', interrupt)
        with pytest.raises(KeyboardInterrupt):
            kfold.main(command)
    assert launch.calls == [*names_of_fold(1), 'train fold_2']
    launch.calls.clear()
    kfold.main(command)
    assert launch.calls == names_of_fold(2)
    resumed = launch.arguments[-3]
    assert resumed[resumed.index('--resume') + 1] == str(work / 'fold_2' / 'epoch_1.pth')
    first, last = (
        torch.load(work / 'fold_2' / f'epoch_{i}.pth', weights_only=True) for i in (1, 2)
    )
    assert last['meta']['iter'] == 2 * first['meta']['iter']
    steps = [s['step'] for s in last['optimizer']['state'].values()]
    assert max(steps) == last['meta']['iter']  # the optimizer's state too


def test_what_ends_it_before_training(root, launch, monkeypatch, capsys):
    ferv = config_path('s4d_finetune_ferv39k')
    for argv, message in (
        (arguments(root / 'none', folds='1-3'), 'set_3_train.csv'),
        ([ferv, '--work-dir', str(root / 'none')], 'names no fold in train_dataloader'),
    ):
        with pytest.raises(SystemExit):
            kfold.main(argv)
        assert message in capsys.readouterr().err
    assert launch.calls == [] and not (root / 'none').exists()
    monkeypatch.setattr(kfold, 'launch', lambda *a: 3)
    with pytest.raises(SystemExit):
        kfold.main(arguments(root / 'failed'))
    text = 'Fold 1: training ended with exit code 3 and left no checkpoint'
    assert text in capsys.readouterr().err
