# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A training of a model of a few weights, in forks of the test's process, to be interrupted."""

import contextlib
import multiprocessing
import os
import sys
import time
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.pyplot  # noqa: F401
import torch
import torch._dynamo  # noqa: F401  # by every optimizer: not again in each fork
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

STEPS = 6  # of an epoch
TIMEOUT = 120  # ends a hang only


@MODELS.register_module()
class TinyModel(BaseModel):
    """Weights, ``width`` of them, and a scale, times the sample."""

    def __init__(self, width=4, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight, self.scale = (nn.Parameter(torch.ones(n)) for n in (width, 1))

    def forward(self, inputs, mode='tensor'):
        loss = (self.weight * self.scale * inputs.float().mean()).pow(2).mean()
        return dict(loss=loss) if mode == 'loss' else [dict(loss=loss)]


@DATASETS.register_module()
class TinyDataset(torch.utils.data.Dataset):
    """Numbers from 1."""

    metainfo: dict = {}

    def __init__(self, size=STEPS):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return dict(inputs=torch.tensor(1.0 + index))


@METRICS.register_module()
class TinyMetric(BaseMetric):
    """The values of ``scores``, one an epoch."""

    def __init__(self, scores=()):
        super().__init__()
        self.scores = list(scores)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(WAR=self.scores.pop(0) if self.scores else 0.0)


@HOOKS.register_module()
class SayWhere(Hook):
    """Write the number of each step that is done to a file, then wait a moment."""

    priority = 'LOW'

    def __init__(self, file, pause=0.0):
        self.file, self.pause = file, pause

    def _say(self, text):
        with open(f'{self.file}{os.environ.get("RANK", "")}', 'a') as f:
            f.write(f'{text}\n')
        time.sleep(self.pause)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self._say(f'step {runner.iter + 1}')

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self._say(f'val {runner.epoch}')


def config(folder, epochs=3, pause=0.0, width=4, workers=0, save=None, scores=None, **options):
    """The config of a training in ``folder``; ``save`` are arguments of the checkpoint hook."""
    loader = dict(
        dataset=dict(type='TinyDataset'),
        batch_size=1,
        num_workers=workers,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    cfg = dict(
        default_scope='mmengine',
        model=dict(type='TinyModel', width=width),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(
            checkpoint={'type': 'SafeCheckpointHook', 'interval': 1, **(save or {})},
            logger=dict(type='LoggerHook', interval=1000),
        ),
        custom_hooks=[
            dict(type='ResumeCheckHook'),
            dict(type='CheckpointFitHook'),
            dict(type='StopSignalHook'),
            dict(type='SayWhere', file=str(Path(folder).parent / 'steps'), pause=pause),
        ],
        launcher='none',
        randomness=dict(seed=1),
    )
    if scores is not None:
        cfg.update(
            val_dataloader=loader,
            val_cfg=dict(),
            val_evaluator=dict(type='TinyMetric', scores=scores),
        )
    cfg.update(options)
    return Config(cfg)


def train(cfg):
    """What tools/train.py does with a config."""
    from s4d_mm.engine.launch import build_runner, run_faults_as_messages
    from s4d_mm.engine.resume import ResumeError, prepare_training

    try:
        prepare_training(cfg)
    except ResumeError as e:
        print(e, file=sys.stderr)
        sys.exit(2)
    with run_faults_as_messages(cfg.work_dir):
        runner = build_runner(cfg)
        runner.train()
    return runner


class Training:
    """A process group of its own that calls a function: a fork, so that nothing is imported again.

    Args:
        function (callable): Without arguments.
        folder (Path): Of ``output`` and, of :class:`SayWhere`, ``steps``.
    """

    def __init__(self, function, folder):
        self.folder = folder
        with contextlib.suppress(FileNotFoundError):
            os.remove(folder / 'steps')
        self.process = multiprocessing.get_context('fork').Process(
            target=self._run, args=(function,)
        )
        self.process.start()
        self.pid = self.process.pid

    def _run(self, function):
        os.setsid()
        output = os.open(self.folder / 'output', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, 'w', buffering=1)
        sys.stderr = os.fdopen(2, 'w', buffering=1)
        torch.set_num_threads(1)
        Runner._log_env = lambda self, env_cfg: None  # takes seconds
        function()

    def wait_for(self, text, name='steps'):
        """Wait until a file has a line."""
        end = time.time() + TIMEOUT
        while time.time() < end:
            with contextlib.suppress(FileNotFoundError):
                if text in (self.folder / name).read_text().splitlines():
                    return
            assert self.process.is_alive(), self.output()
            time.sleep(0.01)
        raise AssertionError(f'no {text!r}')

    def signal(self, number, group=False):
        """Send a signal to the process, or to all of its group."""
        (os.killpg if group else os.kill)(self.pid, number)

    def end(self):
        """Wait for the end; the exit code."""
        self.process.join(TIMEOUT)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f'no end: {self.output()}')
        return self.process.exitcode

    def output(self):
        """What the process has written."""
        return (self.folder / 'output').read_text()
