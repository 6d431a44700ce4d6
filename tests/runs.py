# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""Runs in processes: ranks, trainings that are interrupted, and runs of the toolbox's own tools."""

import contextlib
import glob
import json
import multiprocessing
import os
import os.path as osp
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import matplotlib.backends.backend_agg
import matplotlib.figure
import matplotlib.pyplot  # noqa: F401  here, and not again in each fork
import mmaction.visualization  # noqa: F401
import torch
import torch._dynamo  # noqa: F401
import torch.distributed as dist
from helpers import ONE_PROCESS, ROOT, process_env, without_workers
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn

from s4d_mm.engine.checkpoint import ResumeError, prepare_training
from s4d_mm.engine.launch import build_runner, errors_as_messages

PRETRAIN = f'{ROOT}/configs/quickstart/s4d_quickstart_pretrain.py'
FINETUNE = f'{ROOT}/configs/quickstart/s4d_quickstart_finetune.py'
STEPS = 6  # of an epoch of the tiny training
TIMEOUT = 120  # ends a hang only


# ------------------------------------------------------------------ processes
def run_ranks(function, folder: Path, world_size: int = 2) -> list:
    """What a function returns in each process of a gloo group, forks that work in ``folder``."""
    folder.mkdir(exist_ok=True)
    torch.multiprocessing.start_processes(
        _run_rank, (function, str(folder), world_size), world_size, start_method='fork'
    )
    return [json.loads((folder / f'rank{i}.json').read_text()) for i in range(world_size)]


def _run_rank(rank: int, function, folder: str, world_size: int) -> None:
    os.chdir(folder)
    os.environ.update(RANK=str(rank), LOCAL_RANK='0')  # mmengine reads it, also without GPUs
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world_size)
    result = function()
    dist.destroy_process_group()
    Path(f'rank{rank}.json').write_text(json.dumps(result))


class Training:
    """A fork in a process group of its own that calls a function, with its output in ``folder``."""

    def __init__(self, function, folder):
        self.folder = Path(folder)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.folder / 'steps')
        context = multiprocessing.get_context('fork')
        self.process = context.Process(target=self._run, args=(function,))
        self.process.start()
        self.pid = self.process.pid

    def _run(self, function):
        os.setsid()
        output = os.open(self.folder / 'output', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, 'w', buffering=1)
        sys.stderr = os.fdopen(2, 'w', buffering=1)
        # as in a new process: another test of this one may have left its own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
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


