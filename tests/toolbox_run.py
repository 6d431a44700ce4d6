# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""One short run of the quickstart's configs with mmaction2's own tools, for
the tests of tools and instruments."""

import os
import os.path as osp
import subprocess
import sys
from importlib.util import find_spec

from helpers import ROOT

PRETRAIN = osp.join(ROOT, 'configs', 's4d_quickstart_pretrain.py')
FINETUNE = osp.join(ROOT, 'configs', 's4d_quickstart_finetune.py')
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
        train = osp.join(UPSTREAM['mmaction'], 'train.py')
        backend = 'visualizer.vis_backends.0.'
        self.pretrain_log = self.call(
            train,
            PRETRAIN,
            '--work-dir',
            folder / 'pretrain',
            '--cfg-options',
            *TRAIN_OPTIONS,
            f'{backend}type=TensorboardVisBackend',
        )
        self.finetune_log = self.call(
            train,
            FINETUNE,
            '--work-dir',
            folder / 'finetune',
            '--cfg-options',
            *TRAIN_OPTIONS,
            *TEST_OPTIONS,
            'train_cfg.val_interval=1',
            f'load_from={self.pretrained}',
            f'{backend}type=WandbVisBackend',
            f'{backend}init_kwargs.mode=offline',
        )

    def call(self, *command) -> str:
        """Run a tool in a process and a folder of its own; its output."""
        env = dict(
            os.environ, PYTHONPATH=ROOT, OMP_NUM_THREADS='1', QUICKSTART_DIR=str(self.folder)
        )
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=self.folder,
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-9000:]
        return done.stdout
