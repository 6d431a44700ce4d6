# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One short run of the quickstart's configs with mmaction2's own tools.

It serves the tests of tools and instruments.
"""

import os
import os.path as osp
import subprocess
import sys
from importlib.util import find_spec

from helpers import ROOT, process_env

PRETRAIN = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_pretrain.py')
FINETUNE = osp.join(ROOT, 'configs', 'quickstart', 's4d_quickstart_finetune.py')
# found without importing them
UPSTREAM = {
    name: osp.join(osp.dirname(find_spec(name).origin), '.mim', 'tools')
    for name in ('mmaction', 'mmpretrain')
}
TRAIN_OPTIONS = [
    'train_cfg.max_epochs=1',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'train_dataloader.batch_sampler.batch_size.video=4',
    'train_dataloader.batch_sampler.batch_size.image=8',
    'default_hooks.logger.interval=1',
]
TEST_OPTIONS = [
    f'{stage}_dataloader.{option}'
    for stage in ('val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def log_keeper(package: str, backend: str, *settings: str) -> list[str]:
    """Options for a log keeper of mmengine; none if its package is not installed."""
    if find_spec(package) is None:
        return []
    return [f'visualizer.vis_backends.0.{s}' for s in (f'type={backend}', *settings)]


class ToolboxRun:
    """Trains when it is made.

    Args:
        folder (pathlib.Path): An empty folder.
        data (pathlib.Path): Folder with the drawn faces in ``data``.
    """

    def __init__(self, folder, data) -> None:
        os.symlink(data / 'data', folder / 'data')
        self.folder = folder
        self.pretrained = str(folder / 'pretrain' / 'epoch_1.pth')
        self.finetuned = str(folder / 'finetune' / 'epoch_1.pth')
        self.clip = str(next((folder / 'data' / 'clips').glob('*.mp4')))
        self.image = str(next((folder / 'data' / 'images' / 'test').glob('*.jpg')))
        options = [*TRAIN_OPTIONS, *log_keeper('tensorboard', 'TensorboardVisBackend')]
        self.pretrain_log = self.train(PRETRAIN, 'pretrain', options)
        options = [*TRAIN_OPTIONS, *TEST_OPTIONS, 'train_cfg.val_interval=1']
        options += [f'load_from={self.pretrained}']
        options += log_keeper('wandb', 'WandbVisBackend', 'init_kwargs.mode=offline')
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