# ------------------------------------------------------------------ a tiny training
@MODELS.register_module()
class TinyModel(BaseModel):
    """Four weights and a scale, times the sample."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.weight, self.scale = (nn.Parameter(torch.ones(n)) for n in (4, 1))

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


def config(folder, epochs=3, pause=0.0, workers=0, save=None, scores=None, **options):
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
        model=dict(type='TinyModel'),
        work_dir=str(folder),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(
            checkpoint={'type': 'SafeCheckpointHook', 'interval': 1, **(save or {})},
            logger=dict(type='LoggerHook', interval=1000),
        ),
        custom_hooks=[
            dict(type='RunCheckHook'),
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
    try:
        prepare_training(cfg)
    except ResumeError as e:
        print(e, file=sys.stderr)
        sys.exit(2)
    with errors_as_messages(cfg.work_dir):
        runner = build_runner(cfg)
        runner.train()
    return runner


# ------------------------------------------------------------------ the quickstart, in short
def short_config(path: str, work_dir, **options) -> Config:
    """A config of the quickstart: one short epoch; ``options`` have ``__`` for dots."""
    cfg = without_workers(Config.fromfile(path))
    cfg.train_cfg.max_epochs = 1
    cfg.train_dataloader.batch_sampler.batch_size = dict(video=4, image=8)
    if 'val_dataloader' in cfg:
        cfg.train_cfg.val_interval = 1
    cfg.update(work_dir=str(work_dir), launcher='none')
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


class KillHook(Hook):
    """End this process by SIGKILL at the nth call of a method of a hook."""

    priority = 'LOWEST'

    def __init__(self, stage: str, count: int) -> None:
        self.left = count
        setattr(self, stage, self.tick)

    def tick(self, *args, **kwargs) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def run(cfg: Config, kill: tuple[str, int] | None = None) -> None:
    """Train, and be killed as :class:`KillHook` says."""
    runner = build_runner(cfg)
    if kill:
        runner.register_hook(KillHook(*kill))
    runner.train()


def resumed(cfg: Config) -> Config:
    """The same training, to be resumed."""
    cfg = Config(cfg.to_dict())
    cfg.resume = True
    return cfg


def final_state(work_dir: str) -> dict:
    """All that a training leaves and that must be the same after an interruption."""
    with open(osp.join(work_dir, 'last_checkpoint')) as f:
        found = torch.load(f.read(), weights_only=True)
    hub, meta = found.pop('message_hub'), found.pop('meta')
    found['meta'] = {k: meta[k] for k in ('epoch', 'iter', 'seed')}
    found['scalars'] = {
        name: buffer.data[0].tolist()
        for name, buffer in hub['log_scalars'].items()
        if not name.endswith(('time', 'memory'))
    }
    known = ('best_score', 'best_validation', 'epoch_begin', 'keep_ckpt_ids', 'validated_iter')
    found['info'] = {k: v for k, v in hub['runtime_info'].items() if k in known}
    for path in glob.glob(osp.join(work_dir, 'summary.json')):
        with open(path) as f:
            found['summary'] = json.load(f)
    found['files'] = sorted(osp.basename(p) for p in glob.glob(osp.join(work_dir, '*.pth')))
    return found


def differences(one, two, name: str = '') -> list[str]:
    """Names of the parts of nested dicts, lists and tensors that are not equal bit by bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
        return [] if same else [name]
    if type(one) is not type(two):
        return [name]
    if isinstance(one, dict) and set(one) != set(two):
        return [f'{name}: {set(one) ^ set(two)}']
    if isinstance(one, (list, tuple)):
        if len(one) != len(two):
            return [f'{name}: {len(one)} and {len(two)}']
        one, two = dict(enumerate(one)), dict(enumerate(two))
    if isinstance(one, dict):
        return [d for key in one for d in differences(one[key], two[key], f'{name}.{key}')]
    return [] if one == two else [f'{name}: {one!r} and {two!r}']


# ------------------------------------------------------------------ the toolbox's own tools
# found without importing them
UPSTREAM = {
    name: osp.join(osp.dirname(find_spec(name).origin), '.mim', 'tools')
    for name in ('mmaction', 'mmpretrain')
}
TRAIN_OPTIONS = [
    *ONE_PROCESS[:2],
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_sampler.batch_size.video=4',
    'train_dataloader.batch_sampler.batch_size.image=8',
    'default_hooks.logger.interval=1',
]
TEST_OPTIONS = ONE_PROCESS[2:]


class ToolboxRun:
    """Trains the quickstart's configs with mmaction2's own tools when it is made."""

    def __init__(self, folder, data) -> None:
        os.symlink(data / 'data', folder / 'data')
        self.folder = folder
        self.pretrained = str(folder / 'pretrain' / 'epoch_1.pth')
        self.finetuned = str(folder / 'finetune' / 'epoch_1.pth')
        self.clip = str(next((folder / 'data' / 'clips').glob('*.mp4')))
        self.image = str(next((folder / 'data' / 'images' / 'test').glob('*.jpg')))
        self.pretrain_log = self.train(PRETRAIN, 'pretrain', TRAIN_OPTIONS)
        options = [*TRAIN_OPTIONS, *TEST_OPTIONS, 'train_cfg.val_interval=1']
        options += [f'load_from={self.pretrained}']
        self.finetune_log = self.train(FINETUNE, 'finetune', options)

    def train(self, config: str, name: str, options: list) -> str:
        """Train with mmaction2's tool, in the subfolder ``name``; its output."""
        tool = osp.join(UPSTREAM['mmaction'], 'train.py')
        return self.call(tool, config, '--work-dir', self.folder / name, '--cfg-options', *options)

    def call(self, *command) -> str:
        """Run a tool in a process and a folder of its own; its output."""
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env=process_env(QUICKSTART_DIR=str(self.folder)),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-9000:]
        return done.stdout
